#include "kshot/network.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "kshot/error.h"
#include "kshot/random.h"

namespace kshot {
namespace {

std::string describe(const FeatureShape& s) {
  return s.spatial ? fmt::format("[{}, {}, {}]", s.channels, s.height, s.width)
                   : fmt::format("[{}]", s.size());
}

FeatureShape vector_shape(int size) {
  return {size, 1, 1, false};
}

void check_size(const FeatureShape& features, const std::string& location) {
  const double size = static_cast<double>(features.channels) * features.height * features.width;
  if (size > std::numeric_limits<int>::max()) {
    throw Error(fmt::format("{}: {} x {} x {} features, expected at most {}", location,
                            features.channels, features.height, features.width,
                            std::numeric_limits<int>::max()));
  }
}

/// Places tensors one after the other in the flat parameter vector.
class TensorList {
 public:
  /// Returns the index of the new tensor.
  int add(std::string name, std::vector<int> dims) {
    ParameterTensor t{std::move(name), std::move(dims), size_, 1};
    for (const int d : t.shape) t.size *= static_cast<std::size_t>(d);
    size_ += t.size;
    tensors_.push_back(std::move(t));
    return static_cast<int>(tensors_.size()) - 1;
  }
  std::size_t size() const { return size_; }
  std::vector<ParameterTensor> take() { return std::move(tensors_); }

 private:
  std::vector<ParameterTensor> tensors_;
  std::size_t size_ = 0;
};

/// Resolves one layer: checks its sizes against its input, sets its output shape, and adds its
/// tensors.
class LayerResolver {
 public:
  LayerResolver(const LayerSpec& spec, std::size_t position, const FeatureShape& in,
                TensorList& tensors)
      : spec_(spec),
        position_(position),
        in_(in),
        name_(spec.name.empty() ? fmt::format("layers.{}", position) : spec.name),
        tensors_(tensors) {
    layer_.type = spec.type;
    layer_.in = in;
    layer_.out = in;
  }

  Layer resolve() {
    switch (spec_.type) {
      case LayerType::conv:
        conv();
        break;
      case LayerType::norm:
        layer_.weight = tensors_.add(name_ + ".weight", {in_.channels});
        layer_.bias = tensors_.add(name_ + ".bias", {in_.channels});
        break;
      case LayerType::max_pool:
        max_pool();
        break;
      case LayerType::mean:
        require_image();
        layer_.out = vector_shape(in_.channels);
        break;
      case LayerType::flatten:
        layer_.out = vector_shape(in_.size());
        break;
      case LayerType::linear:
        linear();
        break;
      case LayerType::relu:
      case LayerType::tanh:
      case LayerType::leaky_relu:
        break;
    }
    check_size(layer_.out,
               fmt::format("network.layers[{}] ({})", position_, layer_name(spec_.type)));
    return layer_;
  }

 private:
  void conv() {
    require_image();
    const int out = positive("out", spec_.out);
    layer_.kernel = positive("kernel", spec_.kernel);
    layer_.stride = positive("stride", spec_.stride);
    layer_.padding = positive("padding", spec_.padding, 0);
    const int height = in_.height + 2 * layer_.padding - layer_.kernel;
    const int width = in_.width + 2 * layer_.padding - layer_.kernel;
    if (height < 0 || width < 0) {
      misfit(fmt::format("an image no smaller than its kernel ({0}x{0}, padding {1})",
                         layer_.kernel, layer_.padding));
    }
    layer_.out = {out, height / layer_.stride + 1, width / layer_.stride + 1, true};
    layer_.weight =
        tensors_.add(name_ + ".weight", {out, in_.channels, layer_.kernel, layer_.kernel});
    layer_.bias = tensors_.add(name_ + ".bias", {out});
  }

