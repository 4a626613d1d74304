#include "cli/decision_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "io/log.h"
#include "kshot/error.h"

namespace kshot::cli {

Decisions make_decisions(const AdaptArguments& a, const Learner& learner, const TaskFiles& task) {
  Decisions d;
  const bool classify = learner.config().loss.type == LossType::cross_entropy;
  for (const auto& [option, given] :
       {std::pair{"--max-risk", a.max_risk.has_value()},
        std::pair{"--min-confidence", a.min_confidence.has_value()}}) {
    if (!given) continue;
    if (!classify) {
      throw Error(fmt::format(
          "{}: the run predicts values, which are not right or wrong; expected --level", option));
    }
    if (std::ranges::find(task.label_names, unknown_answer) != task.label_names.end()) {
      throw Error(
          fmt::format("{}: a class of the support rows is called \"{}\", as rows without an answer "
                      "are; expected "
                      "another name",
                      option, unknown_answer));
    }
  }
  if (a.min_confidence) {
    d.threshold = *a.min_confidence;
    d.promise =
        fmt::format("confidence of at least {}; nothing is known of the risk", *a.min_confidence);
  }
  if (a.max_risk) {
    const RunCalibration& c = *learner.calibration();
    const RiskThreshold t = c.threshold_for(*a.max_risk);
    d.threshold = *t.threshold;
    d.promise = fmt::format(
        "confidence of at least {:.4g}; the risk of wrong answers is at most {}, with confidence "
        "{} "
        "over {} {} episodes",
        *t.threshold, t.risk, c.confidence, c.decision_episodes, split_name(c.split));
    if (std::abs(t.risk - *a.max_risk) > 1e-9) {
      io::log_info(
          fmt::format("--max-risk {}: the threshold for {} is taken, the largest bound of "
                      "the calibration below it",
                      *a.max_risk, t.risk));
    }
  }
  if (a.level) {
    d.sets = learner.calibration()->quantile_for(*a.level);
    if (std::abs(d.sets->level - *a.level) > 1e-9) {
      io::log_info(
          fmt::format("--level {}: the quantile for {} is taken, the smallest level of the "
                      "calibration above it",
                      *a.level, d.sets->level));
    }
  }
  return d;
}

DecidedRows decide(const Decisions& d, const Prediction& p) {
  DecidedRows rows;
  const auto outputs = static_cast<std::size_t>(p.outputs);
  for (std::size_t row = 0; row < static_cast<std::size_t>(p.rows); ++row) {
    const std::span<const double> mean = std::span(p.mean).subspan(row * outputs, outputs);
    if (d.threshold) rows.answered.push_back(*std::ranges::max_element(mean) >= *d.threshold);
    if (!d.sets) continue;
    if (p.classification) {
      const std::vector<bool> in = prediction_set(mean, d.sets->score);
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

std::string describe_answers(const Decisions& d, const DecidedRows& rows, const Prediction& p,
                             const TaskFiles& task) {
  if (!d.threshold) return {};
  const auto outputs = static_cast<std::size_t>(p.outputs);
  std::size_t answered = 0, known = 0, wrong = 0;
  for (std::size_t row = 0; row < rows.answered.size(); ++row) {
    if (!rows.answered[row]) continue;
    ++answered;
    if (!task.query_has_targets || task.query_labels[row] < 0) continue;
    const auto first = p.mean.begin() + static_cast<std::ptrdiff_t>(row * outputs);
    const auto best = std::max_element(first, first + static_cast<std::ptrdiff_t>(outputs)) - first;
    ++known;
    wrong += best != task.query_labels[row] ? 1 : 0;
  }
  std::string text = fmt::format("answered {} of {} rows: {}\n", answered, p.rows, d.promise);
  if (known > 0) {
    text += fmt::format("of {} answers with labels {} are wrong\n", known, wrong);
  }
  return text;
}

}  // namespace kshot::cli
