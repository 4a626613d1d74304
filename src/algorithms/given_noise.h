// Explicit noise of recorded cases (kshot verify), copied from a case's arrays into blocks of a
// wave.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "algorithms/algorithm.h"
#include "backend/wave.h"

namespace kshot {

/// The noise blocks of one wave. weights() and layers() write one Monte Carlo sample at a time into
/// the same blocks, which hold the sample of the last call.
class GivenNoise {
 public:
  explicit GivenNoise(backend::Wave& wave) : wave_(wave) {}

  /// Standard normal noise, one number per weight: sample number `first` of an array with `samples`
  /// samples per task, each [D]. Empty where there is no array.
  backend::Block weights(const double* from, std::size_t first, std::size_t samples);
  /// The noise by rows of every layer. `first` and `samples` are those of weights().
  std::span<const backend::GaussianNoise::Layer> layers(
      std::span<const StepContext::LayerNoise> from, std::size_t first, std::size_t samples);
  /// The whole array [steps, T, samples, D] as one block [steps, samples, D], in the flat order.
  /// Empty where there is none. `tasks` is T.
  backend::Block all(const double* from, int steps, int tasks, int samples);

 private:
  backend::Wave& wave_;
  backend::Block weights_, all_;
  std::vector<backend::GaussianNoise::Layer> layers_;
};

}  // namespace kshot
