// Batch norm over a task's own rows and all positions, its gradient, and the tangents of both.
//
// Layout: features [tasks, rows, channels, positions] (vectors have one position), numbers of each
// channel [tasks, channels], scale and shift [channels] within each task's vector. Rows beyond a
// task's own are neither read nor written. Pointers are device memory; outputs may be in place of
// inputs of the same shape, where that is said. Instantiated for float and double.
#pragma once

#include "kernels/extent.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

struct NormSize {
  int channels = 0;
  int positions = 1;  ///< height * width
};

/// Where a norm layer's mean and inverse standard deviation come from.
enum class NormSource {
  batch,  ///< computed from x, and stored
  given,  ///< read: of other rows under the same weights (no gradient goes through it)
};

/// y = scale x_hat + shift, x_hat = (x - mean) inverse, inverse = 1 / sqrt(variance +
/// norm_epsilon).
template <class T>
struct NormForward {
  const T* x = nullptr;
  TaskTensor<const T> scale, shift;
  T* mean = nullptr;
  T* inverse = nullptr;
  T* x_hat = nullptr;  ///< null: not wanted; may be x
  T* y = nullptr;      ///< may be x, where x_hat is not
};
template <class T>
void norm_forward(const NormForward<T>& pass, NormSource source, NormSize size,
                  const RowExtent& rows, cudaStream_t stream);

/// y_dot, along x_dot and the weights' dots; x_hat_dot and `slope`, the mean of x_hat x_dot, are
/// for the backward pass.
template <class T>
struct NormForwardTangent {
  const T* x_hat = nullptr;
  const T* inverse = nullptr;
  const T* x_dot = nullptr;  ///< null: zero
  TaskTensor<const T> scale, scale_dot, shift_dot;
  T* slope = nullptr;
  T* x_hat_dot = nullptr;  ///< may be x_dot
  T* y_dot = nullptr;      ///< may be x_dot, where x_hat_dot is not
};
template <class T>
void norm_forward_tangent(const NormForwardTangent<T>& pass, NormSize size, const RowExtent& rows,
                          cudaStream_t stream);

/// g_x, and g_scale, g_shift = or += (`accumulate`) theirs; what is null is not wanted.
template <class T>
struct NormBackward {
  const T* g_y = nullptr;
  const T* x_hat = nullptr;
  const T* inverse = nullptr;
  TaskTensor<const T> scale;
  T* g_x = nullptr;  ///< may be g_y
  TaskTensor<T> g_scale, g_shift;
  bool accumulate = false;
};
template <class T>
void norm_backward(const NormBackward<T>& pass, NormSize size, const RowExtent& rows,
                   cudaStream_t stream);

/// What norm_backward gives, and its tangent along the dots.
template <class T>
struct NormBackwardTangent {
  NormBackward<T> primal;
  const T* g_y_dot = nullptr;
  const T* x_hat_dot = nullptr;
  const T* slope = nullptr;
  TaskTensor<const T> scale_dot;
  T* g_x_dot = nullptr;  ///< may be g_y_dot
  TaskTensor<T> g_scale_dot, g_shift_dot;
  bool accumulate = false;  ///< the dots; primal.accumulate is for the gradient itself
};
template <class T>
void norm_backward_tangent(const NormBackwardTangent<T>& pass, NormSize size, const RowExtent& rows,
                           cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
