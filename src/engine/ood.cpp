#include "kshot/ood.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <optional>
#include <utility>

#include "base/log.h"
#include "config/schema.h"
#include "engine/checkpoint.h"
#include "engine/data_file.h"
#include "engine/divided_work.h"
#include "engine/ood_rows.h"
#include "engine/rank_checks.h"
#include "engine/scoring.h"
#include "episodes/sources.h"
#include "kshot/embedder.h"
#include "kshot/error.h"
#include "kshot/learner.h"
#include "metrics/classification.h"
#include "metrics/detection.h"
#include "metrics/metrics.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;

/// Number of episodes that are predicted together. The posterior samples of an episode are keyed by
/// its number among these.
constexpr std::size_t episodes_per_batch = 64;

/// The features in which distances are measured: those of the run's network, where it has features
/// that do not depend on the task, and the inputs otherwise.
class Features {
 public:
  Features(const fs::path& run, const EvaluatorOptions& options) {
    try {
      embedder_.emplace(run, EmbedderOptions{.device = options.device,
                                             .threads = options.threads,
                                             .overrides = options.overrides,
                                             .allow_changed_data = options.allow_changed_data});
      width_ = static_cast<std::size_t>(embedder_->network().outputs());
    } catch (const Error&) {
      embedder_.reset();  // LEO, or a network without a hidden layer
    }
  }
  std::string describe() const {
    return embedder_ ? fmt::format("the {} features of the network before adaptation", width_)
                     : std::string("the inputs");
  }
  std::vector<float> of(const std::vector<float>& x) const {
    return embedder_ ? embedder_->embed(x) : x;
  }
  std::size_t width(std::size_t inputs) const { return embedder_ ? width_ : inputs; }

 private:
  std::optional<Embedder> embedder_;
  std::size_t width_ = 0;
};

/// Squared distances of rows [n, width] to the nearest of some prototypes [m, width].
std::vector<double> nearest(const std::vector<float>& rows, const std::vector<double>& prototypes,
                            std::size_t width) {
  std::vector<double> distances;
  for (std::size_t at = 0; at < rows.size(); at += width) {
    double least = std::numeric_limits<double>::infinity();
    for (std::size_t p = 0; p < prototypes.size(); p += width) {
      double sum = 0.0;
      for (std::size_t i = 0; i < width; ++i) {
        const double d = static_cast<double>(rows[at + i]) - prototypes[p + i];
        sum += d * d;
      }
      least = std::min(least, sum);
    }
    distances.push_back(least);
  }
  return distances;
}

/// Means of the support rows of each class. For a regression, the support rows themselves.
std::vector<double> prototypes_of(const OodTask& task, const std::vector<float>& support,
                                  std::size_t width) {
  if (task.support_labels.empty()) return {support.begin(), support.end()};
  const auto ways = static_cast<std::size_t>(task.ways);
  std::vector<double> sums(ways * width);
  std::vector<double> counts(ways);
  for (std::size_t row = 0; row < task.support_labels.size(); ++row) {
    const auto c = static_cast<std::size_t>(task.support_labels[row]);
    counts[c] += 1.0;
    for (std::size_t i = 0; i < width; ++i) {
      sums[c * width + i] += static_cast<double>(support[row * width + i]);
    }
  }
  std::vector<double> prototypes;
  for (std::size_t c = 0; c < ways; ++c) {
    if (counts[c] == 0.0) continue;
    for (std::size_t i = 0; i < width; ++i) {
      prototypes.push_back(sums[c * width + i] / counts[c]);
    }
  }
  return prototypes;
}

/// One score of every row of an episode: `in` for its own query rows, `out` for those out of
/// distribution.
struct RowScores {
  std::string name;
  std::vector<double> in, out;
};
template <class Archive>
void fields(Archive& a, RowScores& s) {
  a(s.name, s.in, s.out);
}

/// The contribution of one episode to the evaluation.
struct OodEpisode {
  bool diverged = false;  ///< true: only `samples` follows
  int samples = 1;
  std::vector<RowScores> scores;
  std::size_t in_rows = 0, out_rows = 0;
  // Classification: probabilities [rows, classes] and the labels of the episode's own query rows.
  std::size_t classes = 0;
  std::vector<double> in_mean, out_mean;
  std::vector<std::int32_t> labels;
};
template <class Archive>
void fields(Archive& a, OodEpisode& e) {
  a(e.diverged, e.samples, e.scores, e.in_rows, e.out_rows, e.classes, e.in_mean, e.out_mean,
    e.labels);
}

using Scores = std::vector<std::pair<std::string, std::vector<double>>>;

