// One pass of a small perceptron by a team of threads. The kernels of whole inner loops are made of
// such passes (perceptron.cu, gaussian_perceptron.cu).
//
// Mathematics    Layer l: a_l = W_l y_{l-1} + b_l and y_l = f_l(a_l), where y_0 are the rows and
//                y_L the outputs.
//                  gradient    g_l = f_l'(a_l) (W_{l+1}^T g_{l+1}), g_L from the loss;
//                              dL/dW_l = sum_rows g_l y_{l-1}^T, dL/db_l = sum_rows g_l
//                  derivative  of the gradient along a direction u of the weights, by the product
//                              rule in all of the above (forward over reverse, Pearlmutter 1994)
//                f' and f'' a' follow from y and y' alone (tanh: 1 - y^2 and -2 y y'), so a is not
//                kept.
// Layout         The block's shared memory holds for each team: vectors of weights, whose rows are
//                padded to 4 times an odd number, and the features of all layers with their
//                tangents. Memory that is not read any more is overwritten: outputs by the gradient
//                of the loss, and a layer's inputs by the gradient two layers below.
#pragma once

#include <cstdint>

#include "kernels/passes.h"
#include "kernels/perceptron.h"
#include "kernels/perceptron_products.h"
#include "kshot/network.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace perceptron {

constexpr int most_threads = 256;  ///< per block

/// Sets the offsets of a network's memory, for sets of at most `rows` rows.
void lay_out(Perceptron& network, int rows);
/// Sets the threads and blocks of a plan whose other parts are set. Returns false if it does not
/// fit.
bool choose_threads(PerceptronPlan& plan, const DeviceLimits& device);

/// Number of scalars of a team's memory with `vectors` vectors of weights: the weights, then
/// features, tangents and the sums of losses.
constexpr int team_scalars(const Perceptron& n, int vectors) {
  return vectors * (n.stored_weights + overrun) + n.features + overrun + n.layer[0].inputs_offset +
         overrun + (n.rows + 3) / 4 * 4;
}

#if defined(KSHOT_SIMT) || defined(__CUDACC__)

constexpr double log_sqrt_two_pi = 0.91893853320467274178;

// ---- one task ----

/// f' at a layer's output y, and f''(a) a' of y and y'. Both follow from the output alone.
template <class T>
struct Slope {
  T first, second;
};
template <class T>
__device__ __forceinline__ Slope<T> slope_at(Curve curve, T y, T y_dot) {
  if (curve == Curve::none) return {T(1), T(0)};
  if (curve == Curve::tanh) return {T(1) - y * y, T(-2) * y * y_dot};
  const T below = curve == Curve::leaky_relu ? T(leaky_slope) : T(0);
  return {y > T(0) ? T(1) : below, T(0)};
}

/// Applies the activation to the elements of a product when they are stored, without a branch:
/// relu, leaky_relu and none are a slope below a threshold. At 0, relu passes a tangent on and
/// stops a gradient, as on every backend. tanh is treated as none here, and a loop over the
/// elements applies it afterwards.
template <class T>
struct PiecewiseActivation {
  using Bits = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  T slope, threshold;
  Bits least;  ///< bits, as an integer, of the least output whose tangent passes

  __device__ explicit PiecewiseActivation(Curve curve)
      : slope(curve == Curve::leaky_relu ? T(leaky_slope)
              : curve == Curve::relu     ? T(0)
                                         : T(1)),
        threshold(curve != Curve::leaky_relu ? T(0)
                  : sizeof(T) == 4           ? T(0x1p-126)
                                             : T(0x1p-1022)),
        least(curve == Curve::leaky_relu ? 1 : 0) {}
  __device__ T forward(T a) const {
    const T below = slope * a;
    return a >= threshold ? a : below;
  }
  /// Decides by the output: relu turns numbers below 0 into -0, whose bits are those of a negative
  /// integer.
  __device__ T tangent(T y, T x) const { return std::bit_cast<Bits>(y) >= least ? x : slope * x; }
  __device__ T backward(T y, T g) const { return y > T(0) ? g : slope * g; }
};

