#include "kshot/evaluator.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <functional>
#include <optional>

#include "base/log.h"
#include "engine/assembly.h"
#include "engine/baselines.h"
#include "engine/calibration.h"
#include "engine/checkpoint.h"
#include "engine/data_file.h"
#include "engine/decisions.h"
#include "engine/plan.h"
#include "engine/predictor.h"
#include "engine/rank_checks.h"
#include "engine/scheduler.h"
#include "engine/scoring.h"
#include "episodes/sources.h"
#include "kshot/error.h"
#include "kshot/stop.h"
#include "metrics/metrics.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;

/// The numbers of rows of an episode.
struct EpisodeRows {
  EpisodeRows() = default;
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

  int episode = 0, support = 0, query = 0, ways = 0;
  CountRange shots;
};
template <class Archive>
void fields(Archive& a, EpisodeRows& r) {
  a(r.episode, r.support, r.query, r.ways, r.shots.least, r.shots.most);
}

QueryTargets query_targets(const EpisodePrediction& p, bool classify) {
  QueryTargets targets;
  targets.outputs = static_cast<std::size_t>(p.outputs_n);
  if (classify) {
    targets.labels.assign(p.query_labels().begin(), p.query_labels().end());
  } else {
    targets.values.assign(p.query_values().begin(), p.query_values().end());
  }
  return targets;
}

/// Makes the network's prediction for an episode, as an entry, from its raw outputs.
class NetworkEntries {
 public:
  NetworkEntries(const Assembly& assembly, int samples, int outputs)
      : classify_(is_classification(assembly.config)),
        samples_(static_cast<std::size_t>(samples)),
        noise_(predictive_noise(assembly)),
        head_noise_(classify_ ? std::vector<double>() : head_noise(assembly, outputs)) {}

  Entry make(const EpisodePrediction& p, const std::vector<double>& raw) const {
    const std::size_t size = raw.size() / samples_;
    if (classify_) {
      Entry entry{std::vector<double>(size)};
      metrics::mean_softmax(raw, samples_, static_cast<std::size_t>(p.rows),
                            static_cast<std::size_t>(p.outputs_n), entry.values);
      return entry;
    }
    Entry entry{raw, samples_, p.std.empty() ? std::vector<double>(size, noise_) : p.std};
    if (!p.std.empty()) entry.observation_std = head_noise_;
    return entry;
  }
  EpisodeUncertainty uncertainty(const Entry& entry, const std::vector<double>& raw,
                                 const QueryTargets& targets) const {
    return classify_ ? classification_uncertainty(entry, raw, samples_, targets.outputs)
                     : regression_uncertainty(entry, targets);
  }

 private:
  bool classify_;
  std::size_t samples_;
  double noise_;
  std::vector<double> head_noise_;
};

/// Applies a fitted temperature or variance factor to a prediction.
Entry recalibrated(Entry entry, const RunCalibration& calibration, std::size_t outputs) {
  if (calibration.classification) {
    calibration.apply(entry.values, outputs);
    return entry;
  }
  calibration.stretch(entry.values, entry.samples);
  const double scale = std::sqrt(calibration.value);
  for (double& s : entry.noise) s *= scale;
  for (double& s : entry.observation_std) s *= scale;
  return entry;
}

/// A progress line that counts the finished episodes.
class EpisodeProgress {
 public:
  EpisodeProgress(bool shown, int episodes) {
    if (shown) line_.emplace(static_cast<std::uint64_t>(episodes), "episodes");
  }
  void tick() {
    if (line_) line_->update(++done_);
  }
  void finish() {
    if (line_) line_->finish();
  }

 private:
  std::optional<Progress> line_;
  std::uint64_t done_ = 0;
};