/// Computes the scores of each row that a prediction gives.
Scores scores_of(const Prediction& p) {
  const auto rows = static_cast<std::size_t>(p.rows), outputs = static_cast<std::size_t>(p.outputs);
  Scores scores;
  std::vector<double> unsure, variance(rows, 0.0);
  for (std::size_t row = 0; row < rows; ++row) {
    const std::span<const double> mean = std::span(p.mean).subspan(row * outputs, outputs);
    if (p.classification) unsure.push_back(1.0 - *std::ranges::max_element(mean));
    for (std::size_t i = row * outputs; i < (row + 1) * outputs; ++i) {
      const double noise = p.classification           ? 0.0
                           : p.predictive_std.empty() ? p.noise_std
                                                      : p.predictive_std[i];
      variance[row] += p.std[i] * p.std[i] + noise * noise;
    }
  }
  if (p.classification) {
    scores.emplace_back("maximum probability", std::move(unsure));
    scores.emplace_back("entropy", p.entropy);
    if (p.samples > 1) scores.emplace_back("mutual information", p.mutual_information);
  }
  if (!p.classification || p.samples > 1) {
    scores.emplace_back("predictive variance", std::move(variance));
  }
  return scores;
}

/// The scores and predictions of an episode, from the predictions of both kinds of query rows.
OodEpisode scored(const OodTask& task, const Prediction& in, const Prediction& out,
                  const Features& features) {
  OodEpisode e;
  e.samples = in.samples;
  e.diverged = in.diverged || out.diverged;
  if (e.diverged) return e;
  Scores known = scores_of(in), other = scores_of(out);
  for (std::size_t i = 0; i < known.size(); ++i) {
    e.scores.push_back({known[i].first, std::move(known[i].second), std::move(other.at(i).second)});
  }
  if (!task.support_x.empty()) {
    const std::size_t inputs = task.in_x.size() / static_cast<std::size_t>(in.rows);
    const std::size_t width = features.width(inputs);
    const std::vector<double> prototypes = prototypes_of(task, features.of(task.support_x), width);
    e.scores.push_back({in.classification ? "distance to prototypes" : "distance to support",
                        nearest(features.of(task.in_x), prototypes, width),
                        nearest(features.of(task.out_x), prototypes, width)});
  }
  e.in_rows = static_cast<std::size_t>(in.rows);
  e.out_rows = static_cast<std::size_t>(out.rows);
  if (in.classification) {
    e.classes = static_cast<std::size_t>(in.outputs);
    e.in_mean = in.mean;
    e.out_mean = out.mean;
    e.labels = task.in_labels;
  }
  return e;
}

/// Accuracy and calibration of rows whose labels are known.
struct Shift {
  explicit Shift(const Config& config)
      : metrics(static_cast<std::size_t>(config.evaluate.bins), config.evaluate.edges == "left"
                                                                    ? metrics::BinEdges::left
                                                                    : metrics::BinEdges::right) {}
  ShiftScore score() const {
    const auto statistic = [](const metrics::Estimate& e) {
      Statistic s;
      s.mean = e.mean;
      s.half_width = e.half_width;
      s.episodes = e.count;
      return s;
    };
    return {statistic(metrics.accuracy()), statistic(metrics.nll()), metrics.calibration().ece()};
  }
  metrics::ClassificationMetrics metrics;
};

/// Collects the scores of the episodes.
class Collected {
 public:
  Collected(const Config& config, bool shifts)
      : shifts_(shifts), in_shift_(config), out_shift_(config) {}

  void add(const OodEpisode& e) {
    if (detections_.empty()) {
      for (const RowScores& s : e.scores) detections_.push_back({s.name, {}});
    }
    for (std::size_t i = 0; i < detections_.size(); ++i) {
      detections_[i].second.add_episode(e.scores.at(i).in, e.scores.at(i).out);
    }
    in_rows_ += e.in_rows;
    out_rows_ += e.out_rows;
    if (!shifts_) return;
    in_shift_.metrics.add_episode(e.in_mean, e.labels, e.classes);
    out_shift_.metrics.add_episode(e.out_mean, e.labels, e.classes);
  }

  void finish(OodEvaluation& result) const {
    result.in_rows = in_rows_;
    result.out_rows = out_rows_;
    for (const auto& [name, detection] : detections_) {
      const metrics::DetectionStatistics s = detection.statistics(
          {.resamples = metrics::affordable_resamples(in_rows_ + out_rows_), .seed = result.seed});
      const metrics::Detection::Histogram h = detection.histogram();
      result.scores.push_back({name, interval_score(s.auroc), interval_score(s.aupr),
                               interval_score(s.fpr95), h.low, h.high, h.known, h.other});
    }
    if (!shifts_) return;
    result.in_shift = in_shift_.score();
    result.out_shift = out_shift_.score();
  }

 private:
  bool shifts_;
  Shift in_shift_, out_shift_;
  std::vector<std::pair<std::string, metrics::Detection>> detections_;
  std::size_t in_rows_ = 0, out_rows_ = 0;
};

