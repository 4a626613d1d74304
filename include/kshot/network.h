// Networks as lists of layers with a flat parameter vector (docs/mathematics.md, "Networks").
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace kshot {

/// Feature shape of one example. A vector of d numbers is {d, 1, 1} with `spatial` false.
struct FeatureShape {
  int channels = 0;
  int height = 1;
  int width = 1;
  bool spatial = false;                                   ///< an image, not a vector
  int size() const { return channels * height * width; }  ///< number of values of one example
  bool operator==(const FeatureShape&) const = default;
};

enum class LayerType { conv, norm, max_pool, mean, flatten, linear, relu, tanh, leaky_relu };

/// Slope of leaky_relu on the negative side.
inline constexpr double leaky_slope = 0.01;
/// Added to the (biased) variance in norm.
inline constexpr double norm_epsilon = 1e-5;

/// One entry of the list of layers of a sequential network. Fields that its type lacks are ignored.
struct LayerSpec {
  LayerType type = LayerType::linear;
  int out = 0;       ///< conv: output channels; linear: outputs
  int kernel = 3;    ///< conv
  int stride = 1;    ///< conv
  int padding = 0;   ///< conv
  int size = 2;      ///< max_pool: window and stride
  bool bias = true;  ///< linear
  std::string name;  ///< prefix of the parameter names; by position ("layers.3") where empty
  bool operator==(const LayerSpec&) const = default;
};

/// One tensor of the flat parameter vector.
struct ParameterTensor {
  std::string name;        ///< "layers.0.weight"
  std::vector<int> shape;  ///< row-major
  std::size_t offset = 0;  ///< of its first element in the vector
  std::size_t size = 0;    ///< number of elements
};

/// A layer with its shapes resolved. `weight` and `bias` are indices into Network::parameters(), or
/// -1. For norm they are scale and shift.
struct Layer {
  LayerType type = LayerType::linear;
  FeatureShape in, out;
  int kernel = 0, stride = 1, padding = 0, size = 0;
  int weight = -1, bias = -1;
};

/// A list of layers from input features to outputs; immutable.
class Network {
 public:
  /// Resolves shapes and names. Throws Error where a layer does not fit its input.
  Network(FeatureShape input, const std::vector<LayerSpec>& layers);

  /// `layers = [d0, ..., dL]`, activation between layers, none last; "layers.i.weight" with i
  /// counting linear layers.
  static Network mlp(const std::vector<int>& layers, LayerType activation);
  /// Options of conv4.
  struct Conv4 {
    int in_channels = 1;
    int height = 28, width = 28;
    int filters = 64;
    int classes = 5;                ///< 0: ends before the linear head
    bool stride_downsample = true;  ///< else 2x2 max-pool
    bool batch_norm = true;
    bool mean_head = true;  ///< else flatten
  };
  /// Four conv blocks and a linear head; "blocks.i.conv.weight" and so on, "head.weight".
  static Network conv4(const Conv4& options);

  const FeatureShape& input() const { return input_; }          ///< shape of one example
  int outputs() const { return layers_.back().out.size(); }     ///< values of one example
  const std::vector<Layer>& layers() const { return layers_; }  ///< from input to output
  const std::vector<ParameterTensor>& parameters() const { return parameters_; }  ///< in order
  /// D: length of the flat parameter vector.
  std::size_t size() const { return size_; }
  /// True if every layer acts on vectors and none mixes examples (linear and activations alone).
  bool is_plain_mlp() const;
  /// Multiply-adds of one forward pass of one example.
  double forward_macs() const;
  /// Initial weights for a seed: He-uniform (gain by the following activation) for conv and linear,
  /// zero biases, norm scale 1. Length size().
  std::vector<double> initial_weights(std::uint64_t seed) const;
  /// Indices of the tensors whose names match any of the globs (`*`, `?`). Throws Error for a glob
  /// that matches nothing.
  std::vector<int> match(const std::vector<std::string>& globs) const;

 private:
  FeatureShape input_;
  std::vector<Layer> layers_;
  std::vector<ParameterTensor> parameters_;
  std::size_t size_ = 0;
};

const char* layer_name(LayerType type);  ///< "conv", as in a configuration

}  // namespace kshot
