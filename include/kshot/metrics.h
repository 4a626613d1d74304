// Metrics of predictions as plain functions over arrays. They need no run and no configuration, so
// that predictions of any program can be scored by the conventions of `kshot evaluate`.
// docs/uncertainty.md defines each number and says where other libraries differ.
//
//   kshot::ClassificationScores scores = kshot::classification_scores(probabilities, labels, 5);
//   std::cout << scores.accuracy << ' ' << scores.ece << '\n';
//
// Arrays are row-major. Every function throws Error, whose message names the argument, for sizes
// that do not fit, for no rows, and for values out of range or NaN.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kshot/evaluator.h"

namespace kshot {

/// Options of classification_scores.
struct ClassificationScoreOptions {
  std::size_t bins = 15;  ///< Number of bins of every calibration error, at least 1.
  /// The edge that belongs to a bin of equal width: "right" has bins (low, high], the first one
  /// closed (scikit-learn's rule). "left" has [low, high), the last one closed (netcal's rule).
  std::string edges = "right";
  double coverage = 0.8;  ///< Coverage of ClassificationScores::risk_at_coverage, in [0, 1].
  double risk = 0.05;     ///< Risk of ClassificationScores::coverage_at_risk, in [0, 1].
};

/// Scores of a classifier over rows. The confidence of a row is the probability of the predicted
/// class. The predicted class is the most probable one; ties go to the lowest class.
struct ClassificationScores {
  std::size_t rows = 0;     ///< Number of rows.
  std::size_t classes = 0;  ///< Number of classes.
  double accuracy = 0.0;    ///< Share of rows whose predicted class is right.
  double nll = 0.0;         ///< Mean of -log p(label), nats per row. p counts as at least 2.2e-308.
  /// Mean of sum_c (p_c - 1[c = label])^2, in [0, 2]. It equals brier_reliability
  /// - brier_resolution + brier_uncertainty + brier_within_bin.
  double brier = 0.0;
  // The parts of the Brier score (Murphy 1973), summed over classes, with bins of equal width over
  // the probability of each class.
  double brier_reliability = 0.0;  ///< Mean squared gap of probability and share of the class.
  double brier_resolution = 0.0;   ///< Variance of the share of the class between bins.
  double brier_uncertainty = 0.0;  ///< Variance of the classes; predictions do not change it.
  double brier_within_bin = 0.0;   ///< The part that binning loses (Stephenson et al. 2008).
  double ece = 0.0;  ///< Expected calibration error (Guo et al. 2017), bins of equal width.
  double mce = 0.0;  ///< Largest gap of a bin of equal width that is not empty.
  /// Expected calibration error with the quantiles of the confidences as edges.
  double ece_equal_mass = 0.0;
  /// Mean over classes of the calibration error of this class's probability in all rows
  /// (Kull et al. 2019; static calibration error of Nixon et al. 2019).
  double classwise_ece = 0.0;
  /// Area under the risk-coverage curve: the mean over i of the share of wrong answers among
  /// the i most confident rows (Geifman and El-Yaniv 2017). For equal confidences it is the
  /// expectation over their orders.
  double aurc = 0.0;
  /// Share of wrong answers at the highest threshold of confidence that answers at least the
  /// share `coverage` of the rows.
  double risk_at_coverage = 0.0;
  /// Largest share of the rows that a threshold answers with at most the share `risk` of
  /// wrong answers; 0 where there is none.
  double coverage_at_risk = 0.0;
  /// Area under the ROC curve of one class against the rest, mean over the classes that have
  /// rows and are not the class of all rows. NaN where there is no such class. For two
  /// classes it is the AUROC of class 1.
  double auroc = 0.0;
  std::vector<CalibrationBin> reliability;  ///< Reliability diagram: all bins of equal width.
  /// One point per distinct confidence, the highest first. The last point has coverage 1.
  std::vector<RiskCoveragePoint> risk_coverage;
};

/// Scores probabilities [n, classes] with labels [n], which are in [0, classes). Each row of
/// probabilities must sum to one within 0.001, which numbers of 16 bits reach. The probabilities
/// are used as they are.
ClassificationScores classification_scores(std::span<const double> probabilities,
                                           std::span<const std::int32_t> labels,
                                           std::size_t classes,
                                           const ClassificationScoreOptions& options = {});

/// Options of regression_scores.
struct RegressionScoreOptions {
  std::vector<double> levels = {0.5, 0.9, 0.95};  ///< Probabilities of central bands, in (0, 1).
  std::size_t pit_bins = 10;                      ///< Bins of the PIT histogram, at least 1.
};

/// A central band of predictive distributions, from the quantile (1 - level) / 2 to
/// (1 + level) / 2.
struct BandScore {
  double level = 0.0;     ///< Probability of the band under the prediction.
  double coverage = 0.0;  ///< Share of the targets that lie in their band.
  double width = 0.0;     ///< Mean width of the band, in the unit of the targets.
};

/// Scores of predictive distributions of numbers over rows.
struct RegressionScores {
  std::size_t rows = 0;  ///< Number of targets.
  double mse = 0.0;      ///< Mean squared error of the predictive mean, in squared target units.
  /// Mean of -log density of the target, nats per target. NaN for samples
  /// without noise, which have no density.
  double nll = 0.0;
  /// Mean continuous ranked probability score, in target units: of a Gaussian by Gneiting
  /// and Raftery (2007), of a mixture by Grimit et al. (2006). For samples without noise it
  /// is that of their empirical distribution; for one such sample the mean absolute error.
  double crps = 0.0;
  /// Mean standard deviation of the predictive distribution, in target units. The variance
  /// of samples is divided by their number.
  double sharpness = 0.0;
  /// One per level of the options. Empty for one sample without noise, which has no distribution.
  std::vector<BandScore> bands;
  /// Probability integral transform F(y) of each target [n], uniform where predictions are
  /// calibrated. Samples equal to the target count half. Empty where `bands` is empty.
  std::vector<double> pit;
  /// Counts of `pit` in bins of equal width, [low, high) with the last one closed. Empty where
  /// `pit` is empty.
  std::vector<std::size_t> pit_histogram;
};

/// Scores Gaussian predictions with means [n] and standard deviations std [n], all above 0, on
/// targets y [n].
RegressionScores regression_scores(std::span<const double> mean, std::span<const double> std,
                                   std::span<const double> y,
                                   const RegressionScoreOptions& options = {});

/// Scores posterior samples [sample_count, n] on targets y [n]. `noise_std` holds the standard
/// deviations of the observation noise, each above 0: one for all targets, or [n]. Then the
/// prediction is the equal mixture (1/S) sum_s N(sample_s, noise_std^2). Empty: there is no noise,
/// and the prediction is the empirical distribution of the samples, whose bands have quantiles that
/// are linear between order statistics (NumPy's default). The cost is sample_count^2 steps per
/// target with noise, else sample_count log sample_count.
RegressionScores regression_scores_of_samples(std::span<const double> samples,
                                              std::size_t sample_count, std::span<const double> y,
                                              std::span<const double> noise_std = {},
                                              const RegressionScoreOptions& options = {});

/// How well a score tells rows from outside of a distribution from rows inside. A larger score
/// means "outside".
struct DetectionScores {
  double auroc = 0.0;  ///< Area under the ROC curve; equal scores count half.
  /// Average precision with the rows outside as positive. Scores that say
  /// nothing reach the share of these rows.
  double aupr = 0.0;
  /// Share of the rows outside that pass where at least 95 % of the rows inside pass (Liang
  /// et al. 2018). A row passes where its score is at most the threshold. The threshold is
  /// the smallest score of a row that passes so many.
  double fpr95 = 0.0;
};

/// Scores the detection of rows outside of a distribution from the scores of rows `inside` [n] and
/// `outside` [m]. Infinite scores are allowed.
DetectionScores detection_scores(std::span<const double> inside, std::span<const double> outside);

/// Options of mean_interval.
struct IntervalOptions {
  std::size_t resamples = 2000;  ///< Number of resamples, at least 1.
  double level = 0.95;           ///< Coverage of the interval, in (0, 1).
  std::uint64_t seed = 0;        ///< The same seed draws the same episodes for any values.
};

/// Returns the mean over episodes of values [episodes], with its percentile bootstrap interval
/// (Efron 1979): the quantiles (1 - level) / 2 and (1 + level) / 2 of the mean over episodes that
/// are drawn with replacement. The ends are NaN for one episode. The interval of the difference of
/// two methods on the same episodes is that of the differences of their values. Throws Error for
/// values that are not finite.
IntervalScore mean_interval(std::span<const double> values, const IntervalOptions& options = {});

}  // namespace kshot
