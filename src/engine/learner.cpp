#include "kshot/learner.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/assembly.h"
#include "engine/checkpoint.h"
#include "engine/predictor.h"
#include "episodes/sources.h"
#include "kshot/error.h"
#include "metrics/metrics.h"

namespace kshot {
namespace {

double entropy(std::span<const double> p) {
  double h = 0.0;
  for (const double x : p) {
    if (x > 0.0) h -= x * std::log(x);
  }
  return h;
}

/// Fills what follows from `raw`. `labels`: of the support rows; a class that they do not have has
/// probability 0, unless the head itself predicts such classes (`absent_classes`).
void summarise(Prediction& p, std::span<const std::int32_t> labels, bool absent_classes) {
  const auto size = static_cast<std::size_t>(p.rows) * static_cast<std::size_t>(p.outputs);
  const auto samples = static_cast<std::size_t>(p.samples);
  const auto outputs = static_cast<std::size_t>(p.outputs);
  std::vector<double> values = p.raw;
  if (p.classification) {
    std::vector<bool> present(outputs, absent_classes);
    for (const std::int32_t label : labels) present[static_cast<std::size_t>(label)] = true;
    for (std::size_t row = 0; row * outputs < values.size(); ++row) {
      const std::span<double> logits = std::span(values).subspan(row * outputs, outputs);
      for (std::size_t i = 0; i < outputs; ++i) {
        if (!present[i]) logits[i] = -std::numeric_limits<double>::infinity();
      }
      metrics::softmax(logits, logits);
    }
  }
  p.mean.assign(size, 0.0);
  p.std.assign(size, 0.0);
  for (std::size_t i = 0; i < size; ++i) {
    metrics::Mean mean;
    for (std::size_t s = 0; s < samples; ++s) mean.add(values[s * size + i]);
    p.mean[i] = mean.mean();
    if (samples > 1) p.std[i] = mean.standard_deviation();
  }
  if (!p.classification) return;
  for (std::size_t row = 0; row < static_cast<std::size_t>(p.rows); ++row) {
    const double total = entropy(std::span(p.mean).subspan(row * outputs, outputs));
    double expected = 0.0;
    for (std::size_t s = 0; s < samples; ++s) {
      expected += entropy(std::span(values).subspan(s * size + row * outputs, outputs));
    }
    expected /= static_cast<double>(samples);
    p.entropy.push_back(total);
    p.mutual_information.push_back(samples > 1 ? std::max(0.0, total - expected) : 0.0);
  }
}

void check_finite(std::span<const float> values, const char* what) {
  if (!std::ranges::all_of(values, [](float v) { return std::isfinite(v); })) {
    throw Error(fmt::format("{}: expected finite numbers", what));
  }
}

}  // namespace

struct Learner::State {
  State(const std::filesystem::path& run, const LearnerOptions& options)
      : checkpoint(Checkpoint::read(find_checkpoint(run))) {
    const Config config =
        Config::parse(checkpoint.config.to_toml(), checkpoint.path.string(), options.overrides);
    assembly = assemble(prediction_config(config), options.device, options.threads);
    outputs = head_outputs();
    load_parameters(assembly, checkpoint);
    assembly.algorithm->prepare(*assembly.backend, assembly.parameters, {});
  }

  /// Classes or target values of every task; 0: of each its own.
  int head_outputs() const {
    const Config& config = assembly.config;
    if (!is_closed_form(config.algorithm)) return assembly.network->outputs();
    if (config.algorithm == AlgorithmKind::r2d2 && !is_classification(config)) {
      return checkpoint.source.shape.outputs;
    }
    return kshot::head_outputs(config).second;
  }
  /// Number of outputs for one task: the run's own number, or the task's number of classes where a
  /// closed-form head takes any number.
  int outputs_of(const SupportRows& support) const {
    if (outputs > 0) return outputs;
    if (support.ways > 0) return support.ways;
    if (support.labels.empty()) {
      throw Error("support rows: without labels the number of classes is needed (ways)");
    }
    return std::max(1, 1 + *std::ranges::max_element(support.labels));
  }