/// y = f(W x + b), without f if it is tanh.
template <class T>
struct Forward {
  PiecewiseActivation<T> activation;
  const T* bias;  ///< zeros if the layer has no bias
  T* y;
  int stride;

  __device__ Element<T> first(int o) const { return {bias[o], T(0)}; }
  __device__ void operator()(int r, int o, const Element<T>& a) const {
    y[r * stride + o] = activation.forward(a.value);
  }
  __device__ __forceinline__ void four(int r, int o, const Element<T>* a) const {
    Quad<T> out;
#pragma unroll
    for (int e = 0; e < 4; ++e) out.v[e] = activation.forward(a[e].value);
    put_quad(y + r * stride + o, out);
  }
};

/// The tangent of Forward.
template <class T>
struct ForwardTangent {
  PiecewiseActivation<T> activation;
  const T* bias_dot;  ///< zeros if the layer has no bias
  const T* y;
  T* y_dot;
  int stride;

  __device__ Element<T> first(int o) const { return {T(0), bias_dot[o]}; }
  __device__ void operator()(int r, int o, const Element<T>& a) const {
    const int at = r * stride + o;
    y_dot[at] = activation.tangent(y[at], a.dot);
  }
  __device__ __forceinline__ void four(int r, int o, const Element<T>* a) const {
    const int at = r * stride + o;
    const Quad<T> of = quad_at(y + at);
    Quad<T> out;
#pragma unroll
    for (int e = 0; e < 4; ++e) out.v[e] = activation.tangent(of.v[e], a[e].dot);
    put_quad(y_dot + at, out);
  }
};

/// g = f'(a) (W^T g), without f' if f is tanh.
template <unsigned terms, class T>
struct Backward {
  PiecewiseActivation<T> activation;
  const T* y;
  T* g;
  T* g_dot;
  int stride;

  template <unsigned some>
  __device__ Backward<some, T> part() const {
    return {activation, y, g, g_dot, stride};
  }
  __device__ Element<T> first(int) const { return {}; }
  __device__ void operator()(int r, int k, const Element<T>& sum) const {
    const int at = r * stride + k;
    const T out = y[at];
    if constexpr ((terms & values) != 0) g[at] = activation.backward(out, sum.value);
    if constexpr ((terms & both_dots) != 0) g_dot[at] = activation.backward(out, sum.dot);
  }
  __device__ __forceinline__ void four(int r, int k, const Element<T>* sum) const {
    const int at = r * stride + k;
    const Quad<T> out = quad_at(y + at);
    Quad<T> value, dot;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      value.v[e] = activation.backward(out.v[e], sum[e].value);
      dot.v[e] = activation.backward(out.v[e], sum[e].dot);
    }
    if constexpr ((terms & values) != 0) put_quad(g + at, value);
    if constexpr ((terms & both_dots) != 0) put_quad(g_dot + at, dot);
  }
};

/// A team's part of the block's shared memory.
template <class T>
struct Memory {
  T* w;         ///< current iterate
  T* u;         ///< direction: rate * v, or v itself, in which case the result is scaled
  T* v;         ///< adjoint: gradient by the current iterate
  T* feature;   ///< rows, features and the gradients by them
  T* tangent;   ///< tangents of `feature`
  T* row_loss;  ///< sums of the rows' losses
};

