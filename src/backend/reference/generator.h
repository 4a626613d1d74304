// Generated weights (backend/generator.h) for one task, as plain loops. Pairs of rows are made one
// by one. Operations that have tangents are templates on a scalar T, which is double or Dual.
#pragma once

#include <cstddef>
#include <vector>

#include "backend/generator.h"
#include "backend/reference/layers.h"

namespace kshot::backend::reference {

/// A perceptron that acts on rows. forward() keeps what backward() needs.
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
  /// Returns the gradient of the input, and adds the gradient of the weights to g_weights.
  std::vector<T> backward(std::vector<T> g, T* g_weights) const {
    for (std::size_t i = records.size(); i-- > 0;) {
      const Layer& layer = network.layers()[i];
      g = reference::backward(layer, layer_weights(network, layer, weights), rows, records[i], g,
                              layer_weights(network, layer, g_weights));
    }
    return g;
  }
};

/// The operations of Generator for one task, on plain vectors.
class GeneratorMath {
 public:
  GeneratorMath(const GeneratorSpec& spec, int outputs);

  using Values = std::vector<double>;

  /// Statistics, [N, 2, L].
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
  /// Indices of the support rows in each group.
  std::vector<std::vector<std::size_t>> groups(const DataSet& support) const;
  Values encoder_input(const DataSet& support) const;

  const GeneratorSpec& spec_;
  std::size_t groups_, latents_, latent_, weights_;  ///< N, C, L, P
};

}  // namespace kshot::backend::reference
