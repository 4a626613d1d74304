#include "backend/cuda/layer_operations.h"

#include "kernels/activation.h"
#include "kernels/conv.h"
#include "kernels/elementwise.h"
#include "kernels/norm.h"
#include "kernels/pool.h"

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

// ---- convolutions ----

ConvShape conv_shape(const Layer& layer) {
  return {layer.in.channels, layer.in.height, layer.in.width, layer.out.channels, layer.out.height,
          layer.out.width,   layer.kernel,    layer.stride,   layer.padding};
}

template <class T>
void conv_forward(const LayerCall<T>& call, Tangent<T> y) {
  const ConvShape shape = conv_shape(*call.layer);
  cuda::conv_forward<T>(y.value, {call.x.value, call.weight.value}, {}, call.bias.value, shape,
                        call.rows, call.arithmetic, call.stream);
  if (!y.dot) return;
  ConvProduct<T> through;
  if (call.x.dot) through = {call.x.dot, call.weight.value};
  cuda::conv_forward<T>(y.dot, {call.x.value, call.weight.dot}, through, call.bias.dot, shape,
                        call.rows, call.arithmetic, call.stream);
}

template <class T>
void conv_backward(const LayerCall<T>& call, Tangent<const T> g, Tangent<T> g_in,
                   TensorTangent<T> g_weight, TensorTangent<T> g_bias, Accumulate to) {
  const ConvShape shape = conv_shape(*call.layer);
  if (g_weight.value.data) {
    conv_weight_gradient<T>(g_weight.value, g_bias.value, {g.value, call.x.value}, {}, to.value,
                            shape, call.rows, call.arithmetic, call.stream);
  }
  if (g_weight.dot.data) {
    ConvOuterProduct<T> through;
    if (call.x.dot) through = {g.value, call.x.dot};
    conv_weight_gradient<T>(g_weight.dot, g_bias.dot, {g.dot, call.x.value}, through, to.dot, shape,
                            call.rows, call.arithmetic, call.stream);
  }
  if (g_in.value) {
    conv_input_gradient<T>(g_in.value, {g.value, call.weight.value}, {}, shape, call.rows,
                           call.arithmetic, call.stream);
  }
  if (g_in.dot) {
    conv_input_gradient<T>(g_in.dot, {g.dot, call.weight.value}, {g.value, call.weight.dot}, shape,
                           call.rows, call.arithmetic, call.stream);
  }
}

// ---- batch norm ----

NormSize norm_size(const Layer& layer) {
  return {layer.in.channels, layer.in.height * layer.in.width};
}

/// The values that forward leaves: mean and inverse [tasks, channels], and x_hat with the layout of
/// the features. For the tangent, slope and x_hat_dot take the places of mean and x_hat.
template <class T>
struct NormKept {
  T *mean, *inverse, *x_hat;
  NormKept(T* kept, const LayerCall<T>& call)
      : mean(kept),
        inverse(kept + static_cast<std::size_t>(call.rows.tasks) *
                           static_cast<std::size_t>(call.layer->in.channels)),
        x_hat(inverse + (inverse - mean)) {}
};

std::size_t norm_kept(const Layer& layer, int rows) {
  return 2 * static_cast<std::size_t>(layer.in.channels) +
         static_cast<std::size_t>(rows) * static_cast<std::size_t>(layer.in.size());
}

template <class T>
void norm_forward(const LayerCall<T>& call, Tangent<T> y) {
  const NormKept<T> kept(call.kept.value, call);
  NormForward<T> pass;
  pass.x = call.x.value;
  pass.scale = call.weight.value;
  pass.shift = call.bias.value;
  pass.mean = kept.mean;
  pass.inverse = kept.inverse;
  pass.x_hat = kept.x_hat;
  pass.y = y.value;
  if (call.given) {
    // `given` is only read if the source is NormSource::given.
    const NormKept<T> given(const_cast<T*>(call.given), call);
    pass.mean = given.mean;
    pass.inverse = given.inverse;
  }
  cuda::norm_forward(pass, call.given ? NormSource::given : NormSource::batch,
                     norm_size(*call.layer), call.rows, call.stream);
  if (!y.dot) return;
  const NormKept<T> dot(call.kept.dot, call);
  NormForwardTangent<T> tangent;
  tangent.x_hat = kept.x_hat;
  tangent.inverse = kept.inverse;
  tangent.x_dot = call.x.dot;
  tangent.scale = call.weight.value;
  tangent.scale_dot = call.weight.dot;
  tangent.shift_dot = call.bias.dot;
  tangent.slope = dot.mean;
  tangent.x_hat_dot = dot.x_hat;
  tangent.y_dot = y.dot;
  norm_forward_tangent(tangent, norm_size(*call.layer), call.rows, call.stream);
}

