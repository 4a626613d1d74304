// Linear and convolution layers under Gaussian weights with the estimators flipout and local
// (NetworkPasses::SplitPass). They are templates on a scalar T, and are composed of the layers in
// layers.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "backend/backend.h"
#include "backend/reference/layers.h"

namespace kshot::backend::reference {

/// Noise of the rows of a set for one layer, expanded to the elements of the layer's input and
/// output.
struct LayerNoise {
  std::vector<double> in;   ///< flipout's signs [rows, input elements]
  std::vector<double> out;  ///< flipout's signs or local's normals [rows, output elements]
};

/// The weights and the noise with which a network is evaluated.
template <typename T>
struct SplitWeights {
  Estimator estimator = Estimator::flipout;
  const T* mean = nullptr;    ///< [D]
  const T* spread = nullptr;  ///< [D]
  const std::vector<LayerNoise>* noise = nullptr;
};

/// Values of one layer's forward pass that backward needs.
template <typename T>
struct SplitRecord {
  /// Record of the layer with the weights `mean`.
  LayerRecord<T> mean;
  /// Record of the layer with the weights `spread`, whose input is r_in * x (flipout) or x^2
  /// (local).
  LayerRecord<T> spread;
  std::vector<T> deviation;
};

inline bool splits(const Layer& layer) {
  return layer.type == LayerType::conv || layer.type == LayerType::linear;
}

template <typename T>
std::vector<T> multiplied(const std::vector<T>& x, const std::vector<double>& by) {
  std::vector<T> y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = x[i] * T(by[i]);
  return y;
}

/// The spread's weights of one layer. flipout draws biases, so that the spread has a zero bias.
template <typename T>
LayerWeights<const T> spread_weights(const Network& network, const Layer& layer,
                                     const SplitWeights<T>& at, const std::vector<T>& zero) {
  LayerWeights<const T> w = layer_weights(network, layer, at.spread);
  if (at.estimator == Estimator::flipout) w.bias = zero.data();
  return w;
}

/// The standard deviation for a variance, and its derivative by the variance, 1 / (2 deviation).
/// Both are zero where all variances of a row have underflowed to zero. The derivative occurs only
/// in products with these variances, and zero is the limit of the products.
template <typename T>
T deviation_of(const T& variance) {
  using std::sqrt;
  return primal(variance) > 0.0 ? sqrt(variance) : T(0.0);
}
template <typename T>
T deviation_slope(const T& deviation) {
  return primal(deviation) > 0.0 ? T(0.5) / deviation : T(0.0);
}

template <typename T>
std::vector<T> split_forward(const Network& network, const SplitWeights<T>& at, const DataSet& data,
                             std::vector<SplitRecord<T>>& records,
                             const std::vector<SplitRecord<T>>* given) {
  const std::vector<Layer>& layers = network.layers();
  records.assign(layers.size(), {});
  std::vector<T> x(data.x.begin(), data.x.end());
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const Layer& layer = layers[i];
    SplitRecord<T>& record = records[i];
    record.mean.input = std::move(x);
    x = forward(layer, layer_weights(network, layer, at.mean), data.rows, record.mean,
                given ? &(*given)[i].mean.statistics : nullptr);
    if (!splits(layer)) continue;
    const LayerNoise& noise = (*at.noise)[i];
    const std::vector<T> zero(static_cast<std::size_t>(layer.out.channels), T(0.0));
    const LayerWeights<const T> w = spread_weights(network, layer, at, zero);
    const std::vector<T>& in = record.mean.input;
    if (at.estimator == Estimator::flipout) {
      record.spread.input = multiplied(in, noise.in);
      const std::vector<T> y = forward<T>(layer, w, data.rows, record.spread, nullptr);
      for (std::size_t e = 0; e < x.size(); ++e) x[e] += y[e] * T(noise.out[e]);
    } else {
      record.spread.input.resize(in.size());
      for (std::size_t e = 0; e < in.size(); ++e) record.spread.input[e] = in[e] * in[e];
      record.deviation = forward<T>(layer, w, data.rows, record.spread, nullptr);
      for (T& d : record.deviation) d = deviation_of(d);
      for (std::size_t e = 0; e < x.size(); ++e) x[e] += record.deviation[e] * T(noise.out[e]);
    }
  }
  return x;
}

/// Returns the sum of the losses over the set's rows, and overwrites the gradients [D]. For a
/// parameter that is taken from the mean alone, both gradients get the same value.
template <typename T>
T split_gradient(const Network& network, const Loss& loss, const SplitWeights<T>& at,
                 const DataSet& data, std::vector<T>& g_mean, std::vector<T>& g_spread) {
  std::vector<SplitRecord<T>> records;
  const std::vector<T> out = split_forward<T>(network, at, data, records, nullptr);
  std::vector<T> g;
  const T sum = loss_sum(loss, data, static_cast<std::size_t>(network.outputs()), out, &g);
  g_mean.assign(network.size(), T(0.0));
  g_spread.assign(network.size(), T(0.0));
  for (std::size_t i = network.layers().size(); i-- > 0;) {
    const Layer& layer = network.layers()[i];
    const SplitRecord<T>& record = records[i];
    const auto to_spread = layer_weights(network, layer, g_spread.data());
    const auto to_mean = layer_weights(network, layer, g_mean.data());
    std::vector<T> g_in =
        backward(layer, layer_weights(network, layer, at.mean), data.rows, record.mean, g, to_mean);
    const auto same = [&](int parameter, T* to, const T* from) {
      if (parameter < 0) return;
      const auto size = network.parameters()[static_cast<std::size_t>(parameter)].size;
      std::copy_n(from, size, to);
    };
    if (layer.type == LayerType::norm) {
      same(layer.weight, to_spread.weight, to_mean.weight);
      same(layer.bias, to_spread.bias, to_mean.bias);
    } else if (splits(layer)) {
      const LayerNoise& noise = (*at.noise)[i];
      std::vector<T> zero(static_cast<std::size_t>(layer.out.channels), T(0.0));
      const LayerWeights<const T> w = spread_weights(network, layer, at, zero);
      if (at.estimator == Estimator::flipout) {
        const std::vector<T> through =
            backward(layer, w, data.rows, record.spread, multiplied(g, noise.out), to_spread);
        for (std::size_t e = 0; e < g_in.size(); ++e) g_in[e] += through[e] * T(noise.in[e]);
        same(layer.bias, to_spread.bias, to_mean.bias);
      } else {
        std::vector<T> g_variance(g.size());
        for (std::size_t e = 0; e < g.size(); ++e) {
          g_variance[e] = g[e] * T(noise.out[e]) * deviation_slope(record.deviation[e]);
        }
        const std::vector<T> through =
            backward(layer, w, data.rows, record.spread, g_variance, to_spread);
        for (std::size_t e = 0; e < g_in.size(); ++e) {
          g_in[e] += T(2.0) * record.mean.input[e] * through[e];
        }
      }
    }
    g = std::move(g_in);
  }
  return sum;
}

}  // namespace kshot::backend::reference
