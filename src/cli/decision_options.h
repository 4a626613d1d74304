// Decisions of `adapt`: which rows are answered, and prediction sets and intervals.
#pragma once

#include <string>

#include "cli/commands.h"
#include "cli/task_files.h"
#include "engine/row_decisions.h"

namespace kshot::cli {

/// The answer to a row below the threshold.
inline constexpr const char* unknown_answer = "unknown";

/// The decisions of the options; what was taken instead of what was asked for goes to the log.
/// Throws Error as kshot::make_decisions, and for a class that is called as rows without an answer
/// are. Outputs of the prediction are TaskFiles::label_names, or the targets.
Decisions make_decisions(const AdaptArguments& arguments, const Learner& learner,
                         const TaskFiles& task);

/// "answered 12 of 20 rows: ...", and how many of the answers are right where labels are given;
/// empty without a threshold.
std::string describe_answers(const Decisions& decisions, const DecidedRows& decided,
                             const Prediction& prediction, const TaskFiles& task);

}  // namespace kshot::cli
