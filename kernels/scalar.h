// Scalars of a task (its counts, losses, factors), and their effect on the task's vectors. Pointers
// are device memory. Instantiated for float and double.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/extent.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// dst[b] = counts[b].
template <class T>
void from_counts(T* dst, const std::int32_t* counts, int tasks, cudaStream_t stream);
/// dst = 1 / src, log src, and the square root of src, for `count` elements. dst may be src.
template <class T>
void reciprocal(T* dst, const T* src, std::size_t count, cudaStream_t stream);
template <class T>
void logarithm(T* dst, const T* src, std::size_t count, cudaStream_t stream);
template <class T>
void square_root(T* dst, const T* src, std::size_t count, cudaStream_t stream);
/// y[b, i] *= scalar[b].
template <class T>
void scale_by(T* y, const T* scalar, Extent extent, cudaStream_t stream);

/// A step of Adam (Kingma & Ba 2015) for every task on its own. count[b] is the number of the step
/// for task b, counted from 1.
template <class T>
struct TaskAdam {
  T* parameters = nullptr;
  const T* gradient = nullptr;
  T* m = nullptr;
  T* v = nullptr;
  const T* count = nullptr;
  T learning_rate = 0, beta1 = 0, beta2 = 0, epsilon = 0;
};
template <class T>
void adam_step(const TaskAdam<T>& adam, Extent extent, cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