/// A run and the tasks that it is evaluated on.
struct OodRun {
  OodRun(const fs::path& run, const std::string& kind, const EvaluatorOptions& options)
      : checkpoint(Checkpoint::read(find_checkpoint(run))),
        config(Config::parse(checkpoint.config.to_toml(), checkpoint.path.string(),
                             options.overrides)) {
    config.check_data(checkpoint.path.string());
    config = locate_data(config, checkpoint);
    data = open_data(config);
    if (data) check_same_data(checkpoint, *data, options.allow_changed_data);
    tasks.emplace(config, data, kind, options.split);
    learner.emplace(run, LearnerOptions{.device = options.device,
                                        .threads = options.threads,
                                        .overrides = options.overrides,
                                        .calibrated = options.calibrated,
                                        .stop = options.stop});
    features.emplace(run, options);
    check_ranks(kind, options);
  }

  bool classify() const { return config.loss.type == LossType::cross_entropy; }

  void check_ranks(const std::string& kind, const EvaluatorOptions& options) const {
    if (!options.ranks) return;
    std::vector<RankFact> facts =
        work_facts(fmt::format("--ood {} of the {} split", kind, split_name(options.split)),
                   learner->device(), data ? describe_data(*data).checksum : "none");
    facts.push_back({"the step of the checkpoint", std::to_string(checkpoint.state.step)});
    facts.push_back({"the features", features->describe()});
    const std::optional<RunCalibration>& c = learner->calibration();
    facts.push_back({"the calibration", c ? c->describe() : "none"});
    check_same(options.ranks.get(), facts);
    check_same_config(options.ranks.get(), config);
  }

  /// Predicts episodes [first, last), which all lie in one range of episodes_per_batch episodes.
  template <class Put>
  void predict(Split split, std::size_t first, std::size_t last, const Put& put) const {
    std::vector<OodTask> drawn;
    std::vector<TaskRows> in, out;
    for (std::size_t e = first; e < last; ++e) {
      drawn.push_back(tasks->draw(config.evaluate.seed, split, static_cast<int>(e)));
    }
    for (const OodTask& t : drawn) {
      const SupportRows support{t.support_x, t.support_labels, t.support_values,
                                classify() ? t.ways : 0};
      in.push_back({support, t.in_x});
      out.push_back({support, t.out_x});
    }
    const int number = static_cast<int>(first % episodes_per_batch);
    const std::vector<Prediction> known = learner->predict_many(in, number);
    const std::vector<Prediction> other = learner->predict_many(out, number);
    for (std::size_t i = 0; i < drawn.size(); ++i) {
      put(scored(drawn[i], known[i], other[i], *features));
    }
  }

  Checkpoint checkpoint;
  Config config;
  std::shared_ptr<const data::Dataset> data;
  std::optional<OodTasks> tasks;
  std::optional<Learner> learner;
  std::optional<Features> features;
};

OodEvaluation evaluate(const fs::path& path, const std::string& kind,
                       const EvaluatorOptions& options) {
  Communicator* const ranks = options.ranks.get();
  const OodRun run(path, kind, options);
  const int episodes = run.config.evaluate.episodes;
  OodEvaluation result;
  Collected collected(run.config, run.classify() && run.tasks->keeps_labels());
  std::optional<Progress> progress;
  std::uint64_t done = 0;
  if (options.progress) progress.emplace(static_cast<std::uint64_t>(episodes), "episodes");
  const std::size_t size = ranks ? static_cast<std::size_t>(ranks->size()) : 1;
  const WorkDivision division{static_cast<std::size_t>(episodes), size * episodes_per_batch,
                              ranks ? backend::run_tasks : episodes_per_batch,
                              "scores of the episodes"};
  const auto work = [&](std::size_t first, std::size_t count, const auto& put) {
    for (std::size_t at = first; at < first + count;) {
      const std::size_t end =
          std::min(first + count, (at / episodes_per_batch + 1) * episodes_per_batch);
      run.predict(options.split, at, end, put);
      at = end;
    }
  };
  divide_work<OodEpisode>(ranks, division, work, [&](const OodEpisode& e) {
    result.samples = e.samples;
    if (e.diverged) {
      ++result.diverged;
    } else {
      collected.add(e);
    }
    if (progress) progress->update(++done);
  });
  if (progress) progress->finish();
  if (result.diverged == episodes) throw Error(fmt::format("all {} episodes diverged", episodes));
  result.kind = kind;
  result.description = run.tasks->description();
  result.algorithm = schema::selector(run.config, "algorithm");
  result.checkpoint = run.checkpoint.path.string();
  result.step = run.checkpoint.state.step;
  result.source = run.tasks->source().describe();
  result.split = options.split;
  result.seed = run.config.evaluate.seed;
  result.episodes = episodes;
  result.features = run.features->describe();
  if (run.learner->calibration()) result.calibration = run.learner->calibration()->describe();
  collected.finish(result);
  return result;
}

}  // namespace

OodEvaluation evaluate_ood(const fs::path& run, const std::string& kind,
                           const EvaluatorOptions& options) {
  Communicator* const ranks = options.ranks.get();
  EvaluatorOptions own = options;
  own.device = rank_device(options.device, ranks);
  own.threads = rank_threads(options.threads, ranks);
  own.progress = options.progress && is_rank_zero(ranks);
  return run_and_report_failure(ranks, [&] { return evaluate(run, kind, own); });
}

}  // namespace kshot
