// What a training step decides without the host: its statistics, its status, and the gradient that
// takes a guarded step's place. Pointers are device memory.
#pragma once

#include <cstddef>

#include "kernels/runtime.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// In the meaning of src/backend/step.h, and in its order.
struct StepStatistics {
  double loss, tasks, diverged, outside, mean_squares, gradient_squares, clipped_squares, status;
};
enum class StepStatus : int { update, guard, stop };

/// to[0] += value.
void add_number(double* to, double value, cudaStream_t stream);
/// Sets the status: backend::StepRule.
void decide_update(StepStatistics* step, double max_diverged, bool guard, cudaStream_t stream);
/// gradient = factor * parameters, where the status is to guard. Instantiated for float and
/// double.
template <class T>
void guard(T* gradient, const T* parameters, T factor, const StepStatistics* step,
           std::size_t count, cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
