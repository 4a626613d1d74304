// An evaluation of a run and the file that keeps its numbers.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>

#include "kshot/episode.h"
#include "kshot/evaluator.h"

namespace kshot {

/// The file in a run folder where reports and comparisons look for an evaluation.
inline constexpr const char* evaluation_file = "evaluation.json";

/// The source of an evaluation's episodes and the destination of its numbers.
struct EvaluationPlan {
  /// Null: the episodes of the run's own configuration.
  std::shared_ptr<const EpisodeSource> source = {};
  /// The file for the numbers. Empty: evaluation_file in the run folder, or no file where there is
  /// a `source`.
  std::filesystem::path out = {};
  /// Called with the result before it is written, on rank 0 only. Empty: nothing is called.
  std::function<void(const Evaluation&)> show = {};
};

/// The evaluation and the file that holds it. The path is empty where no file was written.
struct WrittenEvaluation {
  Evaluation evaluation;
  std::filesystem::path file;
};
/// Evaluates a run and writes the numbers. Checks before any work that the file can be written.
/// With EvaluatorOptions::ranks, all ranks get the result and rank 0 writes the file.
WrittenEvaluation evaluate_run(const std::filesystem::path& run, const EvaluatorOptions& options,
                               const EvaluationPlan& plan = {});

}  // namespace kshot
