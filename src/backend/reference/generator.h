// Generated weights (backend/generator.h) of one task as plain loops: pairs are made one by one,
// and what has tangents is written on a scalar T, double or Dual.
#pragma once

#include <cstddef>
#include <vector>

#include "backend/generator.h"
#include "backend/reference/layers.h"

namespace kshot::backend::reference {

/// A perceptron on rows: forward keeps what backward needs.
template <typename T>
struct RowNetwork {
  const Network& network;
  const T* weights;
  std::size_t rows = 0;
  std::vector<LayerRecord<T>> records = {};

  std::vector<T> forward(std::vector<T> x) {
    rows = x.size() / features(network.input());
    records.assign(network.layers().size(), {});
    for (std::size_t i = 0; i < records.size(); ++i) {
      const Layer& layer = network.layers()[i];
      records[i].input = std::move(x);
      x = reference::forward(layer, layer_weights(network, layer, weights), rows, records[i],
                             static_cast<const ChannelStatistics<T>*>(nullptr));
    }
    return x;
  }
  /// The gradient of the input; adds that of the weights.
  std::vector<T> backward(std::vector<T> g, T* g_weights) const {
    for (std::size_t i = records.size(); i-- > 0;) {
      const Layer& layer = network.layers()[i];
      g = reference::backward(layer, layer_weights(network, layer, weights), rows, records[i], g,
                              layer_weights(network, layer, g_weights));
    }
    return g;
  }
};

class GeneratorMath {
 public:
  GeneratorMath(const GeneratorSpec& spec, int outputs);

  using Values = std::vector<double>;

  /// [N, 2, L].
  Values encode(const double* theta, const DataSet& support) const;
  void encode_pullback(const double* theta, const DataSet& support, const Values& g_statistics,
                       Values& g_theta) const;

  Values sample(const Values& statistics, const Values* eps) const;
  void sample_pullback(const Values& statistics, const Values* eps, const Values& g_z,
                       Values& g_statistics) const;
  double sampled_kl(double weight, const Values& statistics, const Values& z, const Values& eps,
                    Values& g_statistics) const;
  double analytic_kl(double weight, const Values& statistics, Values& g_statistics) const;

  template <typename T>
  std::vector<T> decode(const T* theta, const std::vector<T>& z, const Values* eps) const;
  template <typename T>
  struct DecodeGradient {
    std::vector<T> z, decoder;
  };
  template <typename T>
  DecodeGradient<T> decode_pullback(const T* theta, const std::vector<T>& z, const Values* eps,
                                    const std::vector<T>& g_weights) const;

 private:
  /// Rows of each group.
  std::vector<std::vector<std::size_t>> groups(const DataSet& support) const;
  Values encoder_input(const DataSet& support) const;

  const GeneratorSpec& spec_;
  std::size_t groups_, latents_, latent_, weights_;  ///< N, C, L, P
};

}  // namespace kshot::backend::reference
