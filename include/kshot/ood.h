// Rows out of distribution: measures how well a method's predictions tell query rows of another
// kind than the task's support rows apart.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "kshot/evaluator.h"

namespace kshot {

/// How well one score tells rows apart. A larger score speaks for "out of distribution".
struct OodScore {
  std::string name;     ///< Name of the score.
  IntervalScore auroc;  ///< Area under the ROC curve; equal scores count half.
  IntervalScore aupr;   ///< Average precision, with rows out of distribution as positive.
  /// Share of rows out of distribution that pass the threshold which 95 % of the rows in
  /// distribution pass. A row passes where its score is at most the threshold.
  IntervalScore fpr95;
  double low = 0.0,  ///< Lower end of the histograms' range.
      high = 0.0;    ///< Upper end of the histograms' range.
  /// Numbers of rows in distribution in bins of equal width over [low, high]. The last bin also has
  /// all rows above the range.
  std::vector<std::size_t> in_counts,
      /// Numbers of rows out of distribution in the same bins.
      out_counts;
};

/// The scores of a classifier on rows whose labels survive the change (rotate, noise).
struct ShiftScore {
  Statistic accuracy,  ///< Share of right predictions, mean over episodes.
      nll;             ///< Negative log-likelihood, nats per row, mean over episodes.
  double ece = 0.0;    ///< Expected calibration error over the rows of all episodes.
};

/// The scores of rows out of distribution of one kind, beside the query rows of the same tasks.
struct OodEvaluation {
  std::string kind;           ///< The kind, as the argument of evaluate_ood.
  std::string description;    ///< The rows out of distribution, in words.
  std::string algorithm,      ///< Name of the algorithm.
      checkpoint;             ///< File of the checkpoint.
  std::uint64_t step = 0;     ///< Meta-steps of the checkpoint.
  std::string source;         ///< EpisodeSource::describe of the episodes.
  Split split = Split::test;  ///< Split of the episodes.
  std::uint64_t seed = 0;     ///< Seed of the episodes.
  int episodes = 0,           ///< Number of episodes, with those that diverged.
      diverged = 0,           ///< Number of episodes that diverged and were left out.
      samples = 1;            ///< Posterior samples of a prediction.
  std::string calibration;    ///< The calibration that was applied, in words; empty: none.
  std::string features;       ///< The features in which the distance score is measured, in words.
  std::size_t in_rows = 0,    ///< Number of rows in distribution.
      out_rows = 0;           ///< Number of rows out of distribution.
  std::vector<OodScore> scores;        ///< How well each score tells the rows apart.
  std::optional<ShiftScore> in_shift,  ///< Classification of rows in distribution (rotate, noise).
      out_shift;  ///< Classification of rows out of distribution (rotate, noise).
  /// A table of the scores for people to read.
  std::string table() const;
};

/// Evaluates episodes of a run whose query rows are replaced. `kind` is one of
/// - "open_set": rows of classes that the support set does not have (a file of classes),
/// - "rotate" or "rotate=DEGREES": images turned by 15 to 45 degrees, or by this many degrees, in
///   either direction,
/// - "noise" or "noise=S": Gaussian noise of S (1) standard deviations of the task's inputs,
/// - "permute": the inputs of a row in another order, the same for all rows of a task,
/// - "shift" or "shift=S": every input moved by S (2) times its range over the task's rows,
/// - the path of another data file (.kshot), whose query rows are used.
/// The baselines of the options are not evaluated. With EvaluatorOptions::ranks the episodes are
/// divided among the ranks, and all ranks get the same result. Throws Error for a kind that does
/// not fit the run's data.
OodEvaluation evaluate_ood(const std::filesystem::path& run, const std::string& kind,
                           const EvaluatorOptions& options = {});

/// Returns the text of evaluation-ood.json.
std::string ood_to_json(const std::vector<OodEvaluation>& all);
/// Reads what ood_to_json wrote. Throws Error that names `origin`.
std::vector<OodEvaluation> ood_from_json(const std::string& text, const std::string& origin);

}  // namespace kshot
