// Activations and their tangents (activation.h).
//
// Mathematics    relu: max(x, 0); tanh; leaky_relu: x > 0 ? x : 0.01 x. f'' is zero except for
//                tanh. With t = tanh(x): f' = 1 - t^2, f'' = -2 t (1 - t^2).
// Layout         Flat. Rows beyond a task's own are included (zero stays zero).
// Who does what  Flat passes (passes.h).
// Outputs        Overwritten.
// Bytes          Per element, in scalars of T: forward 2, its tangent 4; backward 3, its tangent 6.
// Operations     1 to 4 per element, tanh ~20. The kernels are bound by memory. They could be fused
//                into the products.
#include "kernels/activation.h"

#include "kernels/passes.h"
#include "kshot/network.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

/// f, f' and f'' at x.
template <class T>
struct Derivatives {
  T value, first, second;
};

template <Activation f, class T>
__device__ Derivatives<T> derivatives(T x) {
  if constexpr (f == Activation::tanh) {
    const T t = tanh(x), slope = T(1) - t * t;
    return {t, slope, T(-2) * t * slope};
  } else if constexpr (f == Activation::relu) {
    return {x < T(0) ? T(0) : x, x > T(0) ? T(1) : T(0), T(0)};  // NaN is passed on
  } else {
    const T slope = x > T(0) ? T(1) : T(leaky_slope);
    return {slope * x, slope, T(0)};
  }
}

template <Activation f, class T>
struct Forward {
  Tangent<T> y;
  Tangent<const T> x;
  __device__ void operator()(std::size_t i) const {
    const Derivatives<T> d = derivatives<f>(x.value[i]);
    y.value[i] = d.value;
    if (!y.dot) return;
    // At 0, relu passes a tangent on and stops a gradient, as on every backend.
    const T slope = f == Activation::relu && x.value[i] == T(0) ? T(1) : d.first;
    y.dot[i] = x.dot ? slope * x.dot[i] : T(0);
  }
};

template <Activation f, class T>
struct Backward {
  Tangent<T> g_in;
  Tangent<const T> g, x;
  __device__ void operator()(std::size_t i) const {
    const Derivatives<T> d = derivatives<f>(x.value[i]);
    const T out = g.value[i];
    g_in.value[i] = d.first * out;
    if (!g_in.dot) return;
    T dot = d.first * g.dot[i];
    if constexpr (f == Activation::tanh) {
      if (x.dot) dot += d.second * x.dot[i] * out;
    }
    g_in.dot[i] = dot;
  }
};

template <template <Activation, class> class Pass, class T, class... Arguments>
void run(Activation f, std::size_t count, cudaStream_t stream, Arguments... arguments) {
  switch (f) {
    case Activation::relu:
      return flat(Pass<Activation::relu, T>{arguments...}, count, stream);
    case Activation::tanh:
      return flat(Pass<Activation::tanh, T>{arguments...}, count, stream);
    case Activation::leaky_relu:
      return flat(Pass<Activation::leaky_relu, T>{arguments...}, count, stream);
  }
}

}  // namespace

template <class T>
void activation_forward(Activation f, Tangent<T> y, Tangent<const T> x, std::size_t count,
                        cudaStream_t stream) {
  run<Forward, T>(f, count, stream, y, x);
}

template <class T>
void activation_backward(Activation f, Tangent<T> g_in, Tangent<const T> g, Tangent<const T> x,
                         std::size_t count, cudaStream_t stream) {
  run<Backward, T>(f, count, stream, g_in, g, x);
}

#define KSHOT_INSTANTIATE(T)                                                                    \
  template void activation_forward(Activation, Tangent<T>, Tangent<const T>, std::size_t,       \
                                   cudaStream_t);                                               \
  template void activation_backward(Activation, Tangent<T>, Tangent<const T>, Tangent<const T>, \
                                    std::size_t, cudaStream_t)
KSHOT_INSTANTIATE(float);
KSHOT_INSTANTIATE(double);
#undef KSHOT_INSTANTIATE

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
