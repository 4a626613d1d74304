// The layers that a wave can go through, each as the kernels that it launches. A new kind of layer
// is an entry in layer_operations.cpp: the wave knows none by name, but `flatten`, which moves
// nothing.
#pragma once

#include <cstddef>

#include "kernels/arithmetic.h"
#include "kernels/linear.h"
#include "kshot/network.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// One layer of all tasks on one set of rows. Tangents are null where there are none: all of them
/// in a plain gradient, the input's in the first layer.
template <class T>
struct LayerCall {
  const Layer* layer = nullptr;
  RowExtent rows;
  cudaStream_t stream = nullptr;
  Arithmetic arithmetic = Arithmetic::plain;  ///< of convolutions
  Tangent<const T> x;                         ///< input
  TensorTangent<const T> weight, bias;        ///< of the tasks; as in Layer
  Tangent<T> kept;           ///< [tasks, kept scalars]: what forward leaves backward
  const T* given = nullptr;  ///< forward: `kept` of the support set, to be used
};

template <class T>
struct LayerOperations {
  /// Overwrites y; rows beyond a task's own with zero, or leaves them as they are.
  void (*forward)(const LayerCall<T>& call, Tangent<T> y) = nullptr;
  /// From g, the gradient by the output: overwrites g_in where it is wanted (not null) and writes
  /// the weights' gradients, overwriting or accumulating.
  void (*backward)(const LayerCall<T>& call, Tangent<const T> g, Tangent<T> g_in,
                   TensorTangent<T> g_weight, TensorTangent<T> g_bias, Accumulate to) = nullptr;
  /// Scalars of LayerCall::kept a task; null: none.
  std::size_t (*kept)(const Layer& layer, int rows) = nullptr;
};

/// Null for `flatten`.
template <class T>
const LayerOperations<T>* layer_operations(LayerType type);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