/// Warns where a run was trained on a source of the caller's own. The configuration does not
/// describe that source, and its [data] gives other tasks.
void warn_of_own_source(const Checkpoint& checkpoint) {
  // The data file's checksum is compared instead.
  if (checkpoint.config.data.source == DataKind::file) return;
  const std::string trained = checkpoint.source.description;
  const std::string described = make_source(checkpoint.config)->describe();
  if (trained.empty() || trained == described) return;
  log_warning(
      fmt::format("{} was trained on tasks of a program's own ({}), which the configuration does "
                  "not describe; the episodes here come from its [data] table: {}",
                  checkpoint.path.string(), trained, described));
}

/// An episode's predictions in the order of the methods, ready to be added to their scores.
struct ScoredEpisode {
  bool diverged = false;  ///< true: the other members are empty
  std::vector<Entry> entries;
  std::vector<EpisodeUncertainty> uncertainty;
  QueryTargets targets;
  EpisodeRows rows;
};
template <class Archive>
void fields(Archive& a, ScoredEpisode& s) {
  a(s.diverged, s.entries, s.uncertainty, s.targets, s.rows);
}

/// The numbers of one episode that a calibration is fitted to.
struct CalibrationEpisode {
  bool diverged = false;  ///< true: the other members are empty
  Entry entry;
  QueryTargets targets;
};
template <class Archive>
void fields(Archive& a, CalibrationEpisode& c) {
  a(c.diverged, c.entry, c.targets);
}

}  // namespace

struct Evaluator::State {
  State(const fs::path& run, std::shared_ptr<const EpisodeSource> episodes, EvaluatorOptions opts)
      : options(std::move(opts)), checkpoint(Checkpoint::read(find_checkpoint(run))) {
    config =
        Config::parse(checkpoint.config.to_toml(), checkpoint.path.string(), options.overrides);
    if (!episodes) {
      config.check_data(checkpoint.path.string());
      warn_of_own_source(checkpoint);
      config = locate_data(config, checkpoint);
      data = open_data(config);
      episodes = make_source(config, data, std::array{options.split});
    }
    source = std::move(episodes);
    if (!source->has(options.split)) {
      throw Error(fmt::format("the episodes ({}) have no {} split", source->describe(),
                              split_name(options.split)));
    }
    Communicator* const ranks = options.ranks.get();
    options.progress = options.progress && is_rank_zero(ranks);
    assembly = assemble(with_head_outputs(prediction_config(config), source->shape()),
                        rank_device(options.device, ranks), rank_threads(options.threads, ranks));
    if (options.calibrated) {
      calibration = RunCalibration::read(checkpoint.path);
      const PredictOptions predict = predict_options(config, *assembly.algorithm);
      calibration->check_fit(predict.steps, predict.samples);
    }
    check_ranks();
    assembly.backend->set_ranks(options.ranks);
    check_fit(config, *assembly.network, *source);
    load_parameters(assembly, checkpoint);
    if (data) changed_data = check_same_data(checkpoint, *data, options.allow_changed_data);
    plan_waves(*assembly.backend, assembly.config, source->shape());
    // Baselines learn from support rows.
    if (source->shape().support == 0) options.baselines = false;
    scheduler =
        std::make_unique<Scheduler>(*assembly.backend, *assembly.algorithm, source->shape());
  }

