// Every layer and loss, forward and backward, as plain loops on a scalar T: double, or Dual for
// tangents. The same code computes the gradient and the Hessian-vector product, so the product is
// right where the gradient is.
//
// Features are [rows, C * H * W] row-major, with valid rows only. `backward` takes the gradient of
// a layer's output, returns the gradient of its input and adds the gradient of its weights.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "backend/reference/dual.h"
#include "kshot/network.h"

namespace kshot::backend::reference {

/// The rows of one set of a task. The loss decides whether `labels` or `values` [rows, outputs] is
/// used.
struct DataSet {
  std::size_t rows = 0;
  std::vector<double> x;
  std::vector<std::int32_t> labels;
  std::vector<double> values;
};

/// Mean and biased variance of each channel that enters a norm layer.
template <typename T>
struct ChannelStatistics {
  std::vector<T> mean, variance;
};

/// Values of one layer's forward pass that backward needs.
template <typename T>
struct LayerRecord {
  std::vector<T> input;
  ChannelStatistics<T> statistics;  ///< norm
  std::vector<std::size_t> chosen;  ///< max_pool: index into `input` for every output
};

/// One layer's weights within the flat vector: `weight` and `bias` as in Layer. Null where the
/// layer has none.
template <typename T>
struct LayerWeights {
  T* weight = nullptr;
  T* bias = nullptr;
};

template <typename T>
LayerWeights<T> layer_weights(const Network& network, const Layer& layer, T* flat) {
  const auto tensor = [&](int index) {
    return index < 0 ? nullptr
                     : flat + network.parameters()[static_cast<std::size_t>(index)].offset;
  };
  return {tensor(layer.weight), tensor(layer.bias)};
}

inline std::size_t positions(const FeatureShape& shape) {
  return static_cast<std::size_t>(shape.height) * static_cast<std::size_t>(shape.width);
}

inline std::size_t features(const FeatureShape& shape) {
  return static_cast<std::size_t>(shape.size());
}

/// Calls body(out, in, weight) with the flat indices of every product of a convolution.
template <typename Body>
void for_each_conv_product(const Layer& layer, std::size_t rows, const Body& body) {
  const FeatureShape& in = layer.in;
  const FeatureShape& out = layer.out;
  const int kernel = layer.kernel;
  for (std::size_t row = 0; row < rows; ++row) {
    for (int o = 0; o < out.channels; ++o) {
      for (int y = 0; y < out.height; ++y) {
        for (int x = 0; x < out.width; ++x) {
          const std::size_t out_index =
              row * features(out) + static_cast<std::size_t>((o * out.height + y) * out.width + x);
          for (int c = 0; c < in.channels; ++c) {
            for (int ky = 0; ky < kernel; ++ky) {
              const int in_y = y * layer.stride + ky - layer.padding;
              if (in_y < 0 || in_y >= in.height) continue;
              for (int kx = 0; kx < kernel; ++kx) {
                const int in_x = x * layer.stride + kx - layer.padding;
                if (in_x < 0 || in_x >= in.width) continue;
                body(out_index,
                     row * features(in) +
                         static_cast<std::size_t>((c * in.height + in_y) * in.width + in_x),
                     static_cast<std::size_t>(((o * in.channels + c) * kernel + ky) * kernel + kx));
              }
            }
          }
        }
      }
    }
  }
}

/// Calls body(channel, index) for every element of [rows, C, H, W].
template <typename Body>
void for_each_element(const FeatureShape& shape, std::size_t rows, const Body& body) {
  std::size_t index = 0;
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t c = 0; c < static_cast<std::size_t>(shape.channels); ++c) {
      for (std::size_t p = 0; p < positions(shape); ++p) body(c, index++);
    }
  }
}

/// Statistics of each channel over valid rows and positions.
template <typename T>
ChannelStatistics<T> channel_statistics(const FeatureShape& shape, std::size_t rows,
                                        const std::vector<T>& x) {
  const auto channels = static_cast<std::size_t>(shape.channels);
  ChannelStatistics<T> s{std::vector<T>(channels, T(0.0)), std::vector<T>(channels, T(0.0))};
  const auto count = static_cast<double>(rows * positions(shape));
  for_each_element(shape, rows, [&](std::size_t c, std::size_t i) { s.mean[c] += x[i]; });
  for (T& mean : s.mean) mean = mean / T(count);
  for_each_element(shape, rows, [&](std::size_t c, std::size_t i) {
    s.variance[c] += (x[i] - s.mean[c]) * (x[i] - s.mean[c]);
  });
  for (T& variance : s.variance) variance = variance / T(count);
  return s;
}

