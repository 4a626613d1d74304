// Detects rows from other distributions than the one a method was trained for, by one score per
// row. A larger score means "other".
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "metrics/bootstrap.h"

namespace kshot::metrics {

struct DetectionStatistics {
  /// Area under the ROC curve; equal scores count half.
  Interval auroc;
  /// Average precision with the other rows as positive: sum_k (R_k - R_{k-1}) P_k over distinct
  /// scores, with recall R and precision P (scikit-learn's average_precision_score). An
  /// uninformative score reaches the share of the other rows.
  Interval aupr;
  /// The share of the other rows that pass at the threshold where 95 % of the known rows pass
  /// (Hendrycks and Gimpel 2017; Liang et al. 2018, where the known rows are positive). The
  /// threshold is the smallest score with at least 95 % of the known rows at or below it.
  Interval fpr95;
};

/// Collects the scores of episodes.
class Detection {
 public:
  /// Adds one episode: the scores of its known rows and of its other rows. Throws Error for a score
  /// that is NaN.
  void add_episode(std::span<const double> known, std::span<const double> other);
  std::size_t episodes() const { return episodes_; }
  /// Statistics of all rows, with bootstrap intervals over episodes. NaN where known or other rows
  /// are missing.
  DetectionStatistics statistics(const BootstrapOptions& options) const;

  /// Counts of known and other rows in bins of equal width over [low, high]. The range is that of
  /// all scores up to their 99 % quantile. The last bin includes all scores above it.
  struct Histogram {
    double low = 0.0, high = 0.0;
    std::vector<std::size_t> known, other;
  };
  Histogram histogram(std::size_t bins = 30) const;

 private:
  struct Row {
    double score = 0.0;
    std::uint32_t episode = 0;
    bool other = false;
  };
  std::vector<Row> rows_;
  std::size_t episodes_ = 0;
};

}  // namespace kshot::metrics
