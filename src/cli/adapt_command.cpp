// `adapt`: adapts a run to a user's own task and writes predictions, decisions and adapted weights.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <system_error>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/decision_options.h"
#include "cli/task_files.h"
#include "io/npy.h"
#include "io/output_file.h"
#include "io/safetensors.h"
#include "kshot/error.h"
#include "kshot/learner.h"
#include "kshot/version.h"
#include "metrics/metrics.h"

namespace kshot::cli {
namespace {

namespace fs = std::filesystem;

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

std::size_t best_class(std::span<const double> p) {
  return static_cast<std::size_t>(std::ranges::max_element(p) - p.begin());
}

/// Returns the prediction with only the given outputs, those of the support rows' classes.
Prediction of_classes(Prediction p, const std::vector<std::size_t>& outputs) {
  const auto compact = [&](std::vector<double>& values) {
    std::vector<double> out;
    const auto width = static_cast<std::size_t>(p.outputs);
    for (std::size_t row = 0; row * width < values.size(); ++row) {
      for (const std::size_t output : outputs) out.push_back(values[row * width + output]);
    }
    values = std::move(out);
  };
  compact(p.raw);
  compact(p.mean);
  compact(p.std);
  p.outputs = static_cast<int>(outputs.size());
  return p;
}

std::string classification_csv(const Prediction& p, const TaskFiles& task,
                               const DecidedRows& decided) {
  const auto outputs = static_cast<std::size_t>(p.outputs);
  const bool uncertain = p.samples > 1;
  std::string text = "row,prediction,probability";
  for (const std::string& name : task.label_names) text += "," + csv_field("p(" + name + ")");
  text += ",entropy";
  if (uncertain) {
    text += ",mutual_information";
    for (const std::string& name : task.label_names) text += "," + csv_field("std(" + name + ")");
  }
  if (!decided.answered.empty()) text += ",answer";
  if (!decided.in_set.empty()) {
    for (const std::string& name : task.label_names) text += "," + csv_field("in(" + name + ")");
  }
  if (task.query_has_targets) text += ",label";
  text += "\n";
  for (std::size_t row = 0; row < static_cast<std::size_t>(p.rows); ++row) {
    const auto mean = std::span(p.mean).subspan(row * outputs, outputs);
    const std::size_t best = best_class(mean);
    text += fmt::format("{},{},{:.6g}", task.query_rows[row], csv_field(task.label_names[best]),
                        mean[best]);
    for (const double v : mean) text += fmt::format(",{:.6g}", v);
    text += fmt::format(",{:.6g}", p.entropy[row]);
    if (uncertain) {
      text += fmt::format(",{:.6g}", p.mutual_information[row]);
      for (std::size_t i = 0; i < outputs; ++i) {
        text += fmt::format(",{:.6g}", p.std[row * outputs + i]);
      }
    }
    if (!decided.answered.empty()) {
      text += "," + csv_field(decided.answered[row] ? task.label_names[best] : unknown_answer);
    }
    for (std::size_t i = 0; i < outputs && !decided.in_set.empty(); ++i) {
      text += decided.in_set[row * outputs + i] ? ",1" : ",0";
    }
    if (task.query_has_targets) {
      const std::int32_t label = task.query_labels[row];
      text += ",";
      if (label >= 0) text += csv_field(task.label_names[static_cast<std::size_t>(label)]);
    }
    text += "\n";
  }
  return text;
}

/// Returns predictions.csv of a regression. Its columns, in the units of the user's targets, are
/// the mean, the standard deviation of the samples, the standard deviation of the predictive
/// distribution (with observation noise, or the method's own) and its central 90 % band, and the
/// conformal interval. Columns that do not apply are left out.
std::string regression_csv(const Prediction& p, const TaskFiles& task, const DecidedRows& decided) {
  const auto outputs = static_cast<std::size_t>(p.outputs);
  const auto samples = static_cast<std::size_t>(p.samples);
  const bool own = !p.predictive_std.empty();  // the method's own predictive distribution
  const bool banded = samples > 1 || p.noise_std > 0.0 || own;
  std::string text = "row";
  for (const std::string& name : task.target_names) {
    text += "," + csv_field(name);
    if (samples > 1) text += "," + csv_field(name + "_model_std");
    if (banded) {
      text += "," + csv_field(name + "_std") + "," + csv_field(name + "_low90") + "," +
              csv_field(name + "_high90");
    }
    if (!decided.low.empty()) {
      text += "," + csv_field(name + "_low") + "," + csv_field(name + "_high");
    }
    if (task.query_has_targets) text += "," + csv_field(name + "_true");
  }
  text += "\n";
  std::vector<double> means(samples);
  for (std::size_t row = 0; row < static_cast<std::size_t>(p.rows); ++row) {
    text += std::to_string(task.query_rows[row]);
    for (std::size_t i = 0; i < outputs; ++i) {
      const std::size_t at = row * outputs + i;
      const double scale = task.target_scale[i];
      const double shift = task.target_shift[i];
      text += fmt::format(",{:.7g}", p.mean[at] * scale + shift);
      if (samples > 1) text += fmt::format(",{:.6g}", p.std[at] * scale);
      if (banded) {
        for (std::size_t s = 0; s < samples; ++s) means[s] = p.raw[s * p.mean.size() + at];
        std::ranges::sort(means);
        const double noise = own ? p.predictive_std[at] : p.noise_std;
        const metrics::Band band = metrics::mixture_band(means, noise, 0.9);
        text += fmt::format(",{:.6g},{:.7g},{:.7g}", std::hypot(p.std[at], noise) * scale,
                            band.low * scale + shift, band.high * scale + shift);
      }
      if (!decided.low.empty()) {
        text += fmt::format(",{:.7g},{:.7g}", decided.low[at] * scale + shift,
                            decided.high[at] * scale + shift);
      }
      if (task.query_has_targets) {
        const auto value = static_cast<double>(task.query_values[at]);
        text += std::isnan(value) ? "," : fmt::format(",{:.7g}", value * scale + shift);
      }
    }
    text += "\n";
  }
  return text;
}

/// Adds the decisions as arrays: `answered` [rows] and `in_set` [rows, outputs], 0 or 1;
/// `interval_low` and `interval_high` [rows, outputs], in the units of the user's targets.
void put_decisions(std::map<std::string, io::NpyArray>& arrays, const DecidedRows& decided,
                   const Prediction& p, const TaskFiles& task) {
  const auto rows = static_cast<std::size_t>(p.rows);
  const auto outputs = static_cast<std::size_t>(p.outputs);
  const auto put_flags = [&](const char* name, const std::vector<bool>& flags,
                             std::vector<std::size_t> shape) {
    if (flags.empty()) return;
    const std::vector<std::int64_t> numbers(flags.begin(), flags.end());
    arrays.insert_or_assign(
        name, io::NpyArray::from(std::span<const std::int64_t>(numbers), std::move(shape)));
  };
  put_flags("answered", decided.answered, {rows});
  put_flags("in_set", decided.in_set, {rows, outputs});
  for (const auto& [name, bounds] :
       {std::pair{"interval_low", &decided.low}, std::pair{"interval_high", &decided.high}}) {
    if (bounds->empty()) continue;
    std::vector<double> values = *bounds;
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = values[i] * task.target_scale[i % outputs] + task.target_shift[i % outputs];
    }
    arrays.insert_or_assign(name,
                            io::NpyArray::from(std::span<const double>(values), {rows, outputs}));
  }
}

void write_arrays(const fs::path& file, const Prediction& p, const TaskFiles& task,
                  const DecidedRows& decided) {
  const auto rows = static_cast<std::size_t>(p.rows);
  const auto outputs = static_cast<std::size_t>(p.outputs);
  const auto samples = static_cast<std::size_t>(p.samples);
  std::map<std::string, io::NpyArray> arrays;
  const auto put = [&](const char* name, std::span<const double> values,
                       std::vector<std::size_t> shape) {
    arrays.insert_or_assign(name, io::NpyArray::from(values, std::move(shape)));
  };
  if (p.classification) {
    put("probabilities", p.mean, {rows, outputs});
    put("logits", p.raw, {samples, rows, outputs});
    put("entropy", p.entropy, {rows});
    if (samples > 1) {
      put("probabilities_std", p.std, {rows, outputs});
      put("mutual_information", p.mutual_information, {rows});
    }
    std::vector<std::int64_t> best;
    for (std::size_t row = 0; row < rows; ++row) {
      best.push_back(
          static_cast<std::int64_t>(best_class(std::span(p.mean).subspan(row * outputs, outputs))));
    }
    arrays.insert_or_assign("prediction",
                            io::NpyArray::from(std::span<const std::int64_t>(best), {rows}));
    std::vector<std::int64_t> labels;
    for (const std::string& name : task.label_names) {
      std::int64_t label = 0;
      const char* end = name.data() + name.size();
      if (std::from_chars(name.data(), end, label).ptr == end) labels.push_back(label);
    }
    if (labels.size() == outputs) {
      arrays.insert_or_assign("labels",
                              io::NpyArray::from(std::span<const std::int64_t>(labels), {outputs}));
    }
  } else {
    const auto scaled = [&](const std::vector<double>& values, bool shifted) {
      std::vector<double> out = values;
      for (std::size_t i = 0; i < out.size(); ++i) {
        out[i] = out[i] * task.target_scale[i % outputs] +
                 (shifted ? task.target_shift[i % outputs] : 0.0);
      }
      return out;
    };
    put("prediction", scaled(p.mean, true), {rows, outputs});
    put("samples", scaled(p.raw, true), {samples, rows, outputs});
    if (samples > 1) put("model_std", scaled(p.std, false), {rows, outputs});
    if (!p.predictive_std.empty()) {
      put("prediction_std", scaled(p.predictive_std, false), {rows, outputs});
    }
    if (p.noise_std > 0.0) {
      put("noise_std", scaled(std::vector<double>(outputs, p.noise_std), false), {outputs});
    }
  }
  put_decisions(arrays, decided, p, task);
  const std::vector<std::int64_t> source(task.query_rows.begin(), task.query_rows.end());
  arrays.insert_or_assign("row", io::NpyArray::from(std::span<const std::int64_t>(source), {rows}));
  io::write_npz(file, arrays);
}

void write_weights(const fs::path& file, const Prediction& p, const std::string& run) {
  io::SafeTensors content;
  for (const AdaptedTensor& tensor : p.adapted) {
    content.tensors[tensor.name] = io::Tensor::from(std::span<const double>(tensor.values),
                                                    {tensor.shape.begin(), tensor.shape.end()});
  }
  content.metadata = {{"format", std::string(io::weights_mark)},
                      {"kshot", version()},
                      {"run", run},
                      {"inner_steps", std::to_string(p.inner_steps)}};
  io::write_safetensors(file, content);
}

/// Prints the scores of the predictions over the query rows that have targets.
void print_score(const Prediction& p, const TaskFiles& task) {
  if (!task.query_has_targets) return;
  const auto outputs = static_cast<std::size_t>(p.outputs);
  const auto rows = static_cast<std::size_t>(p.rows);
  std::size_t known = 0;
  std::vector<double> mean;
  std::vector<std::int32_t> labels;
  double squares = 0.0;
  for (std::size_t row = 0; row < rows; ++row) {
    const auto predicted = std::span(p.mean).subspan(row * outputs, outputs);
    if (p.classification) {
      if (task.query_labels[row] < 0) continue;
      labels.push_back(task.query_labels[row]);
      mean.insert(mean.end(), predicted.begin(), predicted.end());
    } else {
      double sum = 0.0;
      for (std::size_t i = 0; i < outputs; ++i) {
        const auto value = static_cast<double>(task.query_values[row * outputs + i]);
        const double d = (predicted[i] - value) * task.target_scale[i];
        sum += d * d;
      }
      if (std::isnan(sum)) continue;
      squares += sum;
    }
    ++known;
  }
  if (known == 0) return;
  const std::string over =
      known < rows ? fmt::format(" ({} of {} rows have targets)", known, rows) : std::string();
  if (p.classification) {
    metrics::ClassificationMetrics m;
    const metrics::ClassificationScore score = m.add_episode(mean, labels, outputs);
    fmt::print("accuracy {:.2f} %, NLL {:.4f}, Brier {:.4f}{}\n", 100.0 * score.accuracy, score.nll,
               score.brier, over);
    return;
  }
  const double mse = squares / static_cast<double>(known * outputs);
  fmt::print("mean squared error {:.6g} (root {:.6g}){}\n", mse, std::sqrt(mse), over);
}

/// Warns where norm layers take their statistics from only one or two query rows: the statistics
/// then follow these rows and not the task.
void warn_of_few_rows(const Learner& learner, std::size_t query_rows) {
  const bool norms = std::ranges::any_of(
      learner.network().layers(), [](const Layer& layer) { return layer.type == LayerType::norm; });
  if (!norms || query_rows > 2 || learner.config().evaluate.norm_statistics != "batch") return;
  log_warning(fmt::format(
      "the network's norm layers take their statistics from the query rows together, and there {}; "
      "--set evaluate.norm_statistics=support takes those of the support rows",
      query_rows == 1 ? "is only one" : "are only two"));
}

}  // namespace

