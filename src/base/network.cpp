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

[[noreturn]] void misfit(std::size_t position, LayerType type, const FeatureShape& in,
                         const std::string& expected) {
  throw Error(fmt::format("network.layers[{}] ({}): expected {}, but its input is {}", position,
                          layer_name(type), expected, describe(in)));
}

int positive(std::size_t position, LayerType type, const char* key, int value, int least = 1) {
  if (value < least) {
    throw Error(fmt::format("network.layers[{}] ({}): {} = {}, expected at least {}", position,
                            layer_name(type), key, value, least));
  }
  return value;
}

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
  FeatureShape shape = input;
  const auto tensor = [this](std::string name, std::vector<int> dims) {
    ParameterTensor t{std::move(name), std::move(dims), size_, 1};
    for (const int d : t.shape) t.size *= static_cast<std::size_t>(d);
    size_ += t.size;
    parameters_.push_back(std::move(t));
    return static_cast<int>(parameters_.size()) - 1;
  };
  const auto check_size = [](const FeatureShape& features, const std::string& where) {
    const double size = static_cast<double>(features.channels) * features.height * features.width;
    if (size > std::numeric_limits<int>::max()) {
      throw Error(fmt::format("{}: {} x {} x {} features, expected at most {}", where,
                              features.channels, features.height, features.width,
                              std::numeric_limits<int>::max()));
    }
  };
  check_size(input, "network.input");
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const LayerSpec& spec = layers[i];
    const std::string name = spec.name.empty() ? fmt::format("layers.{}", i) : spec.name;
    Layer layer;
    layer.type = spec.type;
    layer.in = shape;
    layer.out = shape;
    switch (spec.type) {
      case LayerType::conv: {
        if (!shape.spatial) misfit(i, spec.type, shape, "an image [C, H, W]");
        const int out = positive(i, spec.type, "out", spec.out);
        layer.kernel = positive(i, spec.type, "kernel", spec.kernel);
        layer.stride = positive(i, spec.type, "stride", spec.stride);
        layer.padding = positive(i, spec.type, "padding", spec.padding, 0);
        const int height = shape.height + 2 * layer.padding - layer.kernel;
        const int width = shape.width + 2 * layer.padding - layer.kernel;
        if (height < 0 || width < 0) {
          misfit(i, spec.type, shape,
                 fmt::format("an image no smaller than its kernel ({0}x{0}, padding {1})",
                             layer.kernel, layer.padding));
        }
        layer.out = {out, height / layer.stride + 1, width / layer.stride + 1, true};
        layer.weight = tensor(name + ".weight", {out, shape.channels, layer.kernel, layer.kernel});
        layer.bias = tensor(name + ".bias", {out});
        break;
      }
      case LayerType::norm:
        layer.weight = tensor(name + ".weight", {shape.channels});
        layer.bias = tensor(name + ".bias", {shape.channels});
        break;
      case LayerType::max_pool:
        if (!shape.spatial) misfit(i, spec.type, shape, "an image [C, H, W]");
        layer.size = positive(i, spec.type, "size", spec.size);
        if (shape.height < layer.size || shape.width < layer.size) {
          misfit(i, spec.type, shape, fmt::format("an image of at least {0}x{0}", layer.size));
        }
        layer.out = {shape.channels, shape.height / layer.size, shape.width / layer.size, true};
        break;
      case LayerType::mean:
        if (!shape.spatial) misfit(i, spec.type, shape, "an image [C, H, W]");
        layer.out = vector_shape(shape.channels);
        break;
      case LayerType::flatten:
        layer.out = vector_shape(shape.size());
        break;
      case LayerType::linear:
        if (shape.spatial) misfit(i, spec.type, shape, "a vector (put flatten or mean before)");
        layer.out = vector_shape(positive(i, spec.type, "out", spec.out));
        layer.weight = tensor(name + ".weight", {spec.out, shape.size()});
        if (spec.bias) layer.bias = tensor(name + ".bias", {spec.out});
        break;
      case LayerType::relu:
      case LayerType::tanh:
      case LayerType::leaky_relu:
        break;
    }
    check_size(layer.out, fmt::format("network.layers[{}] ({})", i, layer_name(spec.type)));
    shape = layer.out;
    layers_.push_back(layer);
  }
  if (shape.spatial) {
    throw Error(fmt::format(
        "network.layers: the last layer gives an image {}, expected a vector (end with mean or "
        "flatten and linear)",
        describe(shape)));
  }
  if (size_ == 0) throw Error("network.layers: no layer has weights, expected at least one");
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