/// Returns the output of one layer. record.input is the layer's input; the other members of
/// `record` are filled. A norm layer uses the `given` statistics if they are set, and otherwise
/// those of its input.
template <typename T>
std::vector<T> forward(const Layer& layer, LayerWeights<const T> w, std::size_t rows,
                       LayerRecord<T>& record, const ChannelStatistics<T>* given) {
  using std::sqrt;
  using std::tanh;
  const std::vector<T>& in = record.input;
  std::vector<T> out(rows * features(layer.out), T(0.0));
  switch (layer.type) {
    case LayerType::conv:
      for_each_element(layer.out, rows, [&](std::size_t c, std::size_t i) { out[i] = w.bias[c]; });
      for_each_conv_product(layer, rows, [&](std::size_t o, std::size_t i, std::size_t k) {
        out[o] += in[i] * w.weight[k];
      });
      break;
    case LayerType::norm:
      record.statistics = given ? *given : channel_statistics(layer.in, rows, in);
      for_each_element(layer.in, rows, [&](std::size_t c, std::size_t i) {
        const T deviation = sqrt(record.statistics.variance[c] + T(norm_epsilon));
        out[i] = w.weight[c] * ((in[i] - record.statistics.mean[c]) / deviation) + w.bias[c];
      });
      break;
    case LayerType::max_pool: {
      record.chosen.assign(out.size(), 0);
      const auto size = static_cast<std::size_t>(layer.size);
      const auto in_height = static_cast<std::size_t>(layer.in.height);
      const auto in_width = static_cast<std::size_t>(layer.in.width);
      std::size_t o = 0;
      for (std::size_t map = 0; map < rows * static_cast<std::size_t>(layer.in.channels); ++map) {
        for (std::size_t y = 0; y < static_cast<std::size_t>(layer.out.height); ++y) {
          for (std::size_t x = 0; x < static_cast<std::size_t>(layer.out.width); ++x, ++o) {
            std::size_t best = (map * in_height + y * size) * in_width + x * size;
            for (std::size_t wy = 0; wy < size; ++wy) {
              for (std::size_t wx = 0; wx < size; ++wx) {
                const std::size_t i = (map * in_height + y * size + wy) * in_width + x * size + wx;
                // NaN is chosen, so that a diverged task is detected.
                if (primal(in[i]) > primal(in[best]) || std::isnan(primal(in[i]))) best = i;
              }
            }
            record.chosen[o] = best;
            out[o] = in[best];
          }
        }
      }
      break;
    }
    case LayerType::mean: {
      const auto channels = static_cast<std::size_t>(layer.in.channels);
      const auto per_map = positions(layer.in);
      for (std::size_t i = 0; i < in.size(); ++i) out[i / per_map] += in[i];
      for (std::size_t o = 0; o < rows * channels; ++o) {
        out[o] = out[o] / T(static_cast<double>(per_map));
      }
      break;
    }
    case LayerType::flatten:
      out = in;
      break;
    case LayerType::linear: {
      const std::size_t inputs = features(layer.in), outputs = features(layer.out);
      for (std::size_t row = 0; row < rows; ++row) {
        for (std::size_t o = 0; o < outputs; ++o) {
          T sum = w.bias ? w.bias[o] : T(0.0);
          for (std::size_t i = 0; i < inputs; ++i) {
            sum += w.weight[o * inputs + i] * in[row * inputs + i];
          }
          out[row * outputs + o] = sum;
        }
      }
      break;
    }
    case LayerType::relu:  // NaN stays NaN
      for (std::size_t i = 0; i < in.size(); ++i) out[i] = primal(in[i]) < 0.0 ? T(0.0) : in[i];
      break;
    case LayerType::tanh:
      for (std::size_t i = 0; i < in.size(); ++i) out[i] = tanh(in[i]);
      break;
    case LayerType::leaky_relu:
      for (std::size_t i = 0; i < in.size(); ++i) {
        out[i] = primal(in[i]) > 0.0 ? in[i] : T(leaky_slope) * in[i];
      }
      break;
  }
  return out;
}

