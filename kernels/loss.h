// Losses over a task's own rows, with their first and second derivatives. Pointers are device
// memory. Instantiated for float and double.
#pragma once

#include <cstdint>

#include "kernels/extent.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

enum class LossFunction { cross_entropy, mse, gaussian_nll };

/// The targets of the outputs: labels [tasks, rows] for cross-entropy, else values [tasks, rows,
/// outputs].
template <class T>
struct LossTarget {
  LossFunction function = LossFunction::cross_entropy;
  T noise_std = 1;  ///< only for gaussian_nll
  const std::int32_t* labels = nullptr;
  const T* values = nullptr;
};

/// If `loss` is given: loss[task] += scale * the sum over the task's own rows of the negative
/// log-likelihood of out [tasks, rows, outputs]; row_loss [tasks, rows] is its scratch memory. If
/// g.value is given: g.value = scale * the gradient. If g.dot is given: g.dot = the derivative of
/// that gradient along out.dot. g and g.dot are zero in rows beyond a task's own.
template <class T>
void loss(const LossTarget<T>& target, Tangent<const T> out, int outputs, const RowExtent& rows,
          const TaskScale<T>& scale, T* loss, T* row_loss, Tangent<T> g, cudaStream_t stream);

/// dst = out, with zero in rows beyond a task's own. Both are [tasks, rows, outputs].
template <class T>
void own_rows(T* dst, const T* out, int outputs, const RowExtent& rows, cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
