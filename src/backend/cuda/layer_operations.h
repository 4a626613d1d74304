// The layers of a network, each as the kernels that it launches. A new kind of layer is an entry in
// layer_operations.cpp: the wave knows no layer by name except `flatten`, which moves no data.
#pragma once

#include <cstddef>

#include "kernels/arithmetic.h"
#include "kernels/linear.h"
#include "kshot/network.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// One layer of all tasks on one set of rows. Tangents that do not exist are null: all tangents in
/// a plain gradient, and the input's tangent in the first layer.
template <class T>
struct LayerCall {
  const Layer* layer = nullptr;
  RowExtent rows;
  cudaStream_t stream = nullptr;
  Arithmetic arithmetic = Arithmetic::plain;  ///< used by convolutions
  Tangent<const T> x;                         ///< input
  TensorTangent<const T> weight, bias;        ///< the tasks' tensors, as named in Layer
  Tangent<T> kept;           ///< [tasks, kept scalars]: values that forward leaves for backward
  const T* given = nullptr;  ///< forward only: `kept` of the support set, to be used
};

template <class T>
struct LayerOperations {
  /// Overwrites y. Rows beyond a task's own become zero or stay as they are.
  void (*forward)(const LayerCall<T>& call, Tangent<T> y) = nullptr;
  /// Computes from g, the gradient by the output: g_in where it is not null (overwritten), and the
  /// weights' gradients (overwritten or accumulated).
  void (*backward)(const LayerCall<T>& call, Tangent<const T> g, Tangent<T> g_in,
                   TensorTangent<T> g_weight, TensorTangent<T> g_bias, Accumulate to) = nullptr;
  /// Number of scalars of LayerCall::kept per task. Null: none.
  std::size_t (*kept)(const Layer& layer, int rows) = nullptr;
};

/// Null for `flatten`.
template <class T>
const LayerOperations<T>* layer_operations(LayerType type);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