/// Calls visit(offset in the stored vector, number, from[number]) for all weights, which are
/// divided among the threads. Eight lanes take a row of 40 at a time, so that several loads are in
/// flight. If `from` is null, the last argument is 0.
template <class T, class Visit>
__device__ __forceinline__ void each_weight(Team team, const Perceptron& network, const T* from,
                                            const Visit& visit) {
  constexpr int lanes = 8, columns = 5;  // lanes per row, and columns per lane
  const int lane = team.thread % lanes, group = team.thread / lanes, groups = team.threads / lanes;
  // Five columns per lane, in one or several rows; `inside` means that all of them exist.
  const auto strip = [&](auto inside, int at, int number, int height, int width, int stride,
                         int k) {
#pragma unroll 2
    for (int o = group; o < height; o += groups) {
      const int i = number + o * width + k, to = at + o * stride + k;
      T loaded[columns] = {};
#pragma unroll
      for (int j = 0; j < columns; ++j) {
        if (from && (inside.value || k + lanes * j < width)) loaded[j] = from[i + lanes * j];
      }
#pragma unroll
      for (int j = 0; j < columns; ++j) {
        if (inside.value || k + lanes * j < width) visit(to + lanes * j, i + lanes * j, loaded[j]);
      }
    }
  };
  const auto matrix = [&](int at, int number, int height, int width, int stride) {
    for (int left = 0; left < width; left += lanes * columns) {
      if (left + lanes * columns <= width) {
        strip(std::true_type{}, at, number, height, width, stride, left + lane);
      } else {
        strip(std::false_type{}, at, number, height, width, stride, left + lane);
      }
    }
  };
#pragma unroll 1
  for (int m = 0; m < 2 * network.layers; ++m) {
    const PerceptronLayer& layer = network.layer[m >> 1];
    const bool biases = (m & 1) != 0;
    const bool one = biases || layer.inputs == layer.stride;  // all of them form one row
    const int width = biases ? layer.outputs : one ? layer.outputs * layer.inputs : layer.inputs;
    if (biases && layer.bias < 0) continue;
    matrix(biases ? layer.bias_offset : layer.weight_offset, biases ? layer.bias : layer.weight,
           one ? 1 : layer.outputs, width, layer.stride);
  }
}

/// Calls visit(offset in the stored vector, number) for all weights.
template <class Visit>
__device__ __forceinline__ void each_weight(Team team, const Perceptron& network,
                                            const Visit& visit) {
  each_weight(team, network, static_cast<const float*>(nullptr),
              [&](int at, int i, float) { visit(at, i); });
}

/// Copies `count` scalars, a multiple of 4, between the block's memory and global memory. Several
/// loads are in flight at the same time.
template <class T>
__device__ __forceinline__ void copy_quads(Team team, T* to, const T* from, int count) {
  constexpr int batch = 8, each = several<T>;
  const int lane = team.thread % warp_lanes, warp = team.thread / warp_lanes;
  count /= each;
#pragma unroll 1
  for (int first = warp * batch * warp_lanes; first < count; first += batch * team.threads) {
    const int left = count - first - lane;
    const T* const source = from + (first + lane) * each;
    T* const target = to + (first + lane) * each;
    Several<T> words[batch];
#pragma unroll
    for (int i = 0; i < batch; ++i) {
      if (i * warp_lanes < left) words[i] = several_at(source + i * warp_lanes * each);
    }
#pragma unroll
    for (int i = 0; i < batch; ++i) {
      if (i * warp_lanes < left) {
        *reinterpret_cast<Several<T>*>(target + i * warp_lanes * each) = words[i];
      }
    }
  }
}

/// How the gradient g of a weight, or its derivative g', is used.
enum class Use {
  descend,       ///< w -= rate g
  descend_each,  ///< the same with one rate per weight, which is in u
  keep,          ///< v = g
  add,           ///< v += g
  rate,          ///< gradient by the rate -= v g
  adjoint,       ///< v -= factor g', where the rate is in u or in the factor
  keep_dot,      ///< v = g'; v may be where the direction was
};

/// Applies the gradients of one tensor's weights as `use` says. It is the store of a product.
template <Use use, class T>
struct Update {
  T* stored;  ///< w or v of the tensor
  const T* rates;
  int stride;
  T factor;
  T* rate_gradient;  ///< in the flat order of parameters
  int inputs;