int run_adapt(const AdaptArguments& a) {
  LearnerOptions options;
  options.device = a.machine.device;
  options.threads = a.machine.threads;
  options.overrides = a.set;
  if (a.steps >= 0) options.overrides.push_back(fmt::format("evaluate.steps={}", a.steps));
  if (a.samples >= 1) options.overrides.push_back(fmt::format("evaluate.samples={}", a.samples));
  options.calibrated = a.calibrated || a.max_risk || a.level;
  const Learner learner(a.run, options);
  const fs::path out = a.out;
  std::optional<fs::path> support;
  if (!a.support.empty()) support = a.support;
  std::vector<fs::path> inputs = {a.query};
  if (support) inputs.push_back(*support);
  io::OutputFile weights(out / "adapted.safetensors", io::OutputKind::weights, inputs);
  io::OutputFile arrays(out / "predictions.npz", io::OutputKind::arrays, inputs);
  io::OutputFile table(out / "predictions.csv", io::OutputKind::predictions, inputs);
  const TaskFiles task =
      read_task_files(learner, support, a.query, task_file_options(a.text, a.missing, a.layout));
  warn_of_few_rows(learner, task.query_rows.size());
  const Decisions decisions = make_decisions(a, learner, task);
  Prediction prediction = learner.predict({task.support_x, task.support_labels, task.support_values,
                                           static_cast<int>(task.label_names.size())},
                                          task.query_x);
  if (prediction.classification) {
    prediction = of_classes(std::move(prediction), task.label_outputs);
  }
  const DecidedRows decided = decide(decisions, prediction);
  // The weights are written first: they mark the folder as one of kshot's (io/output_file.cpp).
  write_weights(weights.path(), prediction, a.run);
  weights.written();
  write_arrays(arrays.path(), prediction, task, decided);
  arrays.written();
  table.write(prediction.classification ? classification_csv(prediction, task, decided)
                                        : regression_csv(prediction, task, decided));
  const std::string how = !support ? "predicted from the prior alone"
                          : is_closed_form(learner.config().algorithm)
                              ? "fitted in closed form"
                              : fmt::format("adapted in {} inner step{}", prediction.inner_steps,
                                            prediction.inner_steps == 1 ? "" : "s");
  const std::optional<RunCalibration>& calibration = learner.calibration();
  fmt::print("{}, {} rows predicted{}{}; written to {}\n", how, prediction.rows,
             prediction.samples > 1 ? fmt::format(" with {} samples", prediction.samples) : "",
             calibration ? fmt::format(", calibrated with {}", calibration->describe()) : "",
             out.string());
  print_score(prediction, task);
  fmt::print("{}", describe_answers(decisions, decided, prediction, task));
  return 0;
}

}  // namespace kshot::cli
