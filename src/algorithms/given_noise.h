// Explicit noise of recorded cases (kshot verify): from a case's arrays into blocks of a wave.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "algorithms/algorithm.h"
#include "backend/wave.h"

namespace kshot {

/// The blocks are written for one Monte Carlo sample at a time and hold that of the last call.
class GivenNoise {
 public:
  explicit GivenNoise(backend::Wave& wave) : wave_(wave) {}

  /// Standard normal noise, one number a weight, of sample `first` of an array with `samples` a
  /// task, each [D]; an empty block where there is no array.
  backend::Block weights(const double* from, std::size_t first, std::size_t samples);
  /// Noise by rows of every layer, likewise.
  std::span<const backend::GaussianNoise::Layer> layers(
      std::span<const StepContext::LayerNoise> from, std::size_t first, std::size_t samples);
  /// All of [steps, T, samples, D] as one block [steps, samples, D], in the flat order; an empty
  /// block where there is none. `tasks` is T.
  backend::Block all(const double* from, int steps, int tasks, int samples);

 private:
  backend::Wave& wave_;
  backend::Block weights_, all_;
  std::vector<backend::GaussianNoise::Layer> layers_;
};

}  // namespace kshot