  void check_ranks() const {
    Communicator* const ranks = options.ranks.get();
    if (ranks == nullptr) return;
    std::vector<RankFact> facts =
        work_facts(split_name(options.split), device_text(*assembly.backend),
                   data ? describe_data(*data).checksum : "none");
    facts.push_back({"the step of the checkpoint", std::to_string(checkpoint.state.step)});
    facts.push_back({"the evaluation of baselines", options.baselines ? "on" : "off"});
    facts.push_back({"the calibration", calibration ? calibration->describe() : "none"});
    for (RankFact& fact : backend_facts(*assembly.backend)) facts.push_back(std::move(fact));
    check_same(ranks, facts);
    check_same_config(ranks, config);
  }
  ScoringOptions scoring() const {
    const Config::EvaluateTable& e = config.evaluate;
    return {.classify = is_classification(config),
            .uncertainty = {.bins = static_cast<std::size_t>(e.bins),
                            .edges = e.edges == "left" ? metrics::BinEdges::left
                                                       : metrics::BinEdges::right,
                            .risk = e.risk},
            .seed = e.seed};
  }
  EpisodeRange episodes() const {
    return {config.evaluate.seed, options.split, config.evaluate.episodes};
  }
  /// Empty scores of the network after each inner step, of its calibrated predictions, and of the
  /// baselines.
  std::vector<MethodScores> methods(int steps) const;
  /// Computes the predictions of all methods for an episode. Runs on worker threads.
  ScoredEpisode score(const EpisodePrediction& p, const NetworkEntries& network) const;
  Evaluation run();
  RunCalibration calibrate(double confidence);
  /// Throws Error where all episodes diverged.
  void check_some_left(int diverged, int steps) const;
  void describe_run(Evaluation& result) const;
  /// Predicts the episodes of a seed after the last inner step, and calls `use` for them in their
  /// order. Returns the number of diverged episodes. Throws Error where all diverged.
  int predict_last(std::uint64_t seed, EpisodeProgress& progress,
                   const std::function<void(Entry entry, const QueryTargets& targets)>& use);

  EvaluatorOptions options;
  Checkpoint checkpoint;
  Config config;
  std::shared_ptr<const data::Dataset> data;  ///< null for a source of the caller's own
  /// True for another file than that of the training, which the options allow.
  bool changed_data = false;
  std::shared_ptr<const EpisodeSource> source;
  Assembly assembly;
  std::unique_ptr<Scheduler> scheduler;
  std::optional<RunCalibration> calibration;
};

std::vector<MethodScores> Evaluator::State::methods(int steps) const {
  const std::string name = assembly.algorithm->name();
  const ScoringOptions options_of = scoring();
  std::vector<MethodScores> all;
  for (int k = 0; k <= steps; ++k) all.emplace_back(name, k, k == steps, options_of);
  if (calibration) all.emplace_back(name + ", calibrated", steps, true, options_of);
  if (options.baselines) {
    for (const std::string& baseline : baseline_names(options_of.classify)) {
      all.emplace_back(baseline, -1, true, options_of);
    }
  }
  return all;
}

ScoredEpisode Evaluator::State::score(const EpisodePrediction& p,
                                      const NetworkEntries& network) const {
  const bool classify = is_classification(config);
  ScoredEpisode scored;
  scored.targets = query_targets(p, classify);
  const auto put = [&](Entry entry, EpisodeUncertainty uncertainty) {
    scored.entries.push_back(std::move(entry));
    scored.uncertainty.push_back(std::move(uncertainty));
  };
  for (const std::vector<double>& raw : p.outputs) {
    Entry entry = network.make(p, raw);
    // The CRPS of many samples takes long, so that it is computed for the last step only.
    const bool complete = classify || &raw == &p.outputs.back();
    EpisodeUncertainty u =
        complete ? network.uncertainty(entry, raw, scored.targets) : EpisodeUncertainty{};
    put(std::move(entry), std::move(u));
  }
  if (calibration) {
    Entry entry = recalibrated(scored.entries.back(), *calibration, scored.targets.outputs);
    // Samples have no temperature of their own, so that there is no mutual information.
    EpisodeUncertainty u = network.uncertainty(entry, {}, scored.targets);
    put(std::move(entry), std::move(u));
  }
  if (options.baselines) {
    for (Entry& entry : predict_baselines(p, classify)) {
      EpisodeUncertainty u = classify
                                 ? classification_uncertainty(entry, {}, 1, scored.targets.outputs)
                                 : regression_uncertainty(entry, scored.targets);
      put(std::move(entry), std::move(u));
    }
  }
  return scored;
}

