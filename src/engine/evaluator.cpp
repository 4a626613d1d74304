#include "kshot/evaluator.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <mutex>
#include <nlohmann/json.hpp>

#include "engine/assembly.h"
#include "engine/checkpoint.h"
#include "engine/plan.h"
#include "engine/predictor.h"
#include "engine/scheduler.h"
#include "episodes/sources.h"
#include "io/log.h"
#include "kshot/error.h"
#include "metrics/baselines.h"
#include "metrics/metrics.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;

Statistic statistic(const metrics::Estimate& e) {
  return {e.mean, e.half_width, e.count};
}

/// One way to predict, as its episodes come in.
struct Judged {
  std::string name;
  int inner_steps = -1;
  metrics::ClassificationMetrics classification;
  metrics::RegressionMetrics regression;

  Score score(bool classify) const {
    Score s;
    s.name = name;
    s.inner_steps = inner_steps;
    if (classify) {
      s.accuracy = statistic(classification.accuracy());
      s.nll = statistic(classification.nll());
      s.brier = statistic(classification.brier());
      s.ece = classification.calibration().ece();
      for (const metrics::ReliabilityBin& b : classification.calibration().bins()) {
        s.calibration.push_back({b.low, b.high, b.count, b.confidence, b.accuracy});
      }
      return s;
    }
    s.mse = statistic(regression.mse());
    if (regression.nll().count > 0) s.nll = statistic(regression.nll());
    const metrics::Coverage& coverage = regression.coverage();
    for (std::size_t i = 0; i < coverage.levels().size(); ++i) {
      const metrics::Estimate observed = coverage.observed(i);
      if (observed.count > 0) s.coverage.push_back({coverage.levels()[i], statistic(observed)});
    }
    return s;
  }
};

/// One episode's numbers for one Judged: probabilities, or samples of the prediction.
struct Entry {
  std::vector<double> values;
  std::size_t samples = 1;
  double noise = 0.0;
};

std::vector<double> repeated(const std::vector<double>& row, int rows) {
  std::vector<double> all;
  all.reserve(row.size() * static_cast<std::size_t>(rows));
  for (int i = 0; i < rows; ++i) all.insert(all.end(), row.begin(), row.end());
  return all;
}

const std::vector<std::string>& baseline_names(bool classify) {
  static const std::vector<std::string> labels = {"nearest centroid", "logistic regression"};
  static const std::vector<std::string> values = {"support mean", "ridge regression"};
  return classify ? labels : values;
}

std::vector<Entry> baselines(const EpisodePrediction& p, bool classify) {
  const TaskShape& shape = p.batch->shape();
  const auto dim = static_cast<std::size_t>(shape.input.size());
  const auto outputs = static_cast<std::size_t>(shape.outputs);
  if (classify) {
    const metrics::LogisticRegression head(p.support_x(), dim, p.support_labels(), outputs);
    return {
        {metrics::nearest_centroid({p.support_x(), p.query_x(), dim}, p.support_labels(), outputs)},
        {head.predict(p.query_x())}};
  }
  const metrics::RidgeRegression head(p.support_x(), dim, p.support_values(), outputs);
  return {{repeated(metrics::support_mean(p.support_values(), outputs), p.rows)},
          {head.predict(p.query_x())}};
}

bool has_norm(const Network& network) {
  for (const Layer& layer : network.layers()) {
    if (layer.type == LayerType::norm) return true;
  }
  return false;
}

// ---- as text ----

std::string percent(const Statistic& s) {
  return std::isfinite(s.half_width)
             ? fmt::format("{:.2f} ± {:.2f} %", 100.0 * s.mean, 100.0 * s.half_width)
             : fmt::format("{:.2f} %", 100.0 * s.mean);
}
std::string plain(const Statistic& s) {
  // beyond a thousand (a few steps too many, say) digits after the point say nothing
  const bool large = std::abs(s.mean) >= 1e3 || std::abs(s.half_width) >= 1e3;
  const auto number = [large](double v) {
    return large ? fmt::format("{:.3g}", v) : fmt::format("{:.4f}", v);
  };
  return std::isfinite(s.half_width) ? number(s.mean) + " ± " + number(s.half_width)
                                     : number(s.mean);
}

/// Width on the screen: "±" is two bytes.
std::size_t width(const std::string& text) {
  std::size_t n = 0;
  for (const char c : text) n += (static_cast<unsigned char>(c) & 0xC0u) != 0x80u;
  return n;
}

