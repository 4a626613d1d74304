// Batch norm over a task's own rows and all positions, its gradient, and the tangents of both.
//
// Layout: features [tasks, rows, channels, positions] (vectors have one position), statistics of
// each channel [tasks, channels], scale and shift [channels] within each task's vector. Rows beyond
// a task's own are neither read nor written. Pointers are device memory. An output may be in place
// of an input of the same shape only where a comment says so. Instantiated for float and double.
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
  batch,  ///< computed from x and stored
  /// read; they come from other rows under the same weights, and no gradient goes through them
  given,
};

/// y = scale x_hat + shift, x_hat = (x - mean) inverse, inverse = 1 / sqrt(variance +
/// norm_epsilon).
template <class T>
struct NormForward {
  const T* x = nullptr;
  TaskTensor<const T> scale, shift;
  T* mean = nullptr;
  T* inverse = nullptr;
  T* x_hat = nullptr;  ///< null: not stored; may be x
  T* y = nullptr;      ///< may be x, if x_hat is not x
};
template <class T>
void norm_forward(const NormForward<T>& pass, NormSource source, NormSize size,
                  const RowExtent& rows, cudaStream_t stream);

/// The tangent y_dot along x_dot and the dots of the weights. The backward pass needs x_hat_dot and
/// `slope`, the mean of x_hat x_dot.
template <class T>
struct NormForwardTangent {
  const T* x_hat = nullptr;
  const T* inverse = nullptr;
  const T* x_dot = nullptr;  ///< null: x_dot is zero
  TaskTensor<const T> scale, scale_dot, shift_dot;
  T* slope = nullptr;
  T* x_hat_dot = nullptr;  ///< may be x_dot
  T* y_dot = nullptr;      ///< may be x_dot, if x_hat_dot is not x_dot
};
template <class T>
void norm_forward_tangent(const NormForwardTangent<T>& pass, NormSize size, const RowExtent& rows,
                          cudaStream_t stream);

/// The gradients: g_x is overwritten; g_scale and g_shift are overwritten or, with `accumulate`,
/// added to. Outputs that are null are not computed.
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

/// The outputs of norm_backward, and their tangents along the dots.
template <class T>
struct NormBackwardTangent {
  NormBackward<T> primal;
  const T* g_y_dot = nullptr;
  const T* x_hat_dot = nullptr;
  const T* slope = nullptr;
  TaskTensor<const T> scale_dot;
  T* g_x_dot = nullptr;  ///< may be g_y_dot
  TaskTensor<T> g_scale_dot, g_shift_dot;
  bool accumulate = false;  ///< for the dots; primal.accumulate is for the gradients themselves
};
template <class T>
void norm_backward_tangent(const NormBackwardTangent<T>& pass, NormSize size, const RowExtent& rows,
                           cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
