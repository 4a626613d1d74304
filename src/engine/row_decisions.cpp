#include "engine/row_decisions.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "kshot/error.h"

namespace kshot {
namespace {

void check(const DecisionRequest& request, const DecisionNames& names, bool classify) {
  const auto expect = [](const std::optional<double>& value, const std::string& name, bool ends) {
    if (!value) return;
    const bool fits = ends ? *value >= 0.0 && *value <= 1.0 : *value > 0.0 && *value < 1.0;
    if (fits) return;
    throw Error(fmt::format("{}: expected a number {}, got {}", name,
                            ends ? "from 0 to 1" : "between 0 and 1", *value));
  };
  expect(request.max_risk, names.max_risk, false);
  expect(request.min_confidence, names.min_confidence, true);
  expect(request.level, names.level, false);
  if (request.max_risk && request.min_confidence) {
    throw Error(fmt::format("{}: expected without {}, which sets the threshold itself",
                            names.max_risk, names.min_confidence));
  }
  if (classify || (!request.max_risk && !request.min_confidence)) return;
  throw Error(fmt::format("{}: the run predicts values, which are not right or wrong; expected {}",
                          request.max_risk ? names.max_risk : names.min_confidence, names.level));
}

const RunCalibration& calibration_of(const Learner& learner, const std::string& name) {
  if (learner.calibration()) return *learner.calibration();
  throw Error(fmt::format(
      "{}: decisions need the calibration of the run; expected a run that is loaded calibrated",
      name));
}

}  // namespace

Decisions make_decisions(const DecisionRequest& request, const Learner& learner,
                         const DecisionNames& names) {
  check(request, names, learner.config().loss.type == LossType::cross_entropy);
  Decisions d;
  if (request.min_confidence) {
    d.threshold = *request.min_confidence;
    d.promise = fmt::format("confidence of at least {}; nothing is known of the risk",
                            *request.min_confidence);
  }
  if (request.max_risk) {
    const RunCalibration& c = calibration_of(learner, names.max_risk);
    const RiskThreshold t = c.threshold_for(*request.max_risk);
    d.threshold = *t.threshold;
    d.promise = fmt::format(
        "confidence of at least {:.4g}; the risk of wrong answers is at most {}, with confidence "
        "{} over {} {} episodes",
        *t.threshold, t.risk, c.confidence, c.decision_episodes, split_name(c.split));
    if (std::abs(t.risk - *request.max_risk) > 1e-9) {
      d.notes.push_back(
          fmt::format("{} {}: the threshold for {} is taken, the largest bound of the calibration "
                      "below it",
                      names.max_risk, *request.max_risk, t.risk));
    }
  }
  if (request.level) {
    d.sets = calibration_of(learner, names.level).quantile_for(*request.level);
    if (std::abs(d.sets->level - *request.level) > 1e-9) {
      d.notes.push_back(
          fmt::format("{} {}: the quantile for {} is taken, the smallest level of the calibration "
                      "above it",
                      names.level, *request.level, d.sets->level));
    }
  }
  return d;
}

DecidedRows decide(const Decisions& d, const Prediction& p) {
  DecidedRows rows;
  const auto outputs = static_cast<std::size_t>(p.outputs);
  for (std::size_t row = 0; row < static_cast<std::size_t>(p.rows); ++row) {
    const std::span<const double> mean = std::span(p.mean).subspan(row * outputs, outputs);
    if (d.threshold) {
      rows.answered.push_back(!p.diverged && *std::ranges::max_element(mean) >= *d.threshold);
    }
    if (!d.sets) continue;
    if (p.classification) {
      const std::vector<bool> in =
          p.diverged ? std::vector<bool>(outputs) : prediction_set(mean, d.sets->score);
      rows.in_set.insert(rows.in_set.end(), in.begin(), in.end());
      continue;
    }
    for (std::size_t i = 0; i < outputs; ++i) {
      const std::size_t at = row * outputs + i;
      const double noise = p.predictive_std.empty() ? p.noise_std : p.predictive_std[at];
      const double half = d.sets->score * std::hypot(p.std[at], noise);
      rows.low.push_back(p.mean[at] - half);
      rows.high.push_back(p.mean[at] + half);
    }
  }
  return rows;
}

}  // namespace kshot
