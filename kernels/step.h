// What the device decides in a training step without the host: the step statistics, the status, and
// the gradient of a guarded step. Pointers are device memory.
#pragma once

#include <cstddef>

#include "kernels/runtime.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// The statistics of src/backend/step.h, in the same order.
struct StepStatistics {
  double loss, tasks, diverged, outside, mean_squares, gradient_squares, clipped_squares, status;
};
enum class StepStatus : int { update, guard, stop };

/// to[0] += value.
void add_number(double* to, double value, cudaStream_t stream);
/// Sets the status by the rule of backend::StepRule.
void decide_update(StepStatistics* step, double max_diverged, bool guard, cudaStream_t stream);
/// gradient = factor * parameters if the status is `guard`. Instantiated for float and double.
template <class T>
void guard(T* gradient, const T* parameters, T factor, const StepStatistics* step,
           std::size_t count, cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