/// Columns with nothing below their title.
void drop_empty_columns(std::vector<std::vector<std::string>>& rows) {
  for (std::size_t c = rows.front().size(); c-- > 1;) {
    const bool empty =
        std::all_of(rows.begin() + 1, rows.end(), [c](const auto& row) { return row[c].empty(); });
    if (!empty) continue;
    for (auto& row : rows) row.erase(row.begin() + static_cast<std::ptrdiff_t>(c));
  }
}

std::string layout(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths(rows.front().size(), 0);
  for (const auto& row : rows) {
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], width(row[c]));
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::string pad(widths[c] - width(row[c]), ' ');
      line += c == 0 ? row[c] + pad : "  " + pad + row[c];
    }
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

std::vector<std::string> cells(const Score& s, bool classify) {
  std::vector<std::string> row = {
      s.inner_steps < 0
          ? s.name
          : fmt::format("{}, {} step{}", s.name, s.inner_steps, s.inner_steps == 1 ? "" : "s")};
  const auto put = [&row](const std::optional<Statistic>& v, auto format) {
    row.push_back(v ? format(*v) : "");
  };
  if (classify) {
    put(s.accuracy, percent);
    put(s.nll, plain);
    put(s.brier, plain);
    row.push_back(s.ece ? fmt::format("{:.4f}", *s.ece) : "");
    return row;
  }
  put(s.mse, plain);
  put(s.nll, plain);
  for (const CoverageScore& c : s.coverage) row.push_back(percent(c.observed));
  return row;
}

nlohmann::ordered_json to_json(const Statistic& s) {
  nlohmann::ordered_json j{
      {"mean", s.mean}, {"half_width", s.half_width}, {"episodes", s.episodes}};
  if (!std::isfinite(s.half_width)) j["half_width"] = nullptr;
  if (!std::isfinite(s.mean)) j["mean"] = nullptr;
  return j;
}

nlohmann::ordered_json to_json(const Score& s) {
  nlohmann::ordered_json j{{"name", s.name}};
  if (s.inner_steps >= 0) j["inner_steps"] = s.inner_steps;
  if (s.accuracy) j["accuracy"] = to_json(*s.accuracy);
  if (s.mse) j["mse"] = to_json(*s.mse);
  if (s.nll) j["nll"] = to_json(*s.nll);
  if (s.brier) j["brier"] = to_json(*s.brier);
  if (s.ece) j["ece"] = std::isfinite(*s.ece) ? nlohmann::ordered_json(*s.ece) : nullptr;
  if (!s.coverage.empty()) {
    for (const CoverageScore& c : s.coverage) {
      auto entry = to_json(c.observed);
      entry["level"] = c.level;
      j["coverage"].push_back(entry);
    }
  }
  for (const CalibrationBin& b : s.calibration) {
    j["calibration"].push_back({{"low", b.low},
                                {"high", b.high},
                                {"count", b.count},
                                {"confidence", b.confidence},
                                {"accuracy", b.accuracy}});
  }
  return j;
}

double number(const nlohmann::json& value) {
  return value.is_null() ? std::nan("") : value.get<double>();
}

Statistic statistic_from(const nlohmann::json& j) {
  return {number(j.at("mean")), number(j.at("half_width")), j.at("episodes").get<std::size_t>()};
}

Score score_from(const nlohmann::json& j) {
  Score s;
  s.name = j.at("name").get<std::string>();
  s.inner_steps = j.value("inner_steps", -1);
  const auto take = [&](const char* key, std::optional<Statistic>& value) {
    if (j.contains(key)) value = statistic_from(j.at(key));
  };
  take("accuracy", s.accuracy);
  take("mse", s.mse);
  take("nll", s.nll);
  take("brier", s.brier);
  if (j.contains("ece")) s.ece = number(j.at("ece"));
  if (j.contains("coverage")) {
    for (const auto& c : j.at("coverage")) {
      s.coverage.push_back({c.at("level").get<double>(), statistic_from(c)});
    }
  }
  if (j.contains("calibration")) {
    for (const auto& b : j.at("calibration")) {
      s.calibration.push_back({b.at("low").get<double>(), b.at("high").get<double>(),
                               b.at("count").get<std::size_t>(), b.at("confidence").get<double>(),
                               b.at("accuracy").get<double>()});
    }
  }
  return s;
}

}  // namespace