  __device__ Element<T> first(int) const { return {}; }
  __device__ __forceinline__ T next(T at, T rate, const Element<T>& g) const {
    if constexpr (use == Use::descend) return at - factor * g.value;
    if constexpr (use == Use::descend_each) return at - rate * g.value;
    if constexpr (use == Use::adjoint) return at - factor * g.dot;
    if constexpr (use == Use::add) return at + g.value;
    if constexpr (use == Use::keep_dot) return g.dot;
    return g.value;
  }
  __device__ __forceinline__ void operator()(int o, int k, const Element<T>& g) const {
    T& at = stored[o * stride + k];
    if constexpr (use == Use::rate) {
      rate_gradient[o * inputs + k] -= at * g.value;
    } else {
      at = next(at, use == Use::descend_each ? rates[o * stride + k] : T(0), g);
    }
  }
  /// Stores n neighbouring elements, which lie in 16 or 8 bytes. Words behind the end of a row are
  /// padding and may be overwritten.
  template <int n>
  __device__ __forceinline__ void put(int o, int k, const Element<T>* g) const {
    if constexpr (use == Use::rate) {
#pragma unroll
      for (int e = 0; e < n; ++e) {
        if (k + e < inputs) (*this)(o, k + e, g[e]);
      }
    } else {
      using Words = std::conditional_t<n == 4, Quad<T>, Pair<T>>;
      auto& at = *reinterpret_cast<Words*>(stored + o * stride + k);
      Words rate = {}, now = {};
      if constexpr (use == Use::descend_each) {
        rate = *reinterpret_cast<const Words*>(rates + o * stride + k);
      }
      if constexpr (use != Use::keep && use != Use::keep_dot) now = at;
#pragma unroll
      for (int e = 0; e < n; ++e) now.v[e] = next(now.v[e], rate.v[e], g[e]);
      at = now;
    }
  }
};

/// The passes of a team for one task: load the rows, then compute gradients or their derivatives.
template <class T>
struct Task {
  const Perceptron& network;
  Team team;
  Memory<T> memory;
  int rows = 0;  ///< rows of the current set

  __device__ Matrix<T> inputs(const PerceptronLayer& layer) const {
    return {memory.feature + layer.inputs_offset, memory.tangent + layer.inputs_offset,
            layer.inputs_stride};
  }
  __device__ Matrix<T> gradients(const PerceptronLayer& layer) const {
    return {memory.feature + layer.gradient_offset, memory.tangent + layer.gradient_offset,
            layer.gradient_stride};
  }

  __device__ void load_rows(const PerceptronRows<T>& set, int task) {
    rows = own_row_count(set.rows, task);
    const PerceptronLayer& first = network.layer[0];
    const T* x = set.x + static_cast<std::size_t>(task) *
                             static_cast<std::size_t>(set.rows.rows * first.inputs);
    const int count = rows * first.inputs;
    for (int i = team.thread; i < count; i += team.threads) {
      const int r = i / first.inputs;
      memory.feature[first.inputs_offset + r * first.inputs_stride + i - r * first.inputs] = x[i];
    }
  }

  /// Where a layer's outputs are, those of the last where the gradient by them will be.
  struct Outputs {
    int at, stride;
  };
  __device__ Outputs outputs(int l) const {
    const PerceptronLayer& layer = network.layer[l];
    if (l + 1 == network.layers) return {layer.gradient_offset, layer.gradient_stride};
    const PerceptronLayer& next = network.layer[l + 1];
    return {next.inputs_offset, next.inputs_stride};
  }

  /// Computes the outputs of all layers. There is a barrier after every layer.
  __device__ __forceinline__ void forward() {
#pragma unroll 1
    for (int l = 0; l < network.layers; ++l) {
      const PerceptronLayer& layer = network.layer[l];
      const Outputs to = outputs(l);
      const Matrix<T> w = {memory.w + layer.weight_offset, nullptr, layer.stride};
      const Forward<T> store{PiecewiseActivation<T>(layer.curve), memory.w + layer.bias_offset,
                             memory.feature + to.at, to.stride};
      product<values, true>(team, layer.forward, inputs(layer), w,
                            {rows, layer.outputs, layer.inputs}, store);
      __syncthreads();
      if (layer.curve != Curve::tanh) continue;
      for (int i = team.thread; i < rows * to.stride; i += team.threads) {
        store.y[i] = tanh(store.y[i]);
      }
      __syncthreads();
    }
  }

