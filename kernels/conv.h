// Convolutions in which every task has its own kernel, their gradients, and the tangents of both.
//
// All operations here are bilinear, so a tangent is a sum of two products, f(x; w_dot) + f(x_dot;
// w). Each function therefore computes the sum of up to two products in one launch. The pointers of
// the second product are null if there is none.
//
// Layout: features [tasks, rows, C, H, W], kernels [O, I, k, k] and biases [O] within each task's
// vector, all row-major. Rows beyond a task's own are neither read nor written. Outputs do not
// overlap inputs. Instantiated for float and double. Throws kshot::Error if the shapes do not fit.
//
// Arithmetic::split_tf32 needs a device with tensor cores (tensor_core.h). Products of doubles are
// plain with either Arithmetic.
#pragma once

#include "kernels/arithmetic.h"
#include "kernels/extent.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// out = (in + 2 padding - kernel) / stride + 1, rounded down, for height and width.
struct ConvShape {
  int in_channels = 0, in_height = 0, in_width = 0;
  int out_channels = 0, out_height = 0, out_width = 0;
  int kernel = 1, stride = 1, padding = 0;
};

/// Features and the kernels that they are multiplied with.
template <class T>
struct ConvProduct {
  const T* features = nullptr;
  TaskTensor<const T> weight;
};

/// y = sum over the products of x * w, plus the bias if it is given. The tangent takes the products
/// {x, w_dot} and {x_dot, w}, and bias_dot as the bias.
template <class T>
void conv_forward(T* y, ConvProduct<T> first, ConvProduct<T> second, TaskTensor<const T> bias,
                  const ConvShape& shape, const RowExtent& rows, Arithmetic arithmetic,
                  cudaStream_t stream);

/// g_x = sum over the products of the transposed convolution of their features, g_y [O, ...], with
/// w. The tangent takes the products {g_y_dot, w} and {g_y, w_dot}.
template <class T>
void conv_input_gradient(T* g_x, ConvProduct<T> first, ConvProduct<T> second,
                         const ConvShape& shape, const RowExtent& rows, Arithmetic arithmetic,
                         cudaStream_t stream);

/// A gradient by outputs and the inputs that it is multiplied with.
template <class T>
struct ConvOuterProduct {
  const T* g_y = nullptr;
  const T* x = nullptr;
};

/// g_weight = or += (`accumulate`) the sum over products, rows and positions of g_y x. g_bias, if
/// it is given, receives the sum of the first product's g_y in the same way. The tangent takes the
/// products {g_y_dot, x} and {g_y, x_dot}. Rows and positions fix the order of each sum. With
/// several tasks the strides must not be 0.
template <class T>
void conv_weight_gradient(TaskTensor<T> g_weight, TaskTensor<T> g_bias, ConvOuterProduct<T> first,
                          ConvOuterProduct<T> second, bool accumulate, const ConvShape& shape,
                          const RowExtent& rows, Arithmetic arithmetic, cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