/// Returns the gradient of the layer's input for the gradient `g_out` of its output, and adds the
/// gradient of the weights to `g_w`. `record` comes from forward, with statistics of the batch
/// itself.
template <typename T>
std::vector<T> backward(const Layer& layer, LayerWeights<const T> w, std::size_t rows,
                        const LayerRecord<T>& record, const std::vector<T>& g_out,
                        LayerWeights<T> g_w) {
  using std::sqrt;
  using std::tanh;
  const std::vector<T>& in = record.input;
  std::vector<T> g_in(in.size(), T(0.0));
  switch (layer.type) {
    case LayerType::conv:
      for_each_element(layer.out, rows,
                       [&](std::size_t c, std::size_t i) { g_w.bias[c] += g_out[i]; });
      for_each_conv_product(layer, rows, [&](std::size_t o, std::size_t i, std::size_t k) {
        g_w.weight[k] += g_out[o] * in[i];
        g_in[i] += g_out[o] * w.weight[k];
      });
      break;
    case LayerType::norm: {
      // y = scale z + shift, z = (x - mean) / deviation. With g = scale * dL/dy, and with means
      // over all elements of the channel, dL/dx = (g - mean(g) - z mean(g z)) / deviation.
      const auto channels = static_cast<std::size_t>(layer.in.channels);
      std::vector<T> deviation(channels), mean_g(channels, T(0.0)), mean_gz(channels, T(0.0));
      for (std::size_t c = 0; c < channels; ++c) {
        deviation[c] = sqrt(record.statistics.variance[c] + T(norm_epsilon));
      }
      const auto z = [&](std::size_t c, std::size_t i) {
        return (in[i] - record.statistics.mean[c]) / deviation[c];
      };
      for_each_element(layer.in, rows, [&](std::size_t c, std::size_t i) {
        g_w.weight[c] += g_out[i] * z(c, i);
        g_w.bias[c] += g_out[i];
        mean_g[c] += w.weight[c] * g_out[i];
        mean_gz[c] += w.weight[c] * g_out[i] * z(c, i);
      });
      const T count(static_cast<double>(rows * positions(layer.in)));
      for_each_element(layer.in, rows, [&](std::size_t c, std::size_t i) {
        g_in[i] = (w.weight[c] * g_out[i] - mean_g[c] / count - z(c, i) * (mean_gz[c] / count)) /
                  deviation[c];
      });
      break;
    }
    case LayerType::max_pool:
      for (std::size_t o = 0; o < g_out.size(); ++o) g_in[record.chosen[o]] += g_out[o];
      break;
    case LayerType::mean: {
      const auto per_map = positions(layer.in);
      for (std::size_t i = 0; i < in.size(); ++i) {
        g_in[i] = g_out[i / per_map] / T(static_cast<double>(per_map));
      }
      break;
    }
    case LayerType::flatten:
      g_in = g_out;
      break;
    case LayerType::linear: {
      const std::size_t inputs = features(layer.in), outputs = features(layer.out);
      for (std::size_t row = 0; row < rows; ++row) {
        for (std::size_t o = 0; o < outputs; ++o) {
          const T g = g_out[row * outputs + o];
          if (g_w.bias) g_w.bias[o] += g;
          for (std::size_t i = 0; i < inputs; ++i) {
            g_w.weight[o * inputs + i] += g * in[row * inputs + i];
            g_in[row * inputs + i] += g * w.weight[o * inputs + i];
          }
        }
      }
      break;
    }
    case LayerType::relu:
      for (std::size_t i = 0; i < in.size(); ++i) {
        if (primal(in[i]) > 0.0) g_in[i] = g_out[i];
      }
      break;
    case LayerType::tanh:
      for (std::size_t i = 0; i < in.size(); ++i) {
        const T t = tanh(in[i]);
        g_in[i] = (T(1.0) - t * t) * g_out[i];
      }
      break;
    case LayerType::leaky_relu:
      for (std::size_t i = 0; i < in.size(); ++i) {
        g_in[i] = primal(in[i]) > 0.0 ? g_out[i] : T(leaky_slope) * g_out[i];
      }
      break;
  }
  return g_in;
}

