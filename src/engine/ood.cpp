#include "kshot/ood.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>

#include "config/schema.h"
#include "engine/checkpoint.h"
#include "engine/data_file.h"
#include "engine/ood_rows.h"
#include "episodes/sources.h"
#include "io/log.h"
#include "kshot/embedder.h"
#include "kshot/error.h"
#include "kshot/learner.h"
#include "metrics/classification.h"
#include "metrics/detection.h"
#include "metrics/metrics.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;

/// Tasks whose rows are held at once.
constexpr int tasks_at_once = 64;

/// Features in which distances are measured: those of the run's network where it has any that do
/// not depend on the task, else the inputs.
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

/// Means of the classes' support rows; of a regression the support rows themselves.
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

using Scores = std::vector<std::pair<std::string, std::vector<double>>>;

/// The scores of each row that a prediction gives.
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

/// Accuracy and calibration of rows whose labels are known.
struct Shift {
  explicit Shift(const Config& config)
      : metrics(static_cast<std::size_t>(config.evaluate.bins), config.evaluate.edges == "left"
                                                                    ? metrics::BinEdges::left
                                                                    : metrics::BinEdges::right) {}
  void add(const Prediction& p, const std::vector<std::int32_t>& labels) {
    metrics.add_episode(p.mean, labels, static_cast<std::size_t>(p.outputs));
  }
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

/// Collects the scores of the tasks.
class Collected {
 public:
  Collected(const Config& config, bool shifts)
      : shifts_(shifts), in_shift_(config), out_shift_(config) {}

  void add(const OodTask& task, const Prediction& in, const Prediction& out,
           const Features& features) {
    Scores known = scores_of(in), other = scores_of(out);
    if (!task.support_x.empty()) {
      const std::size_t inputs = task.in_x.size() / static_cast<std::size_t>(in.rows);
      const std::size_t width = features.width(inputs);
      const std::vector<double> prototypes =
          prototypes_of(task, features.of(task.support_x), width);
      const std::string name = in.classification ? "distance to prototypes" : "distance to support";
      known.emplace_back(name, nearest(features.of(task.in_x), prototypes, width));
      other.emplace_back(name, nearest(features.of(task.out_x), prototypes, width));
    }
    if (detections_.empty()) {
      for (const auto& [name, values] : known) detections_.push_back({name, {}});
    }
    for (std::size_t i = 0; i < detections_.size(); ++i) {
      detections_[i].second.add_episode(known.at(i).second, other.at(i).second);
    }
    in_rows_ += static_cast<std::size_t>(in.rows);
    out_rows_ += static_cast<std::size_t>(out.rows);
    if (!shifts_) return;
    in_shift_.add(in, task.in_labels);
    out_shift_.add(out, task.in_labels);
  }

  void finish(OodEvaluation& result) const {
    result.in_rows = in_rows_;
    result.out_rows = out_rows_;
    for (const auto& [name, detection] : detections_) {
      const metrics::DetectionStatistics s = detection.statistics(
          {.resamples = metrics::affordable_resamples(in_rows_ + out_rows_), .seed = result.seed});
      const metrics::Detection::Histogram h = detection.histogram();
      const auto interval = [](const metrics::Interval& i) {
        return IntervalScore{i.value, i.low, i.high};
      };
      result.scores.push_back({name, interval(s.auroc), interval(s.aupr), interval(s.fpr95), h.low,
                               h.high, h.known, h.other});
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

}  // namespace

OodEvaluation evaluate_ood(const fs::path& run, const std::string& kind,
                           const EvaluatorOptions& options) {
  const Checkpoint checkpoint = Checkpoint::read(find_checkpoint(run));
  Config config =
      Config::parse(checkpoint.config.to_toml(), checkpoint.path.string(), options.overrides);
  config.check_data(checkpoint.path.string());
  config = locate_data(config, checkpoint);
  const std::shared_ptr<const io::Dataset> data = open_data(config);
  if (data) check_same_data(checkpoint, *data, options.allow_changed_data);
  const OodTasks tasks(config, data, kind, options.split);
  LearnerOptions learning{.device = options.device,
                          .threads = options.threads,
                          .overrides = options.overrides,
                          .calibrated = options.calibrated,
                          .stop = options.stop};
  const Learner learner(run, learning);
  const Features features(run, options);
  const bool classify = config.loss.type == LossType::cross_entropy;
  OodEvaluation result;
  Collected collected(config, classify && tasks.keeps_labels());
  std::optional<io::Progress> progress;
  const int episodes = config.evaluate.episodes;
  if (options.progress) progress.emplace(static_cast<std::uint64_t>(episodes), "episodes");
  for (int first = 0; first < episodes; first += tasks_at_once) {
    std::vector<OodTask> drawn;
    std::vector<TaskRows> in, out;
    for (int e = first; e < std::min(first + tasks_at_once, episodes); ++e) {
      drawn.push_back(tasks.draw(config.evaluate.seed, options.split, e));
    }
    for (const OodTask& t : drawn) {
      const SupportRows support{t.support_x, t.support_labels, t.support_values,
                                classify ? t.ways : 0};
      in.push_back({support, t.in_x});
      out.push_back({support, t.out_x});
    }
    const std::vector<Prediction> known = learner.predict_many(in);
    const std::vector<Prediction> other = learner.predict_many(out);
    for (std::size_t i = 0; i < drawn.size(); ++i) {
      if (known[i].diverged || other[i].diverged) {
        ++result.diverged;
      } else {
        collected.add(drawn[i], known[i], other[i], features);
      }
      result.samples = known[i].samples;
      if (progress) progress->update(static_cast<std::uint64_t>(first) + i + 1);
    }
  }
  if (progress) progress->finish();
  if (result.diverged == episodes) throw Error(fmt::format("all {} episodes diverged", episodes));
  result.kind = kind;
  result.description = tasks.description();
  result.algorithm = schema::selector(config, "algorithm");
  result.checkpoint = checkpoint.path.string();
  result.step = checkpoint.state.step;
  result.source = tasks.source().describe();
  result.split = options.split;
  result.seed = config.evaluate.seed;
  result.episodes = episodes;
  result.features = features.describe();
  if (learner.calibration()) result.calibration = learner.calibration()->describe();
  collected.finish(result);
  return result;
}

}  // namespace kshot
