// Calibration and selective prediction of a classifier over the rows of all episodes together, with
// bootstrap intervals over episodes. The statistics are those of metrics/classification.h. Here
// each episode counts a given number of times. One resample therefore takes one pass over sums that
// were computed once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "metrics/bootstrap.h"
#include "metrics/classification.h"

namespace kshot::metrics {

struct UncertaintyOptions {
  std::size_t bins = 15;
  BinEdges edges = BinEdges::right;
  double coverage = 0.8;  ///< for UncertaintyStatistics::risk_at_coverage
  double risk = 0.05;     ///< for UncertaintyStatistics::coverage_at_risk
};

/// The statistics, in the order in which EpisodeAnswers::Pass computes them.
struct UncertaintyStatistics {
  Interval ece, mce, ece_equal_mass, classwise_ece;
  Interval brier_reliability, brier_resolution, brier_uncertainty, brier_within_bin;
  Interval aurc, risk_at_coverage, coverage_at_risk;
};

/// Collects the predictions of episodes.
///
/// Episodes may differ in their number of classes. The statistics of a class then use the rows of
/// the episodes that have it. The parts of the Brier score weight a class by its share of all rows,
/// so that they still add up to the Brier score.
class EpisodeAnswers {
 public:
  explicit EpisodeAnswers(UncertaintyOptions options = {});
  /// Adds one episode: probabilities [n, classes], labels in [0, classes). Throws Error as the
  /// functions of classification.h do.
  void add_episode(std::span<const double> probabilities, std::span<const std::int32_t> labels,
                   std::size_t classes);
  std::size_t episodes() const { return episodes_.size(); }
  /// The answers of all rows, in the order in which they were added.
  const std::vector<Answer>& answers() const { return answers_; }
  /// Number of steps that one evaluation of the statistics takes.
  std::size_t work() const { return 2 * answers_.size() + cells_.size(); }
  /// The statistics and their intervals. Sorts the answers once.
  UncertaintyStatistics statistics(const BootstrapOptions& options) const;

 private:
  /// The rows of an episode in one bin over the probability of one class, or over the confidence.
  struct Cell {
    std::uint32_t index = 0;  ///< (class + 1) * bins + bin; class -1 means the confidence
    std::uint32_t count = 0, right = 0;
    double sum = 0.0;  ///< sum of the probabilities
  };
  struct Episode {
    std::size_t first_cell = 0, last_cell = 0, rows = 0, classes = 0;
    double brier = 0.0;  ///< sum over rows
  };
  class Pass;

  UncertaintyOptions options_;
  std::vector<Answer> answers_;
  std::vector<std::uint32_t> episode_of_;  ///< episode of each answer
  std::vector<Cell> cells_;
  std::vector<Episode> episodes_;
  std::size_t most_classes_ = 0;
};

}  // namespace kshot::metrics