  void max_pool() {
    require_image();
    layer_.size = positive("size", spec_.size);
    if (in_.height < layer_.size || in_.width < layer_.size) {
      misfit(fmt::format("an image of at least {0}x{0}", layer_.size));
    }
    layer_.out = {in_.channels, in_.height / layer_.size, in_.width / layer_.size, true};
  }

  void linear() {
    if (in_.spatial) misfit("a vector (put flatten or mean before)");
    layer_.out = vector_shape(positive("out", spec_.out));
    layer_.weight = tensors_.add(name_ + ".weight", {spec_.out, in_.size()});
    if (spec_.bias) layer_.bias = tensors_.add(name_ + ".bias", {spec_.out});
  }

  void require_image() const {
    if (!in_.spatial) misfit("an image [C, H, W]");
  }

  [[noreturn]] void misfit(const std::string& expected) const {
    throw Error(fmt::format("network.layers[{}] ({}): expected {}, but its input is {}", position_,
                            layer_name(spec_.type), expected, describe(in_)));
  }

  int positive(const char* key, int value, int least = 1) const {
    if (value < least) {
      throw Error(fmt::format("network.layers[{}] ({}): {} = {}, expected at least {}", position_,
                              layer_name(spec_.type), key, value, least));
    }
    return value;
  }

  const LayerSpec& spec_;
  const std::size_t position_;
  const FeatureShape in_;
  const std::string name_;
  TensorList& tensors_;
  Layer layer_;
};

}  // namespace

const char* layer_name(LayerType type) {
  switch (type) {
    case LayerType::conv:
      return "conv";
    case LayerType::norm:
      return "norm";
    case LayerType::max_pool:
      return "max_pool";
    case LayerType::mean:
      return "mean";
    case LayerType::flatten:
      return "flatten";
    case LayerType::linear:
      return "linear";
    case LayerType::relu:
      return "relu";
    case LayerType::tanh:
      return "tanh";
    case LayerType::leaky_relu:
      return "leaky_relu";
  }
  return "?";
}

Network::Network(FeatureShape input, const std::vector<LayerSpec>& layers) : input_(input) {
  if (input.channels <= 0 || input.height <= 0 || input.width <= 0) {
    throw Error(fmt::format("network.input = [{}, {}, {}]: expected positive sizes", input.channels,
                            input.height, input.width));
  }
  if (layers.empty()) throw Error("network.layers is empty: expected at least one layer");
  check_size(input, "network.input");
  TensorList tensors;
  FeatureShape shape = input;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    layers_.push_back(LayerResolver(layers[i], i, shape, tensors).resolve());
    shape = layers_.back().out;
  }
  if (shape.spatial) {
    throw Error(fmt::format(
        "network.layers: the last layer gives an image {}, expected a vector (end with mean or "
        "flatten and linear)",
        describe(shape)));
  }
  if (tensors.size() == 0) {
    throw Error("network.layers: no layer has weights, expected at least one");
  }
  size_ = tensors.size();
  parameters_ = tensors.take();
}

Network Network::mlp(const std::vector<int>& layers, LayerType activation) {
  if (layers.size() < 2) {
    throw Error(fmt::format("network.layers has {} entries, expected at least 2 (input, output)",
                            layers.size()));
  }
  std::vector<LayerSpec> list;
  for (std::size_t i = 1; i < layers.size(); ++i) {
    LayerSpec linear;
    linear.type = LayerType::linear;
    linear.out = layers[i];
    linear.name = fmt::format("layers.{}", i - 1);
    list.push_back(linear);
    if (i + 1 < layers.size()) {
      LayerSpec between;
      between.type = activation;
      list.push_back(between);
    }
  }
  return Network(vector_shape(layers[0]), list);
}

