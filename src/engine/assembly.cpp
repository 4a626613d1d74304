#include "engine/assembly.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "base/memory.h"
#include "config/schema.h"
#include "kshot/error.h"

namespace kshot {
namespace {

std::string text(const FeatureShape& shape) {
  return shape.spatial ? fmt::format("{} x {} x {}", shape.channels, shape.height, shape.width)
                       : fmt::format("{}", shape.size());
}

/// Throws Error where `bytes`, the least that `what` takes, are more than the machine has. The
/// system may hand out memory that it does not have and end the process when it is used.
void require_memory(double bytes, const std::string& what) {
  constexpr double gib = 1024.0 * 1024.0 * 1024.0;
  const double most = physical_memory();
  if (most == 0.0 || bytes <= most) return;
  throw Error(fmt::format("{} take at least {:.1f} GiB of memory, and this machine has {:.1f} GiB",
                          what, bytes / gib, most / gib));
}

/// Bytes that one task takes: its support and query rows, and the outputs of every layer for them.
double task_bytes(const Network& network, const TaskShape& shape) {
  double per_row = network.input().size();
  for (const Layer& layer : network.layers()) per_row += layer.out.size();
  return (static_cast<double>(shape.support) + shape.query) * per_row * sizeof(float);
}

}  // namespace

void check_training_memory(const Assembly& assembly, const TaskShape& shape) {
  double parameters = 0.0;
  for (const ParameterGroup& group : assembly.algorithm->groups()) {
    parameters += static_cast<double>(group.size);
  }
  // Counted: value, gradient, mean over tasks, the sums of a few waves, and the optimiser's state.
  const double vectors = parameters * 7 * sizeof(float);
  // The weights of every inner step are kept, beside a gradient and a direction.
  const double iterates = static_cast<double>(assembly.network->size()) *
                          (assembly.algorithm->steps() + 3) * sizeof(float);
  require_memory(vectors + iterates + task_bytes(*assembly.network, shape),
                 fmt::format("[network]: {} weights, kept for {} inner steps,",
                             assembly.network->size(), assembly.algorithm->steps()));
}

Config with_head_outputs(Config config, const TaskShape& shape) {
  if (config.algorithm == AlgorithmKind::alpaca && config.alpaca.outputs == 0) {
    config.alpaca.outputs = shape.outputs;
  }
  if (config.algorithm == AlgorithmKind::dkt && config.dkt.outputs == 0) {
    config.dkt.outputs = shape.outputs;
  }
  return config;
}

std::pair<const char*, int> head_outputs(const Config& config) {
  switch (config.algorithm) {
    case AlgorithmKind::protonet:
      return {"protonet.ways", config.protonet.ways};
    case AlgorithmKind::bayes_protonet:
      return {"bayes_protonet.ways", config.bayes_protonet.ways};
    case AlgorithmKind::r2d2:
      return {"r2d2.ways", is_classification(config) ? config.r2d2.ways : 0};
    case AlgorithmKind::alpaca:
      return {"alpaca.outputs", config.alpaca.outputs};
    case AlgorithmKind::dkt:
      return {"dkt.outputs", config.dkt.outputs};
    default:
      return {"", 0};
  }
}

Assembly assemble(const Config& config, const std::string& device, int threads,
                  std::optional<backend::Precision> precision) {
  Assembly a;
  a.config = config;
  a.network = std::make_shared<const Network>(config.make_network());
  // The weights are in double on the host, and in single precision on the backend and in a wave.
  require_memory(static_cast<double>(a.network->size()) * (sizeof(double) + 2 * sizeof(float)),
                 fmt::format("[network]: {} weights", a.network->size()));
  a.algorithm = make_algorithm(config, a.network);
  a.backend = backend::make_backend(device, threads, precision);
  // Kernels divide by a task's number of rows.
  if (config.algorithm == AlgorithmKind::abml && config.data.shots.least == 0 &&
      config.data.shots.most > 0 && a.backend->asynchronous()) {
    throw Error(fmt::format(
        "data.shots: tasks without support rows are not supported on {} with algorithm = \"abml\"; "
        "expected at least 1, or --device cpu",
        a.backend->name()));
  }
  std::size_t parameters = 0;
  for (const ParameterGroup& group : a.algorithm->groups()) parameters += group.size;
  require_memory(static_cast<double>(parameters) * (sizeof(double) + sizeof(float)),
                 fmt::format("algorithm = \"{}\": {} parameters", a.algorithm->name(), parameters));
  for (const ParameterGroup& group : a.algorithm->groups()) {
    a.parameters.push_back(a.backend->shared(group.size));
  }
  return a;
}

void load_parameters(Assembly& assembly, const Checkpoint& checkpoint) {
  const std::vector<ParameterGroup>& groups = assembly.algorithm->groups();
  for (std::size_t g = 0; g < groups.size(); ++g) {
    checkpoint.load("", groups[g], *assembly.parameters[g]);
  }
}

std::string device_text(const backend::Backend& backend) {
  const std::string name = backend.name();
  const std::string description = backend.description();
  return description.starts_with(name) ? description : fmt::format("{} ({})", name, description);
}

SourceInfo describe(const EpisodeSource& source) {
  return {source.describe(), source.shape(), source.preprocessing()};
}

bool has_norm(const Network& network) {
  return std::ranges::any_of(network.layers(),
                             [](const Layer& layer) { return layer.type == LayerType::norm; });
}

void check_fit(const Config& config, const Network& network, const EpisodeSource& source) {
  const TaskShape shape = source.shape();
  const FeatureShape& input = network.input();
  if (input.size() != shape.input.size() ||
      (input.spatial && shape.input.spatial && input != shape.input)) {
    throw Error(fmt::format("[network] takes inputs of {}, but the episodes ({}) have {}",
                            text(input), source.describe(), text(shape.input)));
  }
  require_memory(task_bytes(network, shape),
                 fmt::format("tasks of {} support and {} query rows ({})", shape.support,
                             shape.query, source.describe()));
  const bool labels = shape.target == TargetKind::label;
  if (labels != is_classification(config)) {
    throw Error(fmt::format("loss.type: the episodes ({}) have {} for targets, expected {}",
                            source.describe(), labels ? "classes" : "numbers",
                            labels ? "cross_entropy" : "mse or gaussian_nll"));
  }
  const bool head = is_closed_form(config.algorithm);
  if (const auto [key, outputs] = head_outputs(config); outputs > 0 && outputs != shape.outputs) {
    throw Error(fmt::format("{}: expected {}, the number of {} of the episodes ({}), got {}", key,
                            shape.outputs, labels ? "classes" : "targets", source.describe(),
                            outputs));
  }
  if (!head && shape.ways_vary) {
    throw Error(
        fmt::format("algorithm = \"{}\": the episodes ({}) differ in their number of "
                    "classes, which only closed-form heads support",
                    schema::selector(config, "algorithm"), source.describe()));
  }
  if (!head && network.outputs() != shape.outputs) {
    throw Error(fmt::format("[network] gives {} outputs, but the episodes ({}) have {} {}",
                            network.outputs(), source.describe(), shape.outputs,
                            labels ? "classes" : "targets"));
  }
  const bool prior_alone = config.algorithm == AlgorithmKind::abml && config.evaluate.steps == 0;
  const bool plain =
      (config.algorithm == AlgorithmKind::maml && config.inner.steps == 0) || prior_alone;
  if ((shape.support < 1 && !plain && !has_prior(config.algorithm)) || shape.query < 1) {
    throw Error(
        fmt::format("the episodes ({}) have {} support and {} query rows: expected at least "
                    "1 of each (no support rows: for algorithm = \"maml\" with inner.steps = 0, "
                    "\"bayes_protonet\", \"alpaca\" and \"dkt\")",
                    source.describe(), shape.support, shape.query));
  }
  if (config.algorithm == AlgorithmKind::abml && config.data.shots.least == 0 &&
      shape.support > 0 && has_norm(network)) {
    throw Error(fmt::format(
        "data.shots: the episodes ({}) may have no support rows, which give norm layers no "
        "statistics; expected at least 1, or a network without norm layers",
        source.describe()));
  }
  if (shape.support < 1 && !head && config.evaluate.steps > 0) {
    throw Error(
        fmt::format("evaluate.steps = {}: the episodes ({}) have no support rows to adapt "
                    "to; expected 0",
                    config.evaluate.steps, source.describe()));
  }
  if (shape.support < 1 && config.evaluate.norm_statistics == "support") {
    throw Error(
        fmt::format("evaluate.norm_statistics = \"support\": the episodes ({}) have no "
                    "support rows; expected \"batch\"",
                    source.describe()));
  }
}

Config prediction_config(Config config) {
  config.abml.inner_data = InnerData::support;
  return config;
}

PredictOptions predict_options(const Config& config, const Algorithm& algorithm) {
  PredictOptions options;
  const bool chosen = config.evaluate.steps >= 0 && !is_closed_form(config.algorithm);
  options.steps = chosen ? config.evaluate.steps : algorithm.steps();
  options.samples = !algorithm.bayesian()         ? 1
                    : config.evaluate.samples > 0 ? config.evaluate.samples
                                                  : algorithm.samples();
  options.statistics = config.evaluate.norm_statistics == "support"
                           ? backend::NormStatistics::support
                           : backend::NormStatistics::batch;
  return options;
}

bool is_classification(const Config& config) {
  return config.loss.type == LossType::cross_entropy;
}

double predictive_noise(const Assembly& assembly) {
  const Config& config = assembly.config;
  if (is_closed_form(config.algorithm)) return 0.0;
  if (config.loss.type == LossType::mse && assembly.algorithm->bayesian()) {
    return std::sqrt(0.5 * assembly.network->outputs());
  }
  if (config.loss.type != LossType::gaussian_nll) return 0.0;
  if (config.loss.noise == NoiseKind::fixed) return config.loss.noise_std;
  const std::vector<ParameterGroup>& groups = assembly.algorithm->groups();
  const auto group = std::ranges::find(groups, "log_noise", &ParameterGroup::name);
  double log_noise = 0.0;
  assembly.parameters[static_cast<std::size_t>(group - groups.begin())]->download(
      std::span(&log_noise, 1));
  return std::exp(log_noise);
}

std::vector<double> head_noise(const Assembly& assembly, int outputs) {
  if (!is_closed_form(assembly.config.algorithm)) return {};
  const std::vector<ParameterGroup>& groups = assembly.algorithm->groups();
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const auto tensor = std::ranges::find(groups[g].tensors, "log_noise", &ParameterTensor::name);
    if (tensor == groups[g].tensors.end()) continue;
    std::vector<double> all(groups[g].size);
    assembly.parameters[g]->download(all);
    std::vector<double> noise;
    for (int o = 0; o < outputs; ++o) {  // alpaca has one for each output, dkt one for all
      noise.push_back(std::exp(all[tensor->offset + static_cast<std::size_t>(o) % tensor->size]));
    }
    return noise;
  }
  return {};
}

}  // namespace kshot
