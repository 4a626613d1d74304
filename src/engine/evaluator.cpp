#include "kshot/evaluator.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <mutex>

#include "engine/assembly.h"
#include "engine/baselines.h"
#include "engine/checkpoint.h"
#include "engine/data_file.h"
#include "engine/plan.h"
#include "engine/predictor.h"
#include "engine/scheduler.h"
#include "episodes/sources.h"
#include "io/log.h"
#include "kshot/error.h"
#include "metrics/classification.h"
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
  EpisodeScores per_episode;
  /// Why a baseline cannot be held against the others: it is missing in an episode. Empty: it is
  /// missing in none.
  std::string left_out;

  void add(const metrics::ClassificationScore& s) {
    per_episode.accuracy.push_back(s.accuracy);
    per_episode.nll.push_back(s.nll);
    per_episode.brier.push_back(s.brier);
  }
  void add(const metrics::RegressionScore& s) {
    per_episode.mse.push_back(s.mse);
    if (std::isfinite(s.nll)) per_episode.nll.push_back(s.nll);
  }
  /// AUROC of class 1 among two, from probabilities [rows, 2].
  void add_auroc(const std::vector<double>& probabilities,
                 const std::vector<std::int32_t>& labels) {
    std::vector<metrics::Scored> rows;
    for (std::size_t i = 0; i < labels.size(); ++i) {
      rows.push_back({probabilities[2 * i + 1], labels[i] == 1});
    }
    per_episode.auroc.push_back(metrics::auroc(rows));
  }
  /// R2 of the samples' mean; values [samples, rows, outputs].
  void add_r2(const Entry& entry, const std::vector<double>& targets, std::size_t outputs) {
    std::vector<double> mean(targets.size(), 0.0);
    for (std::size_t i = 0; i < entry.values.size(); ++i) {
      mean[i % mean.size()] += entry.values[i] / static_cast<double>(entry.samples);
    }
    per_episode.r2.push_back(metrics::r_squared(mean, targets, outputs));
  }
  /// Over the episodes in which a score is defined; none where there are no such episodes.
  static std::optional<Statistic> over_defined(const std::vector<double>& values) {
    metrics::Mean mean;
    for (const double v : values) {
      if (std::isfinite(v)) mean.add(v);
    }
    if (mean.count() == 0) return std::nullopt;
    return statistic(mean.estimate());
  }
  Score score(bool classify) const {
    Score s;
    s.name = name;
    s.inner_steps = inner_steps;
    s.per_episode = per_episode;
    if (classify) {
      s.accuracy = statistic(classification.accuracy());
      s.nll = statistic(classification.nll());
      s.brier = statistic(classification.brier());
      s.auroc = over_defined(per_episode.auroc);
      s.ece = classification.calibration().ece();
      for (const metrics::ReliabilityBin& b : classification.calibration().bins()) {
        s.calibration.push_back({b.low, b.high, b.count, b.confidence, b.accuracy});
      }
      return s;
    }
    s.mse = statistic(regression.mse());
    s.r2 = over_defined(per_episode.r2);
    if (regression.nll().count > 0) s.nll = statistic(regression.nll());
    const metrics::Coverage& coverage = regression.coverage();
    for (std::size_t i = 0; i < coverage.levels().size(); ++i) {
      const metrics::Estimate observed = coverage.observed(i);
      if (observed.count > 0) s.coverage.push_back({coverage.levels()[i], statistic(observed)});
    }
    return s;
  }
};

/// How many rows an episode has.
struct EpisodeRows {
  EpisodeRows(const EpisodePrediction& p, bool classify)
      : episode(p.episode),
        support(p.batch->support_n[static_cast<std::size_t>(p.slot)]),
        query(p.rows),
        ways(p.outputs_n) {
    if (!classify || support == 0) return;
    std::vector<int> counts(static_cast<std::size_t>(ways));
    for (const std::int32_t label : p.support_labels())
      ++counts.at(static_cast<std::size_t>(label));
    const auto [least, most] = std::ranges::minmax(counts);
    shots = {least, most};
  }

  /// Widens the ranges of an evaluation by this episode.
  void put(Evaluation& all) const {
    const bool first = all.scored.empty();
    const auto widen = [first](CountRange& range, int least, int most) {
      range = first ? CountRange{least, most}
                    : CountRange{std::min(range.least, least), std::max(range.most, most)};
    };
    widen(all.support, support, support);
    widen(all.query, query, query);
    widen(all.shots, shots.least, shots.most);
    widen(all.ways, ways, ways);
  }

  int episode, support, query, ways;
  CountRange shots;
};

std::string reason_to_leave_out(const Entry& entry, int episode) {
  if (entry.missing.empty() || entry.missing == not_applicable) return entry.missing;
  return fmt::format("episode {}: {}", episode, entry.missing);
}

bool has_norm(const Network& network) {
  for (const Layer& layer : network.layers()) {
    if (layer.type == LayerType::norm) return true;
  }
  return false;
}

}  // namespace

