// Out of distribution: do a method's predictions say where the query rows are not of the kind that
// the task's support rows are?
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "kshot/evaluator.h"

namespace kshot {

/// One score that could tell rows apart; a larger score speaks for "out of distribution".
struct OodScore {
  std::string name;
  IntervalScore auroc;
  IntervalScore aupr;   ///< average precision, rows out of distribution as positive
  IntervalScore fpr95;  ///< share of rows out of distribution that pass where 95 % of the others do
  /// Rows in bins of equal width over [low, high]; the last bin has all above it.
  double low = 0.0, high = 0.0;
  std::vector<std::size_t> in_counts, out_counts;
};

/// How a classifier does on rows whose labels survive the change (rotate, noise): means over
/// episodes, and the ECE of all rows.
struct ShiftScore {
  Statistic accuracy, nll;
  double ece = 0.0;
};

/// The rows of one kind beside the query rows of the same tasks.
struct OodEvaluation {
  std::string kind;         ///< as asked for
  std::string description;  ///< of the rows out of distribution, in words
  std::string algorithm, checkpoint;
  std::uint64_t step = 0;  ///< meta-steps of the checkpoint
  std::string source;
  Split split = Split::test;
  std::uint64_t seed = 0;
  int episodes = 0, diverged = 0, samples = 1;
  std::string calibration;  ///< in words; empty: none
  std::string features;     ///< what the distance is measured in
  std::size_t in_rows = 0, out_rows = 0;
  std::vector<OodScore> scores;
  std::optional<ShiftScore> in_shift, out_shift;
  /// A table of the scores for people to read.
  std::string table() const;
};

/// Evaluates episodes of a run whose query rows are replaced. `kind` is one of
/// - "open_set": rows of classes that the support set does not have (a file of classes),
/// - "rotate" or "rotate=DEGREES": images turned by 15 to 45 degrees, or by this many, either way,
/// - "noise" or "noise=S": Gaussian noise of S (1) standard deviations of the task's inputs,
/// - "permute": the inputs of a row in another order, the same for all rows of a task,
/// - "shift" or "shift=S": every input moved by S (2) times its range over the task's rows,
/// - the path of another data file (.kshot), whose query rows are taken.
/// The baselines of the options are not evaluated. With EvaluatorOptions::ranks the episodes are
/// divided among the ranks, and all ranks get the same result. Throws Error for a kind that does
/// not fit the run's data.
OodEvaluation evaluate_ood(const std::filesystem::path& run, const std::string& kind,
                           const EvaluatorOptions& options = {});

/// The text of evaluation-ood.json.
std::string ood_to_json(const std::vector<OodEvaluation>& all);
/// Reads what ood_to_json wrote. Throws Error naming `origin`.
std::vector<OodEvaluation> ood_from_json(const std::string& text, const std::string& origin);

}  // namespace kshot