/// Sum over rows of the negative log-likelihood of `out` [rows, outputs]. The gradient is written
/// to `g_out` where it is given.
template <typename T>
T loss_sum(const Loss& loss, const DataSet& data, std::size_t outputs, const std::vector<T>& out,
           std::vector<T>* g_out) {
  using std::exp;
  using std::log;
  T sum(0.0);
  if (g_out) g_out->assign(out.size(), T(0.0));
  for (std::size_t row = 0; row < data.rows; ++row) {
    const T* o = out.data() + row * outputs;
    T* g = g_out ? g_out->data() + row * outputs : nullptr;
    switch (loss.kind) {
      case LossKind::cross_entropy: {
        const auto label = static_cast<std::size_t>(data.labels[row]);
        double largest = primal(o[0]);  // subtracted, so that exp does not overflow
        for (std::size_t i = 1; i < outputs; ++i) {
          if (primal(o[i]) > largest) largest = primal(o[i]);
        }
        T normaliser(0.0);
        for (std::size_t i = 0; i < outputs; ++i) normaliser += exp(o[i] - T(largest));
        sum += log(normaliser) + T(largest) - o[label];
        if (g) {
          for (std::size_t i = 0; i < outputs; ++i) g[i] = exp(o[i] - T(largest)) / normaliser;
          g[label] -= T(1.0);
        }
        break;
      }
      case LossKind::mse:
        for (std::size_t i = 0; i < outputs; ++i) {
          const T error = o[i] - T(data.values[row * outputs + i]);
          sum += error * error / T(static_cast<double>(outputs));
          if (g) g[i] = T(2.0) * error / T(static_cast<double>(outputs));
        }
        break;
      case LossKind::gaussian_nll: {
        const double variance = loss.noise_std * loss.noise_std;
        for (std::size_t i = 0; i < outputs; ++i) {
          const T error = o[i] - T(data.values[row * outputs + i]);
          sum += error * error / T(2.0 * variance) +
                 T(std::log(loss.noise_std) + 0.5 * std::log(2.0 * std::numbers::pi));
          if (g) g[i] = error / T(variance);
        }
        break;
      }
    }
  }
  return sum;
}

/// Returns the outputs [rows, outputs] of the network and fills `records` (one per layer) for
/// backward. Norm layers use the statistics in `given`, or those of the batch where it is null.
template <typename T>
std::vector<T> network_forward(const Network& network, const T* weights, const DataSet& data,
                               std::vector<LayerRecord<T>>& records,
                               const std::vector<LayerRecord<T>>* given) {
  const std::vector<Layer>& layers = network.layers();
  records.assign(layers.size(), {});
  std::vector<T> current(data.x.begin(), data.x.end());
  for (std::size_t i = 0; i < layers.size(); ++i) {
    records[i].input = std::move(current);
    current = forward(layers[i], layer_weights(network, layers[i], weights), data.rows, records[i],
                      given ? &(*given)[i].statistics : nullptr);
  }
  return current;
}

/// Pull-back of an output gradient `g` [rows, outputs] to the weights. `gradient` [D] is
/// overwritten. `records` come from network_forward.
template <typename T>
void network_backward(const Network& network, const T* weights, const DataSet& data,
                      const std::vector<LayerRecord<T>>& records, std::vector<T> g,
                      std::vector<T>& gradient) {
  gradient.assign(network.size(), T(0.0));
  for (std::size_t i = network.layers().size(); i-- > 0;) {
    const Layer& layer = network.layers()[i];
    g = backward(layer, layer_weights(network, layer, weights), data.rows, records[i], g,
                 layer_weights(network, layer, gradient.data()));
  }
}

/// Returns the sum of the losses over the set's rows, and overwrites `gradient` [D].
template <typename T>
T network_gradient(const Network& network, const Loss& loss, const T* weights, const DataSet& data,
                   std::vector<T>& gradient) {
  std::vector<LayerRecord<T>> records;
  const std::vector<T> out = network_forward<T>(network, weights, data, records, nullptr);
  std::vector<T> g;
  const T sum = loss_sum(loss, data, static_cast<std::size_t>(network.outputs()), out, &g);
  network_backward(network, weights, data, records, std::move(g), gradient);
  return sum;
}

}  // namespace kshot::backend::reference
