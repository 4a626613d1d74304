// What a configuration will cost, counted without doing it: the algorithm runs once on a wave that
// only keeps the books.
#pragma once

#include <cstddef>

#include "backend/backend.h"
#include "kshot/config.h"
#include "kshot/episode.h"

namespace kshot {

/// Of one task in one meta-step.
struct TaskCost {
  std::size_t vector_scalars = 0;  ///< per-task vectors: iterates, gradients, noise
  std::size_t row_scalars = 0;     ///< the episode: inputs and targets
  /// Every layer's output for the largest set of rows, forward and backward, and the tangents of
  /// both where there are Hessian-vector products: more than a backend keeps at once.
  std::size_t activation_scalars = 0;
  std::size_t gradients = 0;         ///< network gradients, over a set of rows each
  std::size_t hessian_products = 0;  ///< Hessian-vector products, likewise
  /// Of the network alone: 2 a multiply-add, a gradient 3 forward passes, a Hessian-vector product
  /// 2 gradients.
  double operations = 0.0;
  std::size_t scalars() const { return vector_scalars + row_scalars + activation_scalars; }
};
TaskCost count_task(const Config& config, const TaskShape& shape);

/// Has the backend size its waves for training or adapting by such a configuration; to be called
/// before the first is opened. Counts both the meta-gradient's vectors and the prediction's.
backend::WavePlan plan_waves(backend::Backend& backend, const Config& config,
                             const TaskShape& shape);

}  // namespace kshot
