// Decisions of `adapt`: which rows are answered, prediction sets and intervals.
#pragma once

#include <string>

#include "cli/commands.h"
#include "cli/task_files.h"
#include "engine/row_decisions.h"

namespace kshot::cli {

/// The answer to a row below the threshold.
inline constexpr const char* unknown_answer = "unknown";

/// Returns the decisions that the options ask for. Where another bound or level is used than was
/// asked for, the log says so. The outputs of the prediction must be TaskFiles::label_names, or the
/// targets. Throws Error where kshot::make_decisions throws, and for a class named
/// `unknown_answer`.
Decisions make_decisions(const AdaptArguments& arguments, const Learner& learner,
                         const TaskFiles& task);

/// Returns "answered 12 of 20 rows: ...", and how many of the answers are right where labels are
/// given. Empty without a threshold.
std::string describe_answers(const Decisions& decisions, const DecidedRows& decided,
                             const Prediction& prediction, const TaskFiles& task);

}  // namespace kshot::cli
