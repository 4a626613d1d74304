// Activations and their tangents: flat passes over features [tasks, rows, features]. Pointers are
// device memory. Instantiated for float and double.
#pragma once

#include <cstddef>

#include "kernels/extent.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

enum class Activation { relu, tanh, leaky_relu };

/// y = f(x). If y.dot is given, y.dot = f'(x) x.dot. NaN is passed on.
template <class T>
void activation_forward(Activation f, Tangent<T> y, Tangent<const T> x, std::size_t count,
                        cudaStream_t stream);
/// g_in = f'(x) g. If g_in.dot is given, g_in.dot = f'(x) g.dot + f''(x) x.dot g.
template <class T>
void activation_backward(Activation f, Tangent<T> g_in, Tangent<const T> g, Tangent<const T> x,
                         std::size_t count, cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