void Evaluator::State::check_some_left(int diverged, int steps) const {
  if (diverged < config.evaluate.episodes) return;
  const Algorithm& algorithm = *assembly.algorithm;
  throw Error(fmt::format("all {} {} episodes diverged; likely cause: {}", config.evaluate.episodes,
                          split_name(options.split),
                          steps > algorithm.steps()
                              ? fmt::format("evaluate.steps = {} is more than the {} inner steps "
                                            "of the training",
                                            steps, algorithm.steps())
                              : algorithm.divergence_hint()));
}

void Evaluator::State::describe_run(Evaluation& result) const {
  result.algorithm = assembly.algorithm->name();
  result.checkpoint = checkpoint.path.string();
  result.step = checkpoint.state.step;
  result.source = source->describe();
  result.split = options.split;
  result.shape = source->shape();
  result.seed = config.evaluate.seed;
  result.episodes = config.evaluate.episodes;
  result.samples = predict_options(config, *assembly.algorithm).samples;
  result.bins = config.evaluate.bins;
  result.edges = config.evaluate.edges;
  result.risk = config.evaluate.risk;
  if (calibration) {
    result.calibration =
        fmt::format("{}, fitted on {} {} episodes", calibration->describe(),
                    calibration->episodes - calibration->diverged, split_name(calibration->split));
  }
  if (data) {
    const DataFile file = describe_data(*data);
    result.data_path = file.path;
    result.data_checksum = file.checksum;
    if (changed_data) result.trained_checksum = checkpoint.source.data->checksum;
  }
  result.norm_statistics = has_norm(*assembly.network) ? config.evaluate.norm_statistics : "none";
  result.device = device_text(*assembly.backend);
}

Evaluator::Evaluator(const fs::path& run, EvaluatorOptions options)
    : Evaluator(run, nullptr, std::move(options)) {}
Evaluator::Evaluator(const fs::path& run, std::shared_ptr<const EpisodeSource> source,
                     EvaluatorOptions options)
    : state_(run_and_report_failure(std::shared_ptr<Communicator>(options.ranks).get(), [&] {
        return std::make_unique<State>(run, std::move(source), std::move(options));
      })) {}
Evaluator::~Evaluator() = default;
Evaluator::Evaluator(Evaluator&&) noexcept = default;
Evaluator& Evaluator::operator=(Evaluator&&) noexcept = default;

const Config& Evaluator::config() const {
  return state_->config;
}

Evaluation Evaluator::run() {
  return run_and_report_failure(state_->options.ranks.get(), [&] { return state_->run(); });
}

RunCalibration Evaluator::calibrate(double confidence) {
  return run_and_report_failure(state_->options.ranks.get(),
                                [&] { return state_->calibrate(confidence); });
}