Network Network::conv4(const Conv4& options) {
  std::vector<LayerSpec> list;
  const auto add = [&list](LayerType type, std::string name = {}) -> LayerSpec& {
    LayerSpec spec;
    spec.type = type;
    spec.name = std::move(name);
    list.push_back(spec);
    return list.back();
  };
  for (int i = 0; i < 4; ++i) {
    LayerSpec& conv = add(LayerType::conv, fmt::format("blocks.{}.conv", i));
    conv.out = options.filters;
    conv.kernel = 3;
    conv.padding = 1;
    conv.stride = options.stride_downsample ? 2 : 1;
    if (options.batch_norm) add(LayerType::norm, fmt::format("blocks.{}.norm", i));
    add(LayerType::relu);
    if (!options.stride_downsample) add(LayerType::max_pool).size = 2;
  }
  add(options.mean_head ? LayerType::mean : LayerType::flatten);
  if (options.classes > 0) add(LayerType::linear, "head").out = options.classes;
  return Network({options.in_channels, options.height, options.width, true}, list);
}

bool Network::is_plain_mlp() const {
  return std::all_of(layers_.begin(), layers_.end(), [](const Layer& layer) {
    return layer.type == LayerType::linear || layer.type == LayerType::relu ||
           layer.type == LayerType::tanh || layer.type == LayerType::leaky_relu ||
           layer.type == LayerType::flatten;
  });
}

double Network::forward_macs() const {
  double macs = 0;
  for (const Layer& layer : layers_) {
    if (layer.type == LayerType::linear) {
      macs += static_cast<double>(layer.in.size()) * layer.out.size();
    } else if (layer.type == LayerType::conv) {
      macs +=
          static_cast<double>(layer.out.size()) * layer.in.channels * layer.kernel * layer.kernel;
    }
  }
  return macs;
}

std::vector<double> Network::initial_weights(std::uint64_t seed) const {
  std::vector<double> weights(size_, 0.0);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    if (layer.weight < 0) continue;
    const ParameterTensor& w = parameters_[static_cast<std::size_t>(layer.weight)];
    if (layer.type == LayerType::norm) {
      std::fill_n(weights.begin() + static_cast<std::ptrdiff_t>(w.offset), w.size, 1.0);
      continue;
    }
    // The gain follows from the next activation; pooling layers before it are skipped (He et al.
    // 2015; Glorot 2010). A layer with a norm layer behind it has the gain of ReLU.
    double gain2 = 1.0;
    for (std::size_t j = i + 1; j < layers_.size() && layers_[j].weight < 0; ++j) {
      if (layers_[j].type == LayerType::relu || layers_[j].type == LayerType::leaky_relu) {
        gain2 = 2.0;
        break;
      }
      if (layers_[j].type == LayerType::tanh) {
        gain2 = 25.0 / 9.0;
        break;
      }
    }
    if (i + 1 < layers_.size() && layers_[i + 1].type == LayerType::norm) gain2 = 2.0;
    const double fan_in = static_cast<double>(w.size) / w.shape[0];
    const double bound = std::sqrt(3.0 * gain2 / fan_in);
    RandomStream stream(
        {seed, Purpose::initialisation, 0, static_cast<std::uint32_t>(layer.weight), 0, 0});
    for (std::size_t e = 0; e < w.size; ++e) {
      weights[w.offset + e] = bound * (2.0 * stream.uniform() - 1.0);
    }
  }
  return weights;
}

std::vector<int> Network::match(const std::vector<std::string>& globs) const {
  std::vector<bool> chosen(parameters_.size(), false);
  for (const std::string& glob : globs) {
    bool any = false;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      if (fnmatch(glob.c_str(), parameters_[i].name.c_str(), 0) == 0) {
        chosen[i] = true;
        any = true;
      }
    }
    if (!any) {
      throw Error(
          fmt::format("\"{}\" matches no parameter, expected a glob over names such as "
                      "\"{}\" or \"{}\"",
                      glob, parameters_.front().name, parameters_.back().name));
    }
  }
  std::vector<int> result;
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    if (chosen[i]) result.push_back(static_cast<int>(i));
  }
  return result;
}

}  // namespace kshot
