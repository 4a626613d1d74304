// Decisions of `adapt`: which rows are answered, and prediction sets and intervals.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/task_files.h"
#include "kshot/learner.h"

namespace kshot::cli {

/// What the options ask for, with the numbers of the run's calibration filled in.
struct Decisions {
  std::optional<double> threshold;  ///< rows are answered whose confidence is at least this
  std::optional<ConformalQuantile> sets;
  std::string promise;  ///< what is known of the threshold, in words
};

/// The answer to a row below the threshold.
inline constexpr const char* unknown_answer = "unknown";

/// Throws Error for options that do not fit the run, for what the calibration cannot promise, and
/// for a class that is called as rows without an answer are.
Decisions make_decisions(const AdaptArguments& arguments, const Learner& learner,
                         const TaskFiles& task);

/// What the decisions are for the rows of a prediction whose outputs are TaskFiles::label_names, or
/// the targets. Intervals are in the network's units.
struct DecidedRows {
  std::vector<bool> answered;     ///< [rows]; empty without a threshold
  std::vector<bool> in_set;       ///< [rows, outputs], labels; empty where no sets are asked for
  std::vector<double> low, high;  ///< [rows, outputs], values; the same
};
DecidedRows decide(const Decisions& decisions, const Prediction& prediction);

/// "answered 12 of 20 rows: ...", and how many of the answers are right where labels are given;
/// empty without a threshold.
std::string describe_answers(const Decisions& decisions, const DecidedRows& decided,
                             const Prediction& prediction, const TaskFiles& task);

}  // namespace kshot::cli
