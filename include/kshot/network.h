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
  int channels = 0;      ///< Number of channels, or length of a vector.
  int height = 1;        ///< Height in pixels; 1 for a vector.
  int width = 1;         ///< Width in pixels; 1 for a vector.
  bool spatial = false;  ///< True: an image; false: a vector.
  int size() const { return channels * height * width; }  ///< Number of values of one example.
  bool operator==(const FeatureShape&) const = default;
};

/// The types of layers.
enum class LayerType {
  conv,       ///< Convolution with square kernels and a bias.
  norm,       ///< Batch norm over the rows of a set, with a learned scale and shift.
  max_pool,   ///< Maximum over square windows that do not overlap.
  mean,       ///< Mean over the positions of each channel.
  flatten,    ///< An image as a vector, in CHW order.
  linear,     ///< Fully connected layer.
  relu,       ///< max(x, 0).
  tanh,       ///< Hyperbolic tangent.
  leaky_relu  ///< x, or leaky_slope x where x is negative.
};

/// Slope of leaky_relu on the negative side.
inline constexpr double leaky_slope = 0.01;
/// Number that norm adds to the (biased) variance.
inline constexpr double norm_epsilon = 1e-5;

/// One entry of the list of layers of a sequential network. Fields that its type lacks are ignored.
struct LayerSpec {
  LayerType type = LayerType::linear;  ///< Type of the layer.
  int out = 0;                         ///< conv: output channels; linear: outputs.
  int kernel = 3;                      ///< conv: side of the square kernel, pixels.
  int stride = 1;                      ///< conv: stride in both directions, pixels.
  int padding = 0;                     ///< conv: rows and columns of zeros on each side.
  int size = 2;                        ///< max_pool: side of the window, and stride, pixels.
  bool bias = true;                    ///< linear: true if the layer has a bias.
  std::string name;  ///< Prefix of the parameter names; empty: by position ("layers.3").
  bool operator==(const LayerSpec&) const = default;
};

/// One tensor of the flat parameter vector.
struct ParameterTensor {
  std::string name;        ///< Name of the tensor: "layers.0.weight".
  std::vector<int> shape;  ///< Shape; the elements are row-major.
  std::size_t offset = 0;  ///< Index of the first element in the vector.
  std::size_t size = 0;    ///< Number of elements.
};

/// A layer with its shapes resolved.
struct Layer {
  LayerType type = LayerType::linear;  ///< Type of the layer.
  FeatureShape in,                     ///< Shape of one example before the layer.
      out;                             ///< Shape of one example after the layer.
  int kernel = 0,                      ///< LayerSpec::kernel.
      stride = 1,                      ///< LayerSpec::stride.
      padding = 0,                     ///< LayerSpec::padding.
      size = 0;                        ///< LayerSpec::size.
  int weight = -1,  ///< Index in Network::parameters() of the weight (norm: scale); -1: none.
      bias = -1;    ///< Index in Network::parameters() of the bias (norm: shift); -1: none.
};

/// A list of layers from input features to outputs. Immutable.
class Network {
 public:
  /// Resolves shapes and names. Throws Error where a layer does not fit its input.
  Network(FeatureShape input, const std::vector<LayerSpec>& layers);

  /// Makes a perceptron with the widths `layers = [d0, ..., dL]`. The activation stands between the
  /// layers and not after the last one. Tensors are called "layers.i.weight", where i counts linear
  /// layers.
  static Network mlp(const std::vector<int>& layers, LayerType activation);
  /// Options of conv4.
  struct Conv4 {
    int in_channels = 1;            ///< Channels of an image.
    int height = 28,                ///< Height of an image, pixels.
        width = 28;                 ///< Width of an image, pixels.
    int filters = 64;               ///< Channels of every block.
    int classes = 5;                ///< Outputs; 0: the network ends before the linear head.
    bool stride_downsample = true;  ///< True: convolutions with stride 2; false: 2x2 max-pool.
    bool batch_norm = true;         ///< True: every block has a norm layer.
    bool mean_head = true;          ///< Input of the head: true: mean over positions; false: all.
  };
  /// Makes four conv blocks and a linear head. Tensors are called "blocks.i.conv.weight" and so on,
  /// and "head.weight".
  static Network conv4(const Conv4& options);

  const FeatureShape& input() const { return input_; }          ///< Shape of one example.
  int outputs() const { return layers_.back().out.size(); }     ///< Number of outputs per example.
  const std::vector<Layer>& layers() const { return layers_; }  ///< Layers from input to output.
  /// The tensors in the order of the flat parameter vector.
  const std::vector<ParameterTensor>& parameters() const { return parameters_; }
  /// Length of the flat parameter vector, D.
  std::size_t size() const { return size_; }
  /// True if every layer acts on vectors and none mixes examples (only linear and activations).
  bool is_plain_mlp() const;
  /// Number of multiply-adds of one forward pass of one example.
  double forward_macs() const;
  /// Initial weights for a seed, [D]: He-uniform (gain by the following activation) for conv and
  /// linear, zero biases, norm scale 1.
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

const char* layer_name(LayerType type);  ///< Name of the type in a configuration: "conv".

}  // namespace kshot