std::string Evaluation::table() const {
  const bool classify = shape.target == TargetKind::label;
  std::vector<std::vector<std::string>> rows;
  if (classify) {
    rows.push_back({"", "accuracy", "NLL", "Brier", "ECE"});
  } else {
    rows.push_back({"", "MSE", "NLL"});
    for (const CoverageScore& c : last().coverage) {
      rows.front().push_back(fmt::format("in {:.0f} % band", 100.0 * c.level));
    }
  }
  // of many inner steps about ten rows, the first and the last among them
  const std::size_t every = steps.size() > 16 ? (steps.size() - 1 + 9) / 10 : 1;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    if (i % every == 0 || i + 1 == steps.size()) rows.push_back(cells(steps[i], classify));
  }
  for (const Score& s : baselines) rows.push_back(cells(s, classify));
  for (auto& row : rows) row.resize(rows.front().size());
  drop_empty_columns(rows);
  std::string text = fmt::format(
      "{}, {} meta-steps; {}\n{} {} episodes (seed {}), {} support and {} query rows{}{}{}\n\n",
      algorithm, step, source, episodes, split_name(split), seed, shape.support, shape.query,
      samples > 1 ? fmt::format(", {} samples", samples) : "",
      norm_statistics == "none"
          ? ""
          : fmt::format(", norm statistics of the {}",
                        norm_statistics == "batch" ? "batch at hand" : "support set"),
      diverged > 0 ? fmt::format("; {} diverged and are left out", diverged) : "");
  return text + layout(rows);
}

std::string Evaluation::to_json() const {
  nlohmann::ordered_json j{{"algorithm", algorithm},
                           {"checkpoint", checkpoint},
                           {"step", step},
                           {"source", source},
                           {"split", split_name(split)},
                           {"target", shape.target == TargetKind::label ? "label" : "value"},
                           {"outputs", shape.outputs},
                           {"support_rows", shape.support},
                           {"query_rows", shape.query},
                           {"seed", seed},
                           {"episodes", episodes},
                           {"diverged", diverged},
                           {"samples", samples},
                           {"norm_statistics", norm_statistics},
                           {"device", device},
                           {"seconds", seconds},
                           {"steps", nlohmann::ordered_json::array()},
                           {"baselines", nlohmann::ordered_json::array()}};
  for (const Score& s : steps) j["steps"].push_back(kshot::to_json(s));
  for (const Score& s : baselines) j["baselines"].push_back(kshot::to_json(s));
  return j.dump(2) + "\n";
}

Evaluation Evaluation::from_json(const std::string& text, const std::string& origin) {
  try {
    const auto j = nlohmann::json::parse(text);
    Evaluation e;
    e.algorithm = j.at("algorithm").get<std::string>();
    e.checkpoint = j.at("checkpoint").get<std::string>();
    e.step = j.at("step").get<std::uint64_t>();
    e.source = j.at("source").get<std::string>();
    for (const Split split : {Split::train, Split::validation, Split::test}) {
      if (j.at("split") == split_name(split)) e.split = split;
    }
    e.shape.target = j.at("target") == "label" ? TargetKind::label : TargetKind::value;
    e.shape.outputs = j.at("outputs").get<int>();
    e.shape.support = j.at("support_rows").get<int>();
    e.shape.query = j.at("query_rows").get<int>();
    e.seed = j.at("seed").get<std::uint64_t>();
    e.episodes = j.at("episodes").get<int>();
    e.diverged = j.at("diverged").get<int>();
    e.samples = j.at("samples").get<int>();
    e.norm_statistics = j.at("norm_statistics").get<std::string>();
    e.device = j.at("device").get<std::string>();
    e.seconds = j.at("seconds").get<double>();
    for (const auto& entry : j.at("steps")) e.steps.push_back(score_from(entry));
    for (const auto& entry : j.at("baselines")) e.baselines.push_back(score_from(entry));
    if (e.steps.empty()) throw Error(fmt::format("{}: \"steps\" is empty", origin));
    return e;
  } catch (const nlohmann::json::exception& error) {
    throw Error(fmt::format("{}: not an evaluation of kshot: {}", origin, error.what()));
  }
}

struct Evaluator::State {
  State(const fs::path& run, std::shared_ptr<const EpisodeSource> episodes, EvaluatorOptions opts)
      : options(std::move(opts)), checkpoint(Checkpoint::read(find_checkpoint(run))) {
    config =
        Config::parse(checkpoint.config.to_toml(), checkpoint.path.string(), options.overrides);
    if (!episodes) {
      config.check_data(checkpoint.path.string());
      episodes = make_source(config);
    }
    source = std::move(episodes);
    if (!source->has(options.split)) {
      throw Error(fmt::format("the episodes ({}) have no {} split", source->describe(),
                              split_name(options.split)));
    }
    assembly = assemble(prediction_config(config), options.device, options.threads);
    load_parameters(assembly, checkpoint);
    check_fit(config, *assembly.network, *source);
    plan_waves(*assembly.backend, assembly.config, source->shape());
    if (source->shape().support == 0) options.baselines = false;  // they learn from support rows
    scheduler =
        std::make_unique<Scheduler>(*assembly.backend, *assembly.algorithm, source->shape());
  }

