#include "backend/cuda/layer_operations.h"

#include "kernels/activation.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

// ---- linear ----

LinearSize linear_size(const Layer& layer) {
  return {layer.in.size(), layer.out.size()};
}

template <class T>
void linear_forward(const LayerCall<T>& call, Tangent<T> y) {
  cuda::linear_forward<T>(y, call.x, call.weight, call.bias, linear_size(*call.layer), call.rows,
                          call.stream);
}

template <class T>
void linear_backward(const LayerCall<T>& call, Tangent<const T> g, Tangent<T> g_in,
                     TensorTangent<T> g_weight, TensorTangent<T> g_bias, Accumulate to) {
  const LinearSize size = linear_size(*call.layer);
  linear_weight_gradient<T>(g_weight, g_bias, to, g, call.x, size, call.rows, call.stream);
  if (g_in.value) {
    linear_input_gradient<T>(g_in, g, call.weight, size, call.rows, call.stream);
  }
}

// ---- activations ----

template <class T>
std::size_t elements(const LayerCall<T>& call) {
  return static_cast<std::size_t>(call.rows.tasks) * static_cast<std::size_t>(call.rows.rows) *
         static_cast<std::size_t>(call.layer->in.size());
}

template <Activation f, class T>
void forward(const LayerCall<T>& call, Tangent<T> y) {
  activation_forward<T>(f, y, call.x, elements(call), call.stream);
}

template <Activation f, class T>
void backward(const LayerCall<T>& call, Tangent<const T> g, Tangent<T> g_in, TensorTangent<T>,
              TensorTangent<T>, Accumulate) {
  if (g_in.value) activation_backward<T>(f, g_in, g, call.x, elements(call), call.stream);
}

}  // namespace

template <class T>
const LayerOperations<T>* layer_operations(LayerType type) {
  static constexpr LayerOperations<T> linear{&linear_forward<T>, &linear_backward<T>};
  static constexpr LayerOperations<T> relu{&forward<Activation::relu, T>,
                                           &backward<Activation::relu, T>};
  static constexpr LayerOperations<T> tanh{&forward<Activation::tanh, T>,
                                           &backward<Activation::tanh, T>};
  static constexpr LayerOperations<T> leaky_relu{&forward<Activation::leaky_relu, T>,
                                                 &backward<Activation::leaky_relu, T>};
  switch (type) {
    case LayerType::linear:
      return &linear;
    case LayerType::relu:
      return &relu;
    case LayerType::tanh:
      return &tanh;
    case LayerType::leaky_relu:
      return &leaky_relu;
    case LayerType::conv:
    case LayerType::norm:
    case LayerType::max_pool:
    case LayerType::mean:
    case LayerType::flatten:
      break;
  }
  return nullptr;
}

template const LayerOperations<float>* layer_operations(LayerType);
template const LayerOperations<double>* layer_operations(LayerType);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
