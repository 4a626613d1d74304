// Telling rows apart by one score: those of the distribution that a method was trained for, and
// others. A larger score speaks for "other".
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
  /// Average precision with the other rows as positive: the mean of the precision over them,
  /// sum_k (R_k - R_{k-1}) P_k over distinct scores (scikit-learn's average_precision_score). A
  /// score that says nothing has the share of the other rows.
  Interval aupr;
  /// The share of the other rows that pass where 95 % of the known rows pass (Hendrycks and Gimpel
  /// 2017; Liang et al. 2018: the known rows are positive there). The threshold is the smallest
  /// score at or below which at least 95 % of the known rows lie.
  Interval fpr95;
};

/// Collects the scores of episodes.
class Detection {
 public:
  /// One episode: the scores of its known rows and of the other ones. Throws Error for a score that
  /// is NaN.
  void add_episode(std::span<const double> known, std::span<const double> other);
  std::size_t episodes() const { return episodes_; }
  /// Statistics of all rows, with bootstrap intervals over episodes. NaN where there are no known
  /// or no other rows.
  DetectionStatistics statistics(const BootstrapOptions& options) const;

  /// Counts of both kinds of rows in bins of equal width over [low, high]. The range is that of all
  /// scores up to their 99 % quantile; the last bin has all above it.
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