  /// Computes the derivatives of all outputs along memory.u.
  __device__ __forceinline__ void forward_tangent() {
#pragma unroll 1
    for (int l = 0; l < network.layers; ++l) {
      const PerceptronLayer& layer = network.layer[l];
      const Outputs to = outputs(l);
      const Matrix<T> w = {memory.w + layer.weight_offset, memory.u + layer.weight_offset,
                           layer.stride};
      const ForwardTangent<T> store{PiecewiseActivation<T>(layer.curve),
                                    memory.u + layer.bias_offset, memory.feature + to.at,
                                    memory.tangent + to.at, to.stride};
      const ProductSize size{rows, layer.outputs, layer.inputs};
      if (l == 0) {
        product<second_dot, true>(team, layer.forward, inputs(layer), w, size, store);
      } else {
        product<both_dots, true>(team, layer.forward, inputs(layer), w, size, store);
      }
      __syncthreads();
      if (layer.curve != Curve::tanh) continue;
      for (int i = team.thread; i < rows * to.stride; i += team.threads) {
        const T y = store.y[i];
        store.y_dot[i] *= T(1) - y * y;
      }
      __syncthreads();
    }
  }

  /// Replaces the outputs by the gradient of the loss (with its tangent), one thread per row. The
  /// losses of the rows are added to row_loss.
  template <bool tangent>
  __device__ __forceinline__ void loss_gradient(const PerceptronRows<T>& set, int task, T scale) {
    const PerceptronLayer& layer = network.layer[network.layers - 1];
    const int outputs = layer.outputs;
    for (int r = team.thread; r < rows; r += team.threads) {
      T* o = memory.feature + layer.gradient_offset + r * layer.gradient_stride;
      T* o_dot = memory.tangent + layer.gradient_offset + r * layer.gradient_stride;
      const std::size_t at =
          static_cast<std::size_t>(task) * static_cast<std::size_t>(set.rows.rows) +
          static_cast<std::size_t>(r);
      // gradient by the argument of the last activation
      const auto put = [&](int i, T g, T g_dot) {
        const Slope<T> f = slope_at(layer.curve, o[i], tangent ? o_dot[i] : T(0));
        o[i] = f.first * g;
        if constexpr (tangent) o_dot[i] = f.first * g_dot + f.second * g;
      };
      T loss = 0;
      if (set.target.function == LossFunction::cross_entropy) {
        const int label = set.target.labels[at];
        T largest = o[0];
        for (int i = 1; i < outputs; ++i) largest = o[i] > largest ? o[i] : largest;
        T normaliser = 0, mean_dot = 0;
        for (int i = 0; i < outputs; ++i) {
          const T e = exp(o[i] - largest);
          normaliser += e;
          if constexpr (tangent) mean_dot += e * o_dot[i];
        }
        mean_dot /= normaliser;
        loss = log(normaliser) + (largest - o[label]);
        for (int i = 0; i < outputs; ++i) {
          const T p = exp(o[i] - largest) / normaliser;
          put(i, scale * (i == label ? p - T(1) : p),
              tangent ? scale * p * (o_dot[i] - mean_dot) : T(0));
        }
      } else {
        const bool mse = set.target.function == LossFunction::mse;
        const T variance = set.target.noise_std * set.target.noise_std;
        const T weight = mse ? T(1) / static_cast<T>(outputs) : T(0.5) / variance;
        const T constant = mse ? T(0) : log(set.target.noise_std) + T(log_sqrt_two_pi);
        const T* target = set.target.values + at * static_cast<std::size_t>(outputs);
        for (int i = 0; i < outputs; ++i) {
          const T error = o[i] - target[i];
          loss += weight * error * error + constant;
          put(i, scale * T(2) * weight * error, tangent ? scale * T(2) * weight * o_dot[i] : T(0));
        }
      }
      memory.row_loss[r] += loss;
    }
  }

