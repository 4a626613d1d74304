// What the probabilities of a classifier are worth beyond accuracy: calibration under other
// binnings, the parts of the Brier score, and how its risk falls where it may decline to answer.
// Plain functions over the rows of all episodes together (metrics/metrics.h has the means over
// episodes). Throws Error for sizes that do not fit, labels out of range and probabilities outside
// [0, 1].
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "metrics/metrics.h"

namespace kshot::metrics {

/// One predicted row: the probability of the class that was predicted, and whether it was right.
struct Answer {
  double confidence = 0.0;
  bool right = false;
};

/// The answers of probabilities [n, classes]; ties go to the lowest class.
std::vector<Answer> answers(std::span<const double> probabilities,
                            std::span<const std::int32_t> labels, std::size_t classes);

/// ECE with bins of equal mass: the inner edges are the b / bins quantiles of the confidences
/// (linear between order statistics, Hyndman and Fan's type 7, as NumPy), each bin (low, high], as
/// scikit-learn's calibration_curve(strategy="quantile"). Equal confidences share a bin, so bins
/// may be empty, and the order of the answers does not matter. NaN where there are no answers.
double ece_equal_mass(std::span<const Answer> answers, std::size_t bins = 15);

/// Classwise ECE (Kull et al. 2019; "static calibration error" of Nixon et al. 2019): the mean over
/// classes of sum_b (n_b / n) |share of the class among the rows of the bin - mean probability|,
/// with bins of equal width over the probability of that class in all rows. NaN where there are no
/// rows.
double classwise_ece(std::span<const double> probabilities, std::span<const std::int32_t> labels,
                     std::size_t classes, std::size_t bins = 15, BinEdges edges = BinEdges::right);

/// The parts of the Brier score (Murphy 1973), summed over classes, with bins of equal width over
/// the probability of each class: brier = reliability - resolution + uncertainty + within_bin. The
/// last part (Stephenson et al. 2008) is what bins leave out; it is 0 where the rows of every bin
/// have the same probability. The Brier score itself does not depend on the bins, and lies in [0,
/// 2].
struct BrierParts {
  double brier = 0.0;
  double reliability = 0.0;  ///< sum_b (n_b / n) (mean probability - share of the class)^2
  double resolution = 0.0;   ///< sum_b (n_b / n) (share of the class in the bin - in all rows)^2
  double uncertainty = 0.0;  ///< share of the class times one minus it: what no prediction changes
  double within_bin = 0.0;   ///< variance of the probabilities within bins less twice covariance
};
BrierParts brier_parts(std::span<const double> probabilities, std::span<const std::int32_t> labels,
                       std::size_t classes, std::size_t bins = 15,
                       BinEdges edges = BinEdges::right);

/// A threshold of confidence: the answers at or above it, and how many of them are wrong.
struct RiskPoint {
  double threshold = 0.0;
  double coverage = 0.0;  ///< share of rows that are answered, in (0, 1]
  double risk = 0.0;      ///< share of the answered rows that are wrong
};

/// Risk against coverage (El-Yaniv and Wiener 2010) of answers in the order of their confidence.
class RiskCoverage {
 public:
  explicit RiskCoverage(std::span<const Answer> answers);
  /// One point per distinct confidence, the highest first; the last has coverage 1.
  const std::vector<RiskPoint>& points() const { return points_; }
  /// Area under the curve (Geifman and El-Yaniv 2017): the mean over i = 1 ... n of the risk of the
  /// i most confident answers. Where answers have equal confidence, its expectation over their
  /// orders. NaN where there are no answers.
  double aurc() const { return aurc_; }
  /// The risk at the highest threshold that answers at least this share of the rows, in [0, 1]. NaN
  /// where there are no answers.
  double risk_at(double coverage) const;
  /// The largest coverage of a threshold whose risk is at most this; 0 where there is none.
  double coverage_at(double risk) const;

 private:
  std::vector<RiskPoint> points_;
  double aurc_;
};

/// One row of a two-class problem: a score, larger for the positive class, and its class.
struct Scored {
  double score = 0.0;
  bool positive = false;
};

/// Area under the ROC curve: the probability that a positive row has the larger score of a random
/// positive and a random negative one, equal scores counted half (Mann and Whitney). Infinite
/// scores are allowed. NaN where there are not both classes; throws Error for a score that is NaN.
double auroc(std::span<const Scored> rows);

}  // namespace kshot::metrics
