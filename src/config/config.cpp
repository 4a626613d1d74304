// The functions of Config: reading, overriding and checking a configuration, and the network and
// the numbers of classes that follow from it.
#include "kshot/config.h"

#include <fmt/format.h>

#include "config/checks.h"
#include "config/document.h"
#include "config/toml_text.h"
#include "episodes/wheel.h"
#include "kshot/error.h"

namespace kshot {

Config Config::load(const std::filesystem::path& file, const std::vector<std::string>& overrides) {
  return parse(read_toml_file(file), file.string(), overrides);
}

Config Config::parse(const std::string& text, const std::string& origin,
                     const std::vector<std::string>& overrides) {
  schema::Document document(text, origin);
  for (const std::string& assignment : overrides) document.set(assignment);
  Config config = document.read(true);
  document.check_applicable(config);
  document.check_required(config);
  schema::check_config(config, [&](std::string_view path) { return document.locate(path); });
  return config;
}

void Config::check(const std::string& origin) const {
  schema::check_config(*this, [&](std::string_view) { return origin; });
}

void Config::check_data(const std::string& origin) const {
  const Network built = make_network();
  if (data.episodes == Episodes::minibatch) {
    if (algorithm != AlgorithmKind::maml || inner.steps != 0) {
      schema::fail(
          origin, "data.episodes",
          "\"minibatch\" has no support rows to adapt to; expected algorithm = \"maml\" and "
          "inner.steps = 0");
    }
    return;
  }
  if (data.source != DataKind::file) {
    const char* const name = data.source == DataKind::sinusoid    ? "sinusoid"
                             : data.source == DataKind::sine_line ? "sine_line"
                                                                  : "wheel";
    const int inputs = data.source == DataKind::wheel ? wheel_inputs : 1;
    if (loss.type == LossType::cross_entropy) {
      schema::fail(
          origin, "data.source",
          fmt::format("{} gives numbers, but loss.type = \"cross_entropy\" needs class labels; "
                      "expected data.source = \"file\" and a data.path, or loss.type = \"mse\"",
                      name));
    }
    const std::string expected = fmt::format("{} input{}", inputs, inputs > 1 ? "s" : "");
    if (is_closed_form(algorithm) && built.input().size() != inputs) {
      schema::fail(origin, "network",
                   fmt::format("expected {} for data.source = \"{}\", got {}", expected, name,
                               built.input().size()));
    }
    if (!is_closed_form(algorithm) && (built.input().size() != inputs || built.outputs() != 1)) {
      schema::fail(origin, "network",
                   fmt::format("expected {} and 1 output for data.source = \"{}\", got {} and {}",
                               expected, name, built.input().size(), built.outputs()));
    }
  } else if (loss.type == LossType::cross_entropy && !is_closed_form(algorithm) &&
             episode_ways(*this) != CountRange(built.outputs())) {
    schema::fail(origin, "data.ways",
                 fmt::format("expected the network's number of outputs, {}, got {}",
                             built.outputs(), data.ways.most));
  }
}

bool is_closed_form(AlgorithmKind algorithm) {
  switch (algorithm) {
    case AlgorithmKind::maml:
    case AlgorithmKind::meta_sgd:
    case AlgorithmKind::abml:
    case AlgorithmKind::leo:
    case AlgorithmKind::hvi:
      return false;
    case AlgorithmKind::protonet:
    case AlgorithmKind::r2d2:
    case AlgorithmKind::bayes_protonet:
    case AlgorithmKind::alpaca:
    case AlgorithmKind::dkt:
      return true;
  }
  return false;
}

bool has_prior(AlgorithmKind algorithm) {
  return algorithm == AlgorithmKind::bayes_protonet || algorithm == AlgorithmKind::alpaca ||
         algorithm == AlgorithmKind::dkt;
}

CountRange episode_ways(const Config& config) {
  if (config.data.ways != CountRange(0)) return config.data.ways;
  return is_closed_form(config.algorithm) ? 5 : config.make_network().outputs();
}

Network Config::make_network() const {
  if (algorithm == AlgorithmKind::leo && loss.type == LossType::cross_entropy) {
    LayerSpec head;
    head.out = leo.ways;
    head.name = "head";
    head.bias = false;
    return Network({leo.dim, 1, 1, false}, {head});
  }
  if (network.type == "conv4") {
    return Network::conv4({.in_channels = network.in_channels,
                           .height = network.image.at(0),
                           .width = network.image.at(1),
                           .filters = network.filters,
                           .classes = network.classes,
                           .stride_downsample = network.downsample == "stride",
                           .batch_norm = network.norm == "batch",
                           .mean_head = network.head == "mean"});
  }
  if (network.type == "sequential") {
    const auto& in = network.input;
    const bool image = in.size() == 3;
    if (!image && in.size() != 1) throw Error("network.input: expected [C, H, W] or [d]");
    return Network(image ? FeatureShape{in[0], in[1], in[2], true} : FeatureShape{in[0]},
                   network.sequential);
  }
  return Network::mlp(network.layers,
                      network.activation == "tanh" ? LayerType::tanh : LayerType::relu);
}

}  // namespace kshot