  /// Computes the gradient by a layer's inputs, its derivative, or both, as `terms` says, and takes
  /// it through the activation before the layer.
  template <unsigned terms>
  __device__ __forceinline__ void input_gradient(const PerceptronLayer& layer,
                                                 const PerceptronLayer& before) {
    constexpr bool tangent = (terms & both_dots) != 0;
    const Matrix<T> w = {memory.w + layer.weight_offset, memory.u + layer.weight_offset,
                         layer.stride};
    const T* y = memory.feature + layer.inputs_offset;
    const int stride = layer.inputs_stride;  // the gradients have this stride too
    const Backward<terms, T> store{PiecewiseActivation<T>(before.curve), y,
                                   memory.feature + before.gradient_offset,
                                   memory.tangent + before.gradient_offset, stride};
    product<terms, false>(team, layer.backward, gradients(layer), w,
                          {rows, layer.inputs, layer.outputs}, store);
    if ((terms & values) == 0 || before.curve != Curve::tanh) return;
    __syncthreads();
    const T* y_dot = memory.tangent + layer.inputs_offset;
    for (int i = team.thread; i < rows * stride; i += team.threads) {
      const Slope<T> f = slope_at(before.curve, y[i], tangent ? y_dot[i] : T(0));
      const T g = store.g[i];
      store.g[i] = f.first * g;
      if constexpr (tangent) store.g_dot[i] = f.first * store.g_dot[i] + f.second * g;
    }
  }

  /// Computes the gradient of a layer's weights, or its derivative, and applies it as `use` says.
  template <Use use, unsigned terms>
  __device__ __forceinline__ void weight_gradient(const PerceptronLayer& layer, T* stored, T factor,
                                                  T* rate_gradient) {
    const auto flat = [&](int first) { return rate_gradient ? rate_gradient + first : nullptr; };
    const Matrix<T> g = gradients(layer);
    const Update<use, T> weight{stored + layer.weight_offset,
                                memory.u + layer.weight_offset,
                                layer.stride,
                                factor,
                                flat(layer.weight),
                                layer.inputs};
    const Update<use, T> bias{
        stored + layer.bias_offset, memory.u + layer.bias_offset, 1, factor, flat(layer.bias), 1};
    const bool biased = layer.bias >= 0;
    const Matrix<T> x = inputs(layer);
    const ProductSize size{layer.outputs, layer.inputs, rows};
    if (sizeof(T) == 4 && layer.weights == GradientWay::usual_tiles) {
      Update<use, T> known = weight;
      known.stride = usual_stride;
      sum_over_rows<terms, true>(team, Matrix<T>{g.value, g.dot, usual_width},
                                 Matrix<T>{x.value, x.dot, usual_width},
                                 {usual_width, usual_width, rows}, known, biased, bias);
    } else if (layer.weights == GradientWay::one_input) {
      thin_weight_gradient<terms, true>(layer, weight, bias);
    } else if (layer.weights == GradientWay::one_output) {
      thin_weight_gradient<terms, false>(layer, weight, bias);
    } else if (layer.weights == GradientWay::elements) {
      narrow_product<terms>(team, g, 1, g.stride, x, 1, x.stride, size, weight);
      if (!biased) return;
      const T* of = use == Use::adjoint || use == Use::keep_dot ? g.dot : g.value;
      for (int o = team.thread; o < layer.outputs; o += team.threads) {
        T sum = 0;
#pragma unroll 1
        for (int r = 0; r < rows; ++r) sum += of[o + r * g.stride];
        bias(0, o, {sum, sum});
      }
    } else {
      sum_over_rows<terms, false>(team, g, x, size, weight, biased, bias);
    }
  }

