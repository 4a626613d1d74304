#include "engine/decisions.h"

#include <algorithm>
#include <cmath>

#include "metrics/bootstrap.h"
#include "metrics/classification.h"
#include "metrics/metrics.h"

namespace kshot {
namespace {

/// Confidences of the predicted classes, and whether they are right.
struct Answers {
  Answers(const Entry& entry, const QueryTargets& targets) {
    for (const metrics::Answer& a :
         metrics::answers(entry.values, targets.labels, targets.outputs)) {
      confidences.push_back(a.confidence);
      right.push_back(a.right);
    }
  }
  std::vector<double> confidences;
  std::vector<bool> right;
};

/// The conformal score of each row.
std::vector<double> conformal_scores(const Entry& entry, const QueryTargets& targets,
                                     bool classify) {
  std::vector<double> scores;
  const std::size_t outputs = targets.outputs;
  if (classify) {
    for (std::size_t row = 0; row < targets.labels.size(); ++row) {
      scores.push_back(1.0 -
                       entry.values[row * outputs + static_cast<std::size_t>(targets.labels[row])]);
    }
    return scores;
  }
  const PredictiveMoments m = predictive_moments(entry);
  for (std::size_t i = 0; i < targets.values.size(); ++i) {
    const double score = std::abs(targets.values[i] - m.mean[i]) / m.std[i];
    if (i % outputs == 0) {
      scores.push_back(score);
    } else {
      scores.back() = std::max(scores.back(), score);
    }
  }
  return scores;
}

std::vector<double> risk_bounds() {
  std::vector<double> bounds = {0.001, 0.002};
  for (int i = 1; i < 20; ++i) bounds.push_back(i / 200.0);
  for (int i = 10; i <= 50; ++i) bounds.push_back(i / 100.0);
  return bounds;
}

std::vector<double> set_levels() {
  std::vector<double> levels;
  for (int i = 50; i < 100; ++i) levels.push_back(i / 100.0);
  levels.insert(levels.end(), {0.995, 0.998, 0.999});
  return levels;
}

}  // namespace

PredictiveMoments predictive_moments(const Entry& entry) {
  const std::size_t size = entry.values.size() / entry.samples;
  PredictiveMoments m{std::vector<double>(size), std::vector<double>(size)};
  for (std::size_t i = 0; i < size; ++i) {
    metrics::Mean over_samples;
    for (std::size_t s = 0; s < entry.samples; ++s) over_samples.add(entry.values[s * size + i]);
    const double between = entry.samples > 1 ? over_samples.standard_deviation() : 0.0;
    m.mean[i] = over_samples.mean();
    m.std[i] = std::hypot(between, entry.noise.empty() ? 0.0 : entry.noise[i]);
  }
  return m;
}

void DecisionFit::add_choosing(const Entry& entry, const QueryTargets& targets) {
  if (!classify_) return;
  const Answers a(entry, targets);
  selective_.add_choosing(a.confidences, a.right);
}

void DecisionFit::add_testing(const Entry& entry, const QueryTargets& targets) {
  scores_.push_back(conformal_scores(entry, targets, classify_));
  if (!classify_) return;
  const Answers a(entry, targets);
  selective_.add_testing(a.confidences, a.right);
}

void DecisionFit::finish(RunCalibration& result, double confidence) const {
  result.confidence = confidence;
  result.decision_episodes = static_cast<int>(scores_.size());
  if (classify_) {
    for (const double risk : risk_bounds()) {
      result.thresholds.push_back(selective_.threshold(risk, confidence));
    }
  }
  for (const double level : set_levels()) {
    result.quantiles.push_back({level, conformal_quantile(scores_, level)});
  }
}

DecisionScores::DecisionScores(const RunCalibration& calibration, double risk)
    : classify_(calibration.classification) {
  std::vector<double> bounds = {0.01, 0.02, 0.05, 0.1, 0.2, risk};
  std::ranges::sort(bounds);
  bounds.erase(std::unique(bounds.begin(), bounds.end()), bounds.end());
  for (const double bound : bounds) {
    const auto same = std::ranges::find_if(calibration.thresholds, [&](const RiskThreshold& t) {
      return std::abs(t.risk - bound) < 1e-9;
    });
    if (same != calibration.thresholds.end()) risks_.push_back(*same);
  }
  for (const double level : {0.8, 0.9, 0.95, 0.99}) {
    const auto same = std::ranges::find_if(calibration.quantiles, [&](const ConformalQuantile& q) {
      return std::abs(q.level - level) < 1e-9;
    });
    if (same != calibration.quantiles.end()) sets_.push_back(*same);
  }
}

void DecisionScores::add(const Entry& entry, const QueryTargets& targets) {
  const std::vector<double> scores = conformal_scores(entry, targets, classify_);
  const double row = 1.0 / static_cast<double>(scores.size());
  Shares s{std::vector<double>(risks_.size()), std::vector<double>(risks_.size()),
           std::vector<double>(sets_.size()), std::vector<double>(sets_.size())};
  if (classify_) {
    const Answers answers(entry, targets);
    for (std::size_t i = 0; i < answers.right.size(); ++i) {
      for (std::size_t k = 0; k < risks_.size(); ++k) {
        if (!risks_[k].threshold || answers.confidences[i] < *risks_[k].threshold) continue;
        s.answered[k] += row;
        if (!answers.right[i]) s.wrong[k] += row;
      }
      const std::span<const double> p =
          std::span(entry.values).subspan(i * targets.outputs, targets.outputs);
      for (std::size_t k = 0; k < sets_.size(); ++k) {
        const std::vector<bool> in = prediction_set(p, sets_[k].score);
        s.size[k] += row * static_cast<double>(std::ranges::count(in, true));
        if (in[static_cast<std::size_t>(targets.labels[i])]) s.covered[k] += row;
      }
    }
  } else {
    const std::vector<double> std = predictive_moments(entry).std;
    double mean_std = 0.0;
    for (const double v : std) mean_std += v / static_cast<double>(std.size());
    for (std::size_t k = 0; k < sets_.size(); ++k) {
      for (const double score : scores) s.covered[k] += score <= sets_[k].score ? row : 0.0;
      s.size[k] = 2.0 * sets_[k].score * mean_std;
    }
  }
  episodes_.push_back(std::move(s));
}

void DecisionScores::finish(Evaluation& result, std::uint64_t seed) const {
  const std::size_t risks = risks_.size(), sets = sets_.size();
  const auto statistics = [&](std::span<const std::uint32_t> weights, std::span<double> values) {
    std::ranges::fill(values, 0.0);
    double episodes = 0.0;
    for (std::size_t e = 0; e < episodes_.size(); ++e) {
      const auto w = static_cast<double>(weights[e]);
      const Shares& s = episodes_[e];
      episodes += w;
      for (std::size_t k = 0; k < risks; ++k) {
        values[2 * k] += w * s.answered[k];
        values[2 * k + 1] += w * s.wrong[k];
      }
      for (std::size_t k = 0; k < sets; ++k) {
        values[2 * (risks + k)] += w * s.covered[k];
        values[2 * (risks + k) + 1] += w * s.size[k];
      }
    }
    for (std::size_t k = 0; k < risks; ++k) {
      // Without answers there is no wrong one.
      values[2 * k + 1] = values[2 * k] > 0.0 ? values[2 * k + 1] / values[2 * k] : 0.0;
      values[2 * k] /= episodes;
    }
    for (std::size_t k = 2 * risks; k < values.size(); ++k) values[k] /= episodes;
  };
  metrics::BootstrapOptions options{.seed = seed};
  options.resamples = metrics::affordable_resamples(episodes_.size() * 2 * (risks + sets));
  const std::vector<metrics::Interval> all =
      metrics::bootstrap_all(episodes_.size(), 2 * (risks + sets), statistics, options);
  for (std::size_t k = 0; k < risks; ++k) {
    result.risks.push_back({risks_[k].risk, risks_[k].threshold, interval_score(all[2 * k]),
                            interval_score(all[2 * k + 1])});
  }
  for (std::size_t k = 0; k < sets; ++k) {
    result.sets.push_back({sets_[k].level, sets_[k].score, interval_score(all[2 * (risks + k)]),
                           interval_score(all[2 * (risks + k) + 1])});
  }
}

}  // namespace kshot
