// Decisions about the rows of one prediction: which rows are answered, and prediction sets and
// intervals.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kshot/decisions.h"
#include "kshot/learner.h"

namespace kshot {

/// The decisions that a user asks for. At most one of max_risk and min_confidence may be given.
struct DecisionRequest {
  std::optional<double> max_risk;        ///< bound on the share of wrong answers, in (0, 1)
  std::optional<double> min_confidence;  ///< threshold set by hand, in [0, 1]
  std::optional<double> level;           ///< share of targets in sets and intervals, in (0, 1)
};

/// The names of a request's parts in messages, for example "--max-risk" in the program.
struct DecisionNames {
  std::string max_risk = "max_risk", min_confidence = "min_confidence", level = "level";
};

/// A request with the numbers of the run's calibration filled in.
struct Decisions {
  std::optional<double> threshold;  ///< rows with at least this confidence are answered
  std::optional<ConformalQuantile> sets;
  std::string promise;             ///< what is known of the threshold, in words
  std::vector<std::string> notes;  ///< notes where other numbers than the requested ones are taken
};

/// Makes the decisions of a request. Throws Error for a request that does not fit the run, for a
/// request that the calibration cannot promise, and where max_risk or level is asked of a learner
/// without LearnerOptions::calibrated.
Decisions make_decisions(const DecisionRequest& request, const Learner& learner,
                         const DecisionNames& names = {});

/// The decisions for the rows of a prediction. Intervals are in the prediction's units.
struct DecidedRows {
  std::vector<bool> answered;     ///< [rows]; empty without a threshold
  std::vector<bool> in_set;       ///< [rows, outputs], labels; empty where no sets are asked for
  std::vector<double> low, high;  ///< [rows, outputs], values; empty where no sets are asked for
};
/// Decides about the rows of a prediction. A diverged prediction has no answers, empty sets, and
/// intervals that are NaN.
DecidedRows decide(const Decisions& decisions, const Prediction& prediction);

}  // namespace kshot
