#include "engine/scoring.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <utility>

#include "metrics/bootstrap.h"

namespace kshot {
namespace {

double entropy(std::span<const double> p) {
  double h = 0.0;
  for (const double x : p) {
    if (x > 0.0) h -= x * std::log(x);
  }
  return h;
}

std::string reason_to_leave_out(const Entry& entry, int episode) {
  if (entry.missing.empty() || entry.missing == not_applicable) return entry.missing;
  return fmt::format("episode {}: {}", episode, entry.missing);
}

/// Sets probabilities that rounding has put beyond 1 to 1.
std::vector<double> at_most_one(std::vector<double> probabilities) {
  for (double& p : probabilities) {
    if (p > 1.0 && p < 1.0 + 1e-9) p = 1.0;
  }
  return probabilities;
}

/// R2 of the mean of the samples. Entry::values is [samples, rows, outputs].
double r_squared(const Entry& entry, const QueryTargets& targets) {
  std::vector<double> mean(targets.values.size(), 0.0);
  for (std::size_t i = 0; i < entry.values.size(); ++i) {
    mean[i % mean.size()] += entry.values[i] / static_cast<double>(entry.samples);
  }
  return metrics::r_squared(mean, targets.values, targets.outputs);
}

/// Keeps at most 200 points: those that first reach each of 199 equal steps of coverage, and the
/// last one.
std::vector<RiskCoveragePoint> thinned(const std::vector<metrics::RiskPoint>& points) {
  std::vector<RiskCoveragePoint> kept;
  double next = 0.0;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const metrics::RiskPoint& p = points[i];
    if (p.coverage + 1e-12 < next && i + 1 < points.size()) continue;
    kept.push_back({p.threshold, p.coverage, p.risk});
    next = (std::floor(199.0 * p.coverage + 1e-9) + 1.0) / 199.0;
  }
  return kept;
}

UncertaintyScores uncertainty_scores(const metrics::EpisodeAnswers& answers, std::uint64_t seed) {
  const metrics::UncertaintyStatistics s = answers.statistics(
      {.resamples = metrics::affordable_resamples(answers.work()), .seed = seed});
  UncertaintyScores scores;
  scores.ece = interval_score(s.ece);
  scores.mce = interval_score(s.mce);
  scores.ece_equal_mass = interval_score(s.ece_equal_mass);
  scores.classwise_ece = interval_score(s.classwise_ece);
  scores.brier_reliability = interval_score(s.brier_reliability);
  scores.brier_resolution = interval_score(s.brier_resolution);
  scores.brier_uncertainty = interval_score(s.brier_uncertainty);
  scores.brier_within_bin = interval_score(s.brier_within_bin);
  scores.aurc = interval_score(s.aurc);
  scores.risk_at_coverage = interval_score(s.risk_at_coverage);
  scores.coverage_at_risk = interval_score(s.coverage_at_risk);
  scores.curve = thinned(metrics::RiskCoverage(answers.answers()).points());
  return scores;
}

/// The mean over the episodes in which a score is defined.
std::optional<Statistic> over_defined(const std::vector<double>& values) {
  metrics::Mean mean;
  for (const double v : values) {
    if (std::isfinite(v)) mean.add(v);
  }
  if (mean.count() == 0) return std::nullopt;
  const metrics::Estimate e = mean.estimate();
  return Statistic{e.mean, e.half_width, e.count};
}

using Averaged = std::pair<Statistic*, const std::vector<double>*>;

/// Sets bootstrap intervals of means over episodes, all from the same resamples. Episodes in which
/// a score is not defined do not count.
void put_intervals(std::span<const Averaged> means, std::uint64_t seed) {
  std::size_t episodes = 0;
  for (const Averaged& m : means) episodes = std::max(episodes, m.second->size());
  // A score that some episodes do not have at all (no density) cannot share the resamples.
  std::vector<Averaged> complete;
  for (const Averaged& m : means) {
    if (m.second->size() == episodes) complete.push_back(m);
  }
  const auto statistics = [&](std::span<const std::uint32_t> weights, std::span<double> values) {
    for (std::size_t i = 0; i < complete.size(); ++i) {
      double sum = 0.0, count = 0.0;
      for (std::size_t e = 0; e < episodes; ++e) {
        const double value = (*complete[i].second)[e];
        if (weights[e] == 0 || !std::isfinite(value)) continue;
        sum += weights[e] * value;
        count += weights[e];
      }
      values[i] = sum / count;
    }
  };
  const std::vector<metrics::Interval> intervals = metrics::bootstrap_all(
      episodes, complete.size(), statistics,
      {.resamples = metrics::affordable_resamples(episodes * (complete.size() + 1)), .seed = seed});
  for (std::size_t i = 0; i < complete.size(); ++i) {
    complete[i].first->low = intervals[i].low;
    complete[i].first->high = intervals[i].high;
  }
}

}  // namespace