template <class T>
void norm_backward(const LayerCall<T>& call, Tangent<const T> g, Tangent<T> g_in,
                   TensorTangent<T> g_weight, TensorTangent<T> g_bias, Accumulate to) {
  const NormKept<T> kept(call.kept.value, call);
  NormBackward<T> pass;
  pass.g_y = g.value;
  pass.x_hat = kept.x_hat;
  pass.inverse = kept.inverse;
  pass.scale = call.weight.value;
  pass.g_x = g_in.value;
  pass.g_scale = g_weight.value;
  pass.g_shift = g_bias.value;
  pass.accumulate = to.value;
  if (!g.dot) {
    return cuda::norm_backward(pass, norm_size(*call.layer), call.rows, call.stream);
  }
  const NormKept<T> dot(call.kept.dot, call);
  NormBackwardTangent<T> tangent;
  tangent.primal = pass;
  tangent.g_y_dot = g.dot;
  tangent.x_hat_dot = dot.x_hat;
  tangent.slope = dot.mean;
  tangent.scale_dot = call.weight.dot;
  tangent.g_x_dot = g_in.dot;
  tangent.g_scale_dot = g_weight.dot;
  tangent.g_shift_dot = g_bias.dot;
  tangent.accumulate = to.dot;
  norm_backward_tangent(tangent, norm_size(*call.layer), call.rows, call.stream);
}

// ---- pooling: linear once the winners are chosen, so that tangents pass as values do ----

/// Writes a zero tangent, for a layer whose input has none.
template <class T>
void clear_tangent(T* dot, const LayerCall<T>& call) {
  fill(dot, T(0),
       static_cast<std::size_t>(call.rows.tasks) * static_cast<std::size_t>(call.rows.rows) *
           static_cast<std::size_t>(call.layer->out.size()),
       call.stream);
}

PoolSize pool_size(const Layer& layer) {
  return {layer.in.channels, layer.in.height, layer.in.width, layer.size};
}

/// Number of scalars that hold one byte per output.
std::size_t pool_kept(const Layer& layer, int rows) {
  return (static_cast<std::size_t>(rows) * static_cast<std::size_t>(layer.out.size()) + 3) / 4;
}

template <class T>
std::uint8_t* winners(const LayerCall<T>& call) {
  return reinterpret_cast<std::uint8_t*>(call.kept.value);
}

template <class T>
void pool_forward(const LayerCall<T>& call, Tangent<T> y) {
  const PoolSize size = pool_size(*call.layer);
  max_pool_forward(y.value, winners(call), call.x.value, size, call.rows, call.stream);
  if (!y.dot) return;
  if (!call.x.dot) return clear_tangent(y.dot, call);
  max_pool_gather(y.dot, winners(call), call.x.dot, size, call.rows, call.stream);
}

template <class T>
void pool_backward(const LayerCall<T>& call, Tangent<const T> g, Tangent<T> g_in, TensorTangent<T>,
                   TensorTangent<T>, Accumulate) {
  const PoolSize size = pool_size(*call.layer);
  if (g_in.value) {
    max_pool_scatter(g_in.value, winners(call), g.value, size, call.rows, call.stream);
  }
  if (g_in.dot) max_pool_scatter(g_in.dot, winners(call), g.dot, size, call.rows, call.stream);
}

template <class T>
void mean_forward(const LayerCall<T>& call, Tangent<T> y) {
  const NormSize size = norm_size(*call.layer);
  cuda::mean_forward(y.value, call.x.value, size.channels, size.positions, call.rows, call.stream);
  if (!y.dot) return;
  if (!call.x.dot) return clear_tangent(y.dot, call);
  cuda::mean_forward(y.dot, call.x.dot, size.channels, size.positions, call.rows, call.stream);
}

template <class T>
void mean_backward(const LayerCall<T>& call, Tangent<const T> g, Tangent<T> g_in, TensorTangent<T>,
                   TensorTangent<T>, Accumulate) {
  const NormSize size = norm_size(*call.layer);
  for (const auto& [to, from] : {std::pair{g_in.value, g.value}, std::pair{g_in.dot, g.dot}}) {
    if (to) cuda::mean_backward(to, from, size.channels, size.positions, call.rows, call.stream);
  }
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
  static constexpr LayerOperations<T> conv{&conv_forward<T>, &conv_backward<T>};
  static constexpr LayerOperations<T> norm{&norm_forward<T>, &norm_backward<T>, &norm_kept};
  static constexpr LayerOperations<T> max_pool{&pool_forward<T>, &pool_backward<T>, &pool_kept};
  static constexpr LayerOperations<T> mean{&mean_forward<T>, &mean_backward<T>};
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
      return &conv;
    case LayerType::norm:
      return &norm;
    case LayerType::max_pool:
      return &max_pool;
    case LayerType::mean:
      return &mean;
    case LayerType::flatten:
      break;
  }
  return nullptr;
}

template const LayerOperations<float>* layer_operations(LayerType);
template const LayerOperations<double>* layer_operations(LayerType);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
