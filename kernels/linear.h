// Linear layers with per-task weights, and their tangents.
//
// Layout: features [tasks, rows, features], weights [outputs, inputs] and biases [outputs] of each
// task (TaskTensor). Rows beyond a task's own are never read, and are written as zero. Pointers are
// device memory. Instantiated for float and double.
#pragma once

#include "kernels/extent.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

struct LinearSize {
  int inputs = 0;
  int outputs = 0;
};

/// y = W x + b. If y.dot is given, y.dot = W x.dot + W.dot x + b.dot.
template <class T>
void linear_forward(Tangent<T> y, Tangent<const T> x, TensorTangent<const T> weight,
                    TensorTangent<const T> bias, LinearSize size, const RowExtent& rows,
                    cudaStream_t stream);

/// g_in = W^T g. If g_in.dot is given, g_in.dot = W^T g.dot + W.dot^T g.
template <class T>
void linear_input_gradient(Tangent<T> g_in, Tangent<const T> g, TensorTangent<const T> weight,
                           LinearSize size, const RowExtent& rows, cudaStream_t stream);

/// Which of the two outputs of a gradient are added to instead of overwritten.
struct Accumulate {
  bool value = false, dot = false;
};

/// Sums over a task's own rows: g_weight = or += sum g x^T, and g_bias = or += sum g. The dots are
/// the derivatives: sum g.dot x^T + g x.dot^T, and sum g.dot. Outputs that are null are not
/// computed.
template <class T>
void linear_weight_gradient(TensorTangent<T> g_weight, TensorTangent<T> g_bias, Accumulate to,
                            Tangent<const T> g, Tangent<const T> x, LinearSize size,
                            const RowExtent& rows, cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