EpisodeUncertainty classification_uncertainty(const Entry& entry, std::span<const double> logits,
                                              std::size_t samples, std::size_t classes) {
  EpisodeUncertainty u;
  if (!entry.missing.empty()) return u;
  const std::size_t rows = entry.values.size() / classes;
  u.entropy = 0.0;
  for (std::size_t r = 0; r < rows; ++r) {
    u.entropy += entropy(std::span(entry.values).subspan(r * classes, classes));
  }
  u.entropy /= static_cast<double>(rows);
  if (samples < 2 || logits.empty()) return u;
  double expected = 0.0;
  std::vector<double> p(classes);
  for (std::size_t i = 0; i < samples * rows; ++i) {
    metrics::softmax(logits.subspan(i * classes, classes), p);
    expected += entropy(p);
  }
  u.mutual_information = std::max(0.0, u.entropy - expected / static_cast<double>(samples * rows));
  return u;
}

EpisodeUncertainty regression_uncertainty(const Entry& entry, const QueryTargets& targets) {
  EpisodeUncertainty u;
  if (!entry.missing.empty()) return u;
  const std::size_t size = targets.values.size();
  const auto n = static_cast<double>(size);
  const auto std_of = [&](std::size_t i) { return entry.noise.empty() ? 0.0 : entry.noise[i]; };
  bool noisy = !entry.noise.empty();
  for (const double s : entry.noise) noisy = noisy && s > 0.0;
  const bool has_variance = entry.samples > 1 || noisy;
  u.crps = 0.0;
  double sharpness = 0.0, epistemic = 0.0, aleatoric = 0.0;
  std::vector<double> means(entry.samples);
  for (std::size_t i = 0; i < size; ++i) {
    for (std::size_t s = 0; s < entry.samples; ++s) means[s] = entry.values[s * size + i];
    const double std = noisy ? std_of(i) : 0.0;
    u.crps += metrics::crps_mixture(targets.values[i], means, std) / n;
    if (!has_variance) continue;
    const double total = metrics::mixture_std(means, std);
    sharpness += total / n;
    const double noise =
        entry.observation_std.empty() ? std : entry.observation_std[i % targets.outputs];
    aleatoric += noise * noise / n;
    epistemic += std::max(0.0, total * total - noise * noise) / n;
    u.pit.push_back(metrics::pit_mixture(targets.values[i], means, std));
  }
  if (!has_variance) return u;
  u.sharpness = sharpness;
  // The variance of a point with observation noise, or of a baseline, has no parts.
  if (entry.samples > 1 || !entry.observation_std.empty()) {
    u.epistemic_variance = epistemic;
    u.aleatoric_variance = aleatoric;
  }
  return u;
}

MethodScores::MethodScores(std::string name, int inner_steps, bool complete,
                           const ScoringOptions& options)
    : name_(std::move(name)),
      inner_steps_(inner_steps),
      complete_(complete),
      options_(options),
      classification_(options.uncertainty.bins, options.uncertainty.edges),
      answers_(options.uncertainty) {}

void MethodScores::add(int episode, const Entry& entry, const EpisodeUncertainty& uncertainty,
                       const QueryTargets& targets) {
  if (left_out_.empty()) left_out_ = reason_to_leave_out(entry, episode);
  if (!left_out_.empty()) return;
  if (options_.classify) {
    add_classification(entry, targets);
  } else {
    add_regression(entry, targets);
  }
  const auto put = [](std::vector<double>& values, double value) {
    if (std::isfinite(value)) values.push_back(value);
  };
  put(per_episode_.entropy, uncertainty.entropy);
  put(per_episode_.mutual_information, uncertainty.mutual_information);
  put(per_episode_.crps, uncertainty.crps);
  put(per_episode_.sharpness, uncertainty.sharpness);
  put(per_episode_.epistemic_variance, uncertainty.epistemic_variance);
  put(per_episode_.aleatoric_variance, uncertainty.aleatoric_variance);
  if (complete_) {
    for (const double p : uncertainty.pit) pit_.add(p);
  }
}