  /// The task as a batch of one.
  TaskBatch batch(const SupportRows& support, std::span<const float> query_x) const {
    const bool classify = is_classification(assembly.config);
    const auto inputs = static_cast<std::size_t>(assembly.network->input().size());
    const int outputs_here = outputs_of(support);
    const auto rows_in = [&](std::span<const float> x, const char* what, bool may_be_empty) {
      if (x.empty() && may_be_empty) return 0;
      if (x.empty() || x.size() % inputs != 0) {
        throw Error(
            fmt::format("{}: {} numbers, expected a positive multiple of the network's {} "
                        "inputs",
                        what, x.size(), inputs));
      }
      check_finite(x, what);
      return static_cast<int>(x.size() / inputs);
    };
    TaskShape shape;
    shape.input = assembly.network->input();
    shape.outputs = outputs_here;
    shape.target = classify ? TargetKind::label : TargetKind::value;
    shape.support = rows_in(support.x, "support rows", has_prior(assembly.config.algorithm));
    shape.query = rows_in(query_x, "query rows", false);
    if (shape.support == 0 && assembly.config.evaluate.norm_statistics == "support") {
      throw Error(
          "evaluate.norm_statistics = \"support\": there are no support rows; expected \"batch\"");
    }
    TaskBatch b(shape, 1);
    std::ranges::copy(support.x, b.support_x.begin());
    std::ranges::copy(query_x, b.query_x.begin());
    const Config::DataTable& data = assembly.config.data;
    if (data.source == DataKind::file && data.unit_length) {
      scale_to_unit_length(b.support_x, inputs);
      scale_to_unit_length(b.query_x, inputs);
    }
    const std::size_t targets = classify ? support.labels.size() : support.values.size();
    const std::size_t expected = static_cast<std::size_t>(shape.support) *
                                 (classify ? 1 : static_cast<std::size_t>(outputs_here));
    if (targets != expected) {
      throw Error(fmt::format("support rows: {} {}, expected {} for {} rows", targets,
                              classify ? "labels" : "target numbers", expected, shape.support));
    }
    if (classify) {
      for (const std::int32_t label : support.labels) {
        if (label < 0 || label >= outputs_here) {
          throw Error(fmt::format("support rows: label {} is out of range, expected 0 to {}", label,
                                  outputs_here - 1));
        }
      }
      std::ranges::copy(support.labels, b.support_label.begin());
    } else {
      check_finite(support.values, "support targets");
      std::ranges::copy(support.values, b.support_value.begin());
    }
    return b;
  }

  std::vector<Prediction> predict(const SupportRows& support, std::span<const float> query_x,
                                  bool every_step) const {
    const TaskBatch rows = batch(support, query_x);
    PredictOptions options = predict_options(assembly.config, *assembly.algorithm);
    options.every_step = every_step;
    const std::unique_ptr<TaskProgram> program =
        assembly.algorithm->open(*assembly.backend, rows.shape());
    program->wave().load(rows, 0, 1, 0);
    StepContext context;
    context.seed = assembly.config.evaluate.seed;
    const EpisodePrediction episode =
        std::move(predict_wave(*program, rows, 0, 1, context, options).front());
    if (episode.diverged) {
      throw Error(fmt::format("the adaptation diverged; likely cause: {}",
                              assembly.algorithm->divergence_hint()));
    }
    std::vector<Prediction> predictions;
    for (std::size_t i = 0; i < episode.outputs.size(); ++i) {
      Prediction p;
      p.rows = rows.shape().query;
      p.outputs = rows.shape().outputs;
      p.samples = options.samples;
      p.inner_steps = every_step ? static_cast<int>(i) : options.steps;
      p.classification = is_classification(assembly.config);
      p.raw = episode.outputs[i];
      p.predictive_std = episode.std;
      p.noise_std = observation_noise(assembly);
      summarise(p, support.labels, is_closed_form(assembly.config.algorithm));
      predictions.push_back(std::move(p));
    }
    predictions.back().adapted = adapted(*program);
    return predictions;
  }

  /// The adapted state has the network's own layout.
  std::vector<AdaptedTensor> adapted(TaskProgram& program) const {
    std::vector<AdaptedTensor> tensors;
    for (const TaskProgram::NamedBlock& named : program.adapted()) {
      std::vector<double> flat(assembly.network->size());
      program.wave().download(named.block, flat);
      for (const ParameterTensor& t : assembly.network->parameters()) {
        const auto begin = flat.begin() + static_cast<std::ptrdiff_t>(t.offset);
        tensors.push_back({named.name + "." + t.name,
                           t.shape,
                           {begin, begin + static_cast<std::ptrdiff_t>(t.size)}});
      }
    }
    return tensors;
  }

  Checkpoint checkpoint;
  Assembly assembly;
  int outputs = 0;
};

Learner::Learner(const std::filesystem::path& run, const LearnerOptions& options)
    : state_(std::make_unique<State>(run, options)) {}
Learner::~Learner() = default;
Learner::Learner(Learner&&) noexcept = default;
Learner& Learner::operator=(Learner&&) noexcept = default;

const Config& Learner::config() const {
  return state_->assembly.config;
}
const Network& Learner::network() const {
  return *state_->assembly.network;
}
int Learner::outputs() const {
  return state_->outputs;
}
const std::string& Learner::preprocessing() const {
  return state_->checkpoint.source.preprocessing;
}
std::string Learner::device() const {
  return device_text(*state_->assembly.backend);
}

Prediction Learner::predict(const SupportRows& support, std::span<const float> query_x) const {
  return std::move(state_->predict(support, query_x, false).front());
}
std::vector<Prediction> Learner::predict_steps(const SupportRows& support,
                                               std::span<const float> query_x) const {
  return state_->predict(support, query_x, true);
}

}  // namespace kshot
