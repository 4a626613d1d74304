// Measures of a classifier's probabilities beyond accuracy: calibration with other bins, the parts
// of the Brier score, and the risk when the classifier may decline to answer. These are plain
// functions over the rows of all episodes together (metrics/metrics.h has the means over episodes).
// They throw Error for sizes that do not fit, labels out of range and probabilities outside [0, 1].
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "metrics/metrics.h"

namespace kshot::metrics {

/// One predicted row: the probability of the predicted class, and whether this class was right.
struct Answer {
  double confidence = 0.0;
  bool right = false;
};

/// Returns the answers for probabilities [n, classes]. Ties go to the lowest class.
std::vector<Answer> answers(std::span<const double> probabilities,
                            std::span<const std::int32_t> labels, std::size_t classes);

/// ECE with bins of equal mass. The inner edges are the b / bins quantiles of the confidences
/// (linear between order statistics, type 7 of Hyndman and Fan, as in NumPy). Each bin is
/// (low, high], as in scikit-learn's calibration_curve(strategy="quantile"). Equal confidences
/// share a bin. Bins may therefore be empty, and the order of the answers does not matter. NaN
/// where there are no answers.
double ece_equal_mass(std::span<const Answer> answers, std::size_t bins = 15);

/// Classwise ECE (Kull et al. 2019; "static calibration error" of Nixon et al. 2019): the mean over
/// classes of sum_b (n_b / n) |share of the class among the rows of the bin - mean probability|.
/// The bins have equal width over the probability of the class, and include all rows. NaN where
/// there are no rows.
double classwise_ece(std::span<const double> probabilities, std::span<const std::int32_t> labels,
                     std::size_t classes, std::size_t bins = 15, BinEdges edges = BinEdges::right);

/// The parts of the Brier score (Murphy 1973), summed over classes, with bins of equal width over
/// the probability of each class: brier = reliability - resolution + uncertainty + within_bin. The
/// last part (Stephenson et al. 2008) is the part that binning loses. It is 0 where the rows of
/// every bin have equal probabilities. The Brier score itself does not depend on the bins, and lies
/// in [0, 2].
struct BrierParts {
  double brier = 0.0;
  double reliability = 0.0;  ///< sum_b (n_b / n) (mean probability - share of the class)^2
  double resolution = 0.0;   ///< sum_b (n_b / n) (share of the class in the bin - in all rows)^2
  /// Share of the class times one minus this share. Predictions do not change it.
  double uncertainty = 0.0;
  /// Variance of the probabilities within bins, minus twice their covariance with the class.
  double within_bin = 0.0;
};
BrierParts brier_parts(std::span<const double> probabilities, std::span<const std::int32_t> labels,
                       std::size_t classes, std::size_t bins = 15,
                       BinEdges edges = BinEdges::right);

/// A threshold of the confidence: the share of answers at or above it, and how many of them are
/// wrong.
struct RiskPoint {
  double threshold = 0.0;
  double coverage = 0.0;  ///< share of rows that are answered, in (0, 1]
  double risk = 0.0;      ///< share of the answered rows that are wrong
};

/// Risk against coverage (El-Yaniv and Wiener 2010), with the answers sorted by their confidence.
class RiskCoverage {
 public:
  explicit RiskCoverage(std::span<const Answer> answers);
  /// One point per distinct confidence, the highest first. The last point has coverage 1.
  const std::vector<RiskPoint>& points() const { return points_; }
  /// Area under the curve (Geifman and El-Yaniv 2017): the mean over i = 1 ... n of the risk of the
  /// i most confident answers. For answers with equal confidence, the expectation over their orders
  /// is taken. NaN where there are no answers.
  double aurc() const { return aurc_; }
  /// The risk at the highest threshold with at least this coverage, which is in [0, 1]. NaN where
  /// there are no answers.
  double risk_at(double coverage) const;
  /// The largest coverage of a threshold with at most this risk; 0 where there is none.
  double coverage_at(double risk) const;

 private:
  std::vector<RiskPoint> points_;
  double aurc_;
};

/// One row of a two-class problem: its score, which is larger for the positive class, and its
/// class.
struct Scored {
  double score = 0.0;
  bool positive = false;
};

/// Area under the ROC curve: the probability that of a random positive and a random negative row
/// the positive one has the larger score. Equal scores count half (Mann and Whitney). Infinite
/// scores are allowed. NaN where one of the classes has no rows. Throws Error for a score that is
/// NaN.
double auroc(std::span<const Scored> rows);
/// AUROC of one class against the rest, from probabilities [rows, classes] and labels [rows].
double class_auroc(std::span<const double> probabilities, std::span<const std::int32_t> labels,
                   std::size_t classes, std::size_t of);

}  // namespace kshot::metrics