struct Evaluator::State {
  State(const fs::path& run, std::shared_ptr<const EpisodeSource> episodes, EvaluatorOptions opts)
      : options(std::move(opts)), checkpoint(Checkpoint::read(find_checkpoint(run))) {
    config =
        Config::parse(checkpoint.config.to_toml(), checkpoint.path.string(), options.overrides);
    if (!episodes) {
      config.check_data(checkpoint.path.string());
      config = locate_data(config, checkpoint);
      data = open_data(config);
      episodes = make_source(config, data, std::array{options.split});
    }
    source = std::move(episodes);
    if (!source->has(options.split)) {
      throw Error(fmt::format("the episodes ({}) have no {} split", source->describe(),
                              split_name(options.split)));
    }
    assembly = assemble(with_head_outputs(prediction_config(config), source->shape()),
                        options.device, options.threads);
    check_fit(config, *assembly.network, *source);
    load_parameters(assembly, checkpoint);
    if (data) changed_data = check_same_data(checkpoint, *data, options.allow_changed_data);
    plan_waves(*assembly.backend, assembly.config, source->shape());
    if (source->shape().support == 0) options.baselines = false;  // they learn from support rows
    scheduler =
        std::make_unique<Scheduler>(*assembly.backend, *assembly.algorithm, source->shape());
  }

  EvaluatorOptions options;
  Checkpoint checkpoint;
  Config config;
  std::shared_ptr<const io::Dataset> data;  ///< null for a source of the caller's own
  bool changed_data = false;                ///< another file than that of the training, as allowed
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
  const double noise = predictive_noise(s.assembly);
  const auto samples = static_cast<std::size_t>(predict.samples);

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
  predict_episodes(
      *s.scheduler, s.assembly.parameters, *s.source, s.config.evaluate.seed, s.options.split,
      s.config.evaluate.episodes, predict,
      [&](const EpisodePrediction& p) -> std::function<void()> {
        if (p.diverged) {
          return [&] {
            ++result.diverged;
            tick();
          };
        }
        const auto outputs = static_cast<std::size_t>(p.outputs_n);
        std::vector<Entry> entries;
        for (const std::vector<double>& raw : p.outputs) {
          if (!classify) {
            entries.push_back(
                {raw, samples,
                 p.std.empty() ? std::vector<double>(raw.size() / samples, noise) : p.std});
            continue;
          }
          Entry entry{std::vector<double>(raw.size() / samples)};
          metrics::mean_softmax(raw, samples, static_cast<std::size_t>(p.rows), outputs,
                                entry.values);
          entries.push_back(std::move(entry));
        }
        if (s.options.baselines) {
          for (Entry& entry : predict_baselines(p, classify)) entries.push_back(std::move(entry));
        }
        std::vector<std::int32_t> labels;
        std::vector<double> values;
        if (classify) {
          labels.assign(p.query_labels().begin(), p.query_labels().end());
        } else {
          values.assign(p.query_values().begin(), p.query_values().end());
        }
        return [&, entries = std::move(entries), labels = std::move(labels),
                values = std::move(values), outputs, rows = EpisodeRows(p, classify)] {
          for (std::size_t i = 0; i < entries.size(); ++i) {
            if (judged[i].left_out.empty()) {
              judged[i].left_out = reason_to_leave_out(entries[i], rows.episode);
            }
            if (!judged[i].left_out.empty()) continue;
            if (classify) {
              judged[i].add(
                  judged[i].classification.add_episode(entries[i].values, labels, outputs));
              if (outputs == 2) judged[i].add_auroc(entries[i].values, labels);
            } else {
              std::vector<double> spread = entries[i].noise;
              spread.resize(values.size(), 0.0);
              judged[i].add(judged[i].regression.add_episode(entries[i].values, entries[i].samples,
                                                             values, spread));
              judged[i].add_r2(entries[i], values, outputs);
            }
          }
          rows.put(result);
          result.scored.push_back(rows.episode);
          tick();
        };
      });
  if (progress) progress->finish();
  if (result.diverged == s.config.evaluate.episodes) {
    throw Error(fmt::format("all {} {} episodes diverged; likely cause: {}",
                            s.config.evaluate.episodes, split_name(s.options.split),
                            predict.steps > algorithm.steps()
                                ? fmt::format("evaluate.steps = {} is more than the {} inner steps "
                                              "of the training",
                                              predict.steps, algorithm.steps())
                                : algorithm.divergence_hint()));
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
  if (s.data) {
    const DataFile file = describe_data(*s.data);
    result.data_path = file.path;
    result.data_checksum = file.checksum;
    if (s.changed_data) result.trained_checksum = s.checkpoint.source.data->checksum;
  }
  result.norm_statistics =
      has_norm(*s.assembly.network) ? s.config.evaluate.norm_statistics : "none";
  result.device = device_text(*s.assembly.backend);
  for (const Judged& j : judged) {
    if (!j.left_out.empty()) {
      if (j.left_out != not_applicable) result.left_out.push_back({j.name, j.left_out});
      continue;
    }
    (j.inner_steps >= 0 ? result.steps : result.baselines).push_back(j.score(classify));
  }
  if (is_closed_form(s.config.algorithm)) result.steps.front().inner_steps = -1;  // it has none
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace kshot