void MethodScores::add_classification(const Entry& entry, const QueryTargets& targets) {
  const metrics::ClassificationScore s =
      classification_.add_episode(entry.values, targets.labels, targets.outputs);
  per_episode_.accuracy.push_back(s.accuracy);
  per_episode_.nll.push_back(s.nll);
  per_episode_.brier.push_back(s.brier);
  if (targets.outputs == 2) {
    per_episode_.auroc.push_back(metrics::class_auroc(entry.values, targets.labels, 2, 1));
  }
  if (!complete_) return;
  const std::vector<double> probabilities = at_most_one(entry.values);
  answers_.add_episode(probabilities, targets.labels, targets.outputs);
  per_episode_.aurc.push_back(
      metrics::RiskCoverage(metrics::answers(probabilities, targets.labels, targets.outputs))
          .aurc());
}

void MethodScores::add_regression(const Entry& entry, const QueryTargets& targets) {
  std::vector<double> noise = entry.noise;
  noise.resize(targets.values.size(), 0.0);
  const metrics::RegressionScore s =
      regression_.add_episode(entry.values, entry.samples, targets.values, noise);
  per_episode_.mse.push_back(s.mse);
  if (std::isfinite(s.nll)) per_episode_.nll.push_back(s.nll);
  per_episode_.r2.push_back(r_squared(entry, targets));
  per_episode_.coverage.resize(std::max(per_episode_.coverage.size(), s.coverage.size()));
  for (std::size_t i = 0; i < s.coverage.size(); ++i) {
    per_episode_.coverage[i].push_back(s.coverage[i]);
  }
}

void MethodScores::put_classification(Score& score) const {
  score.accuracy = over_defined(per_episode_.accuracy);
  score.brier = over_defined(per_episode_.brier);
  score.auroc = over_defined(per_episode_.auroc);
  score.entropy = over_defined(per_episode_.entropy);
  score.mutual_information = over_defined(per_episode_.mutual_information);
  score.ece = classification_.calibration().ece();
  for (const metrics::ReliabilityBin& b : classification_.calibration().bins()) {
    score.calibration.push_back({b.low, b.high, b.count, b.confidence, b.accuracy});
  }
  if (complete_) score.uncertainty = uncertainty_scores(answers_, options_.seed);
}

void MethodScores::put_regression(Score& score) const {
  score.mse = over_defined(per_episode_.mse);
  score.r2 = over_defined(per_episode_.r2);
  score.crps = over_defined(per_episode_.crps);
  score.sharpness = over_defined(per_episode_.sharpness);
  score.epistemic_variance = over_defined(per_episode_.epistemic_variance);
  score.aleatoric_variance = over_defined(per_episode_.aleatoric_variance);
  const std::vector<double>& levels = regression_.coverage().levels();
  for (std::size_t i = 0; i < per_episode_.coverage.size(); ++i) {
    score.coverage.push_back({levels[i], *over_defined(per_episode_.coverage[i])});
  }
  if (complete_ && pit_.total() > 0) score.pit = pit_.counts();
}

Score MethodScores::score() const {
  Score s;
  s.name = name_;
  s.inner_steps = inner_steps_;
  s.per_episode = per_episode_;
  s.nll = over_defined(per_episode_.nll);
  if (options_.classify) {
    put_classification(s);
  } else {
    put_regression(s);
  }
  if (!complete_) return s;
  std::vector<Averaged> means;
  const EpisodeScores& e = per_episode_;
  for (const auto& [statistic, values] :
       {std::pair{&s.accuracy, &e.accuracy}, std::pair{&s.nll, &e.nll},
        std::pair{&s.brier, &e.brier}, std::pair{&s.auroc, &e.auroc},
        std::pair{&s.entropy, &e.entropy}, std::pair{&s.mutual_information, &e.mutual_information},
        std::pair{&s.mse, &e.mse}, std::pair{&s.r2, &e.r2}, std::pair{&s.crps, &e.crps},
        std::pair{&s.sharpness, &e.sharpness},
        std::pair{&s.epistemic_variance, &e.epistemic_variance},
        std::pair{&s.aleatoric_variance, &e.aleatoric_variance}}) {
    if (*statistic) means.emplace_back(&**statistic, values);
  }
  for (std::size_t i = 0; i < s.coverage.size(); ++i) {
    means.emplace_back(&s.coverage[i].observed, &e.coverage[i]);
  }
  put_intervals(means, options_.seed);
  return s;
}

}  // namespace kshot
