// Losses over a task's own rows, with first and second order. Pointers are device memory;
// instantiated for float and double.
#pragma once

#include <cstdint>

#include "kernels/extent.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

enum class LossFunction { cross_entropy, mse, gaussian_nll };

/// What the outputs are held against: labels [tasks, rows] for cross-entropy, else values
/// [tasks, rows, outputs].
template <class T>
struct LossTarget {
  LossFunction function = LossFunction::cross_entropy;
  T noise_std = 1;  ///< gaussian_nll
  const std::int32_t* labels = nullptr;
  const T* values = nullptr;
};

/// loss[task] += scale * sum over its rows of the negative log-likelihood of out [tasks, rows,
/// outputs], where `loss` is given: it needs row_loss [tasks, rows] for scratch. g = scale * its
/// gradient where given; g.dot, where given, the derivative of that along out.dot. Rows beyond a
/// task's own: zero in g and g.dot.
template <class T>
void loss(const LossTarget<T>& target, Tangent<const T> out, int outputs, const RowExtent& rows,
          const TaskScale<T>& scale, T* loss, T* row_loss, Tangent<T> g, cudaStream_t stream);

/// dst = out, rows beyond a task's own zero; both [tasks, rows, outputs].
template <class T>
void own_rows(T* dst, const T* out, int outputs, const RowExtent& rows, cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
