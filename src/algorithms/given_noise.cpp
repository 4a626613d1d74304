#include "algorithms/given_noise.h"

#include <algorithm>

namespace kshot {
namespace {

using backend::Block;

/// Returns `block`, or a new block if `block` has another width.
Block with_width(backend::Wave& wave, Block block, std::size_t width) {
  return block && wave.width(block) == width ? block : wave.block(width);
}

}  // namespace

Block GivenNoise::weights(const double* from, std::size_t first, std::size_t samples) {
  if (from == nullptr) return {};
  const std::size_t width = wave_.network().size();
  if (!weights_) weights_ = wave_.weights();
  wave_.upload(weights_, from + first * width, samples * width);
  return weights_;
}

std::span<const backend::GaussianNoise::Layer> GivenNoise::layers(
    std::span<const StepContext::LayerNoise> from, std::size_t first, std::size_t samples) {
  layers_.resize(from.size());
  for (std::size_t i = 0; i < from.size(); ++i) {
    const auto put = [&](Block& to, const double* values, std::size_t size) {
      if (values == nullptr || size == 0) {
        to = {};
        return;
      }
      to = with_width(wave_, to, size);
      wave_.upload(to, values + first * size, samples * size);
    };
    put(layers_[i].in, from[i].in, from[i].in_size);
    put(layers_[i].out, from[i].out, from[i].out_size);
  }
  return layers_;
}

Block GivenNoise::all(const double* from, int steps, int tasks, int samples) {
  if (from == nullptr || steps == 0) return {};
  const std::size_t of_step = static_cast<std::size_t>(samples) * wave_.network().size();
  const std::size_t width = static_cast<std::size_t>(steps) * of_step;
  std::vector<double> by_task(static_cast<std::size_t>(tasks) * width);
  for (std::size_t k = 0; k < static_cast<std::size_t>(steps); ++k) {
    for (std::size_t t = 0; t < static_cast<std::size_t>(tasks); ++t) {
      std::copy_n(from + (k * static_cast<std::size_t>(tasks) + t) * of_step, of_step,
                  by_task.begin() + static_cast<std::ptrdiff_t>(t * width + k * of_step));
    }
  }
  all_ = with_width(wave_, all_, width);
  wave_.upload(all_, by_task.data(), width);
  return all_;
}

}  // namespace kshot