  /// The weight_gradient of a layer with one input or one output. A lane takes four weights, and
  /// the biases with them, of every other row.
  template <unsigned terms, bool one_input, Use use>
  __device__ __forceinline__ void thin_weight_gradient(const PerceptronLayer& layer,
                                                       const Update<use, T>& weight,
                                                       const Update<use, T>& bias) {
    constexpr int lanes = 16;  // lanes per row
    using G = Fragment<terms, true, T>;
    using X = Fragment<terms, false, T>;
    const Matrix<T> g = gradients(layer), x = inputs(layer);
    const int width = one_input ? layer.outputs : layer.inputs;
    const int half = (team.thread / lanes) & 1, warp = team.thread / warp_lanes;
    // With one input the weights are contiguous, as with one output.
    Update<use, T> all = weight, biases = bias;
    all.inputs = biases.inputs = width;
    // All lanes of a warp take part when they exchange sums.
    for (int left = 4 * lanes * warp; left < width; left += 2 * team.threads) {
      const int own = left + 4 * (team.thread % lanes), at = lesser(own, (width - 1) / 4 * 4);
      Element<T> sum[4] = {}, of_bias[4] = {};
      const int g_at = one_input ? at : 0, x_at = one_input ? 0 : at;
#pragma unroll(sizeof(T) == 4 ? 5 : 1)
      for (int r = half; r < rows; r += 2) {
        const auto load = [](const T* from, bool wide) {
          if (wide) return quad_at(from);
          return Quad<T>{*from, *from, *from, *from};
        };
        Quad<T> out = {}, out_dot = {}, in = {}, in_dot = {};
        if constexpr (G::plain) out = load(g.value + g_at + r * g.stride, one_input);
        if constexpr (G::dotted) out_dot = load(g.dot + g_at + r * g.stride, one_input);
        if constexpr (X::plain) in = load(x.value + x_at + r * x.stride, !one_input);
        if constexpr (X::dotted) in_dot = load(x.dot + x_at + r * x.stride, !one_input);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          multiply_add<terms>(sum[e], out.v[e], out_dot.v[e], in.v[e], in_dot.v[e]);
          of_bias[e].value += out.v[e];
          of_bias[e].dot += out_dot.v[e];
        }
      }
      const auto both_halves = [](Element<T>& of) {
        if constexpr ((terms & values) != 0)
          of.value += __shfl_xor_sync(all_lanes, of.value, lanes);
        if constexpr ((terms & both_dots) != 0) of.dot += __shfl_xor_sync(all_lanes, of.dot, lanes);
      };
#pragma unroll
      for (int e = 0; e < 4; ++e) both_halves(sum[e]);
#pragma unroll
      for (int e = 0; e < (one_input ? 4 : 1); ++e) both_halves(of_bias[e]);
      if (half != 0 || own >= width) continue;
      all.template put<4>(0, at, sum);
      if (layer.bias < 0) continue;
      if (one_input) {
        biases.template put<4>(0, at, of_bias);
      } else if (at == 0) {
        bias(0, 0, of_bias[0]);
      }
    }
  }

  /// Goes back from the gradient of the loss, layer by layer. The gradient by a layer's inputs
  /// comes before that by its weights, because the weights may be overwritten after it.
  /// `derivative_alone` says that weights() does not read the gradient itself by the first layer's
  /// outputs.
  template <bool tangent, class WeightGradient>
  __device__ __forceinline__ void backward(bool derivative_alone, const WeightGradient& weights) {
#pragma unroll 1
    for (int l = network.layers - 1; l >= 0; --l) {
      const PerceptronLayer& layer = network.layer[l];
      if (l > 0) {
        const PerceptronLayer& before = network.layer[l - 1];
        if constexpr (!tangent) {
          input_gradient<values>(layer, before);
        } else if (l == 1 && derivative_alone && before.curve != Curve::tanh) {
          input_gradient<both_dots>(layer, before);
        } else {
          input_gradient<all_terms>(layer, before);
        }
      }
      __syncthreads();
      weights(layer, l == 0);
      __syncthreads();
    }
  }

  /// Computes the gradient of the set's losses, times `scale`, at memory.w. weights(layer, true if
  /// it is the first) takes the gradient of each layer. If `kept` is not null, it receives what
  /// derivative() would have to compute again. Ends with a barrier.
  template <class WeightGradient>
  __device__ __forceinline__ void gradient(const PerceptronRows<T>& set, int task, T scale,
                                           const WeightGradient& weights, T* kept = nullptr) {
    forward();
    if (kept) {
      copy_quads(team, kept, memory.feature + network.kept_offset, network.kept);
      __syncthreads();
    }
    loss_gradient<false>(set, task, scale);
    __syncthreads();
    backward<false>(false, weights);
  }

  /// Computes the gradient with its derivative along memory.u. `known` says that the memory holds
  /// again what gradient() kept. Ends with a barrier.
  template <class WeightGradient>
  __device__ __forceinline__ void derivative(const PerceptronRows<T>& set, int task, T scale,
                                             const WeightGradient& weights, bool known = false,
                                             bool derivative_alone = true) {
    if (!known) forward();
    forward_tangent();
    loss_gradient<true>(set, task, scale);
    __syncthreads();
    backward<true>(derivative_alone, weights);
  }
};

#endif

}  // namespace perceptron
}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
