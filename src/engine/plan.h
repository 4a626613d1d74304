// Counts the cost of a configuration without computing it: the algorithm runs once on a wave that
// only records costs.
#pragma once

#include <cstddef>

#include "backend/backend.h"
#include "kshot/config.h"
#include "kshot/episode.h"

namespace kshot {

/// The cost of one task in one meta-step.
struct TaskCost {
  std::size_t vector_scalars = 0;  ///< per-task vectors: iterates, gradients, noise
  std::size_t row_scalars = 0;     ///< the episode: inputs and targets
  /// Every layer's output for the largest set of rows, forward and backward, and the tangents of
  /// both where there are Hessian-vector products. This is more than a backend keeps at a time.
  std::size_t activation_scalars = 0;
  std::size_t gradients = 0;         ///< network gradients, each over a set of rows
  std::size_t hessian_products = 0;  ///< Hessian-vector products, each over a set of rows
  /// Operations of the network alone: 2 per multiply-add, 3 forward passes per gradient, 2
  /// gradients per Hessian-vector product.
  double operations = 0.0;
  std::size_t scalars() const { return vector_scalars + row_scalars + activation_scalars; }
};
TaskCost count_task(const Config& config, const TaskShape& shape);

/// Makes the backend size its waves for training or adapting with such a configuration. Called
/// before the first wave is opened. Counts the vectors of the meta-gradient and those of the
/// prediction.
backend::WavePlan plan_waves(backend::Backend& backend, const Config& config,
                             const TaskShape& shape);

}  // namespace kshot