Evaluation Evaluator::State::run() {
  State& s = *this;
  const auto start = std::chrono::steady_clock::now();
  const bool classify = is_classification(s.config);
  const PredictOptions predict = predict_options(s.config, *s.assembly.algorithm);
  const NetworkEntries network(s.assembly, predict.samples, s.source->shape().outputs);
  std::vector<MethodScores> methods = s.methods(predict.steps);
  const std::size_t calibrated = static_cast<std::size_t>(predict.steps) + 1;
  std::optional<DecisionScores> decisions;
  if (s.calibration) decisions.emplace(*s.calibration, s.config.evaluate.risk);
  Evaluation result;
  EpisodeProgress progress(s.options.progress, s.config.evaluate.episodes);
  const auto work = [&](const EpisodePrediction& p) {
    ScoredEpisode scored;
    scored.diverged = p.diverged;
    if (p.diverged) return scored;
    scored = s.score(p, network);
    scored.rows = EpisodeRows(p, classify);
    return scored;
  };
  const auto take = [&](const ScoredEpisode& scored) {
    progress.tick();
    if (scored.diverged) return void(++result.diverged);
    for (std::size_t i = 0; i < methods.size(); ++i) {
      methods[i].add(scored.rows.episode, scored.entries[i], scored.uncertainty[i], scored.targets);
    }
    if (decisions) decisions->add(scored.entries[calibrated], scored.targets);
    scored.rows.put(result);
    result.scored.push_back(scored.rows.episode);
  };
  predict_episodes(*s.scheduler, s.assembly.parameters, *s.source, s.episodes(), predict, work,
                   take, s.options.stop);
  progress.finish();
  s.check_some_left(result.diverged, predict.steps);
  s.describe_run(result);
  if (decisions) decisions->finish(result, s.config.evaluate.seed);
  for (std::size_t i = 0; i < methods.size(); ++i) {
    const MethodScores& m = methods[i];
    if (s.options.stop && s.options.stop()) throw Stopped();  // intervals take a while
    if (!m.left_out().empty()) {
      if (m.left_out() != not_applicable) result.left_out.push_back({m.name(), m.left_out()});
      continue;
    }
    (m.is_baseline() ? result.baselines : result.steps).push_back(m.score());
    if (i == calibrated && s.calibration) result.steps.back().calibrated = true;
  }
  if (is_closed_form(s.config.algorithm)) {
    // A closed-form head has no inner steps.
    for (Score& score : result.steps) score.inner_steps = -1;
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

int Evaluator::State::predict_last(
    std::uint64_t seed, EpisodeProgress& progress,
    const std::function<void(Entry entry, const QueryTargets& targets)>& use) {
  PredictOptions predict = predict_options(config, *assembly.algorithm);
  predict.every_step = false;
  const bool classify = is_classification(config);
  const NetworkEntries network(assembly, predict.samples, source->shape().outputs);
  int diverged = 0;
  const auto work = [&](const EpisodePrediction& p) {
    CalibrationEpisode episode;
    episode.diverged = p.diverged;
    if (p.diverged) return episode;
    episode.entry = network.make(p, p.outputs.back());
    episode.targets = query_targets(p, classify);
    return episode;
  };
  const auto take = [&](CalibrationEpisode episode) {
    progress.tick();
    if (episode.diverged) return void(++diverged);
    use(std::move(episode.entry), episode.targets);
  };
  predict_episodes(*scheduler, assembly.parameters, *source,
                   {seed, options.split, config.evaluate.episodes}, predict, work, take,
                   options.stop);
  check_some_left(diverged, predict.steps);
  return diverged;
}

RunCalibration Evaluator::State::calibrate(double confidence) {
  State& s = *this;
  const PredictOptions predict = predict_options(s.config, *s.assembly.algorithm);
  const bool classify = is_classification(s.config);
  RunCalibration result;
  result.seed = s.config.evaluate.seed;
  result.decision_seed = result.seed + 1;
  EpisodeProgress progress(s.options.progress, 2 * s.config.evaluate.episodes);
  CalibrationFit fit(s.scoring());
  std::vector<std::pair<Entry, QueryTargets>> first;
  result.diverged = s.predict_last(result.seed, progress, [&](Entry entry, const QueryTargets& t) {
    fit.add(entry, t);
    if (classify) first.emplace_back(std::move(entry), t);
  });
  fit.finish(result);
  // Decisions are tested on other episodes, so that the tests are independent of what was fitted
  // and chosen.
  DecisionFit decisions(classify);
  for (auto& [entry, targets] : first) {
    decisions.add_choosing(recalibrated(std::move(entry), result, targets.outputs), targets);
  }
  s.predict_last(result.decision_seed, progress, [&](Entry entry, const QueryTargets& t) {
    decisions.add_testing(recalibrated(std::move(entry), result, t.outputs), t);
  });
  decisions.finish(result, confidence);
  progress.finish();
  result.checkpoint = s.checkpoint.path.filename().string();
  result.checkpoint_checksum = file_checksum(s.checkpoint.path);
  result.step = s.checkpoint.state.step;
  result.inner_steps = predict.steps;
  result.samples = predict.samples;
  result.source = s.source->describe();
  result.split = s.options.split;
  result.episodes = s.config.evaluate.episodes;
  return result;
}

}  // namespace kshot