  EvaluatorOptions options;
  Checkpoint checkpoint;
  Config config;
  std::shared_ptr<const EpisodeSource> source;
  Assembly assembly;
  std::unique_ptr<Scheduler> scheduler;
};

Evaluator::Evaluator(const fs::path& run, EvaluatorOptions options)
    : Evaluator(run, nullptr, std::move(options)) {}
Evaluator::Evaluator(const fs::path& run, std::shared_ptr<const EpisodeSource> source,
                     EvaluatorOptions options)
    : state_(std::make_unique<State>(run, std::move(source), std::move(options))) {}
Evaluator::~Evaluator() = default;
Evaluator::Evaluator(Evaluator&&) noexcept = default;
Evaluator& Evaluator::operator=(Evaluator&&) noexcept = default;

const Config& Evaluator::config() const {
  return state_->config;
}

Evaluation Evaluator::run() {
  State& s = *state_;
  const auto start = std::chrono::steady_clock::now();
  const Algorithm& algorithm = *s.assembly.algorithm;
  const bool classify = is_classification(s.config);
  const PredictOptions predict = predict_options(s.config, algorithm);
  const double noise = predictive_noise(s.config, *s.assembly.network, algorithm);
  const auto samples = static_cast<std::size_t>(predict.samples);
  const auto outputs = static_cast<std::size_t>(s.assembly.network->outputs());

  std::vector<Judged> judged(static_cast<std::size_t>(predict.steps) + 1);
  for (std::size_t k = 0; k < judged.size(); ++k) {
    judged[k].name = algorithm.name();
    judged[k].inner_steps = static_cast<int>(k);
  }
  if (s.options.baselines) {
    for (const std::string& name : baseline_names(classify)) judged.emplace_back().name = name;
  }
  Evaluation result;
  std::optional<io::Progress> progress;
  if (s.options.progress) {
    progress.emplace(static_cast<std::uint64_t>(s.config.evaluate.episodes), "episodes");
  }
  std::uint64_t done = 0;
  const auto tick = [&] {
    if (progress) progress->update(++done);
  };
  predict_episodes(*s.scheduler, s.assembly.parameters, *s.source, s.config.evaluate.seed,
                   s.options.split, s.config.evaluate.episodes, predict,
                   [&](const EpisodePrediction& p) -> std::function<void()> {
                     if (p.diverged) {
                       return [&] {
                         ++result.diverged;
                         tick();
                       };
                     }
                     std::vector<Entry> entries;
                     for (const std::vector<double>& raw : p.outputs) {
                       if (!classify) {
                         entries.push_back({raw, samples, noise});
                         continue;
                       }
                       Entry entry{std::vector<double>(raw.size() / samples)};
                       metrics::mean_softmax(raw, samples, static_cast<std::size_t>(p.rows),
                                             outputs, entry.values);
                       entries.push_back(std::move(entry));
                     }
                     if (s.options.baselines) {
                       for (Entry& entry : baselines(p, classify))
                         entries.push_back(std::move(entry));
                     }
                     std::vector<std::int32_t> labels;
                     std::vector<double> values;
                     if (classify) {
                       labels.assign(p.query_labels().begin(), p.query_labels().end());
                     } else {
                       values.assign(p.query_values().begin(), p.query_values().end());
                     }
                     return [&, entries = std::move(entries), labels = std::move(labels),
                             values = std::move(values)] {
                       for (std::size_t i = 0; i < entries.size(); ++i) {
                         if (classify) {
                           judged[i].classification.add_episode(entries[i].values, labels, outputs);
                         } else {
                           judged[i].regression.add_episode(entries[i].values, entries[i].samples,
                                                            values, entries[i].noise);
                         }
                       }
                       tick();
                     };
                   });
  if (progress) progress->finish();
  if (result.diverged == s.config.evaluate.episodes) {
    throw Error(fmt::format("all {} test episodes diverged; likely cause: {}",
                            s.config.evaluate.episodes, algorithm.divergence_hint()));
  }
  result.algorithm = algorithm.name();
  result.checkpoint = s.checkpoint.path.string();
  result.step = s.checkpoint.state.step;
  result.source = s.source->describe();
  result.split = s.options.split;
  result.shape = s.source->shape();
  result.seed = s.config.evaluate.seed;
  result.episodes = s.config.evaluate.episodes;
  result.samples = predict.samples;
  result.norm_statistics =
      has_norm(*s.assembly.network) ? s.config.evaluate.norm_statistics : "none";
  result.device = device_text(*s.assembly.backend);
  for (const Judged& j : judged) {
    (j.inner_steps >= 0 ? result.steps : result.baselines).push_back(j.score(classify));
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace kshot
