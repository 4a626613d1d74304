// Measures of an evaluation: accuracy, likelihood, calibration, coverage. These are plain functions
// and accumulators over host memory, which know nothing of tasks, networks or devices.
//
// Averages are taken first within an episode and then over episodes, so that the standard deviation
// is the one between tasks. Accumulators receive the episodes in order and sum in double precision
// in this order: the same episodes give the same bits for any number of evaluation threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kshot::metrics {

/// A mean over episodes. half_width is half the width of the 95 % confidence interval by the normal
/// approximation: 1.96 s / sqrt(n), with the sample standard deviation s (n - 1), as few-shot
/// papers report it. It is NaN where there are fewer than two episodes.
struct Estimate {
  double mean;
  double half_width;
  std::size_t count;
};

/// Mean and standard deviation of a stream of numbers (Welford's update).
class Mean {
 public:
  void add(double value);
  std::size_t count() const { return count_; }
  double mean() const;                ///< NaN if empty
  double standard_deviation() const;  ///< sample (n - 1); NaN for fewer than two values
  Estimate estimate() const;

 private:
  std::size_t count_ = 0;
  double mean_ = 0.0;
  double squares_ = 0.0;
};

Estimate estimate(std::span<const double> values);

// ---- classification ----

/// log(sum_i exp(x_i)) without overflow; -infinity if empty.
double log_sum_exp(std::span<const double> x);
/// probabilities = softmax(logits), same length (may be the same memory).
void softmax(std::span<const double> logits, std::span<double> probabilities);
/// log_probabilities = log softmax(logits), same length (may be the same memory).
void log_softmax(std::span<const double> logits, std::span<double> log_probabilities);

/// Predictive probabilities of posterior samples: the mean over samples of softmax(logits).
/// logits [samples, rows, classes] -> probabilities [rows, classes].
void mean_softmax(std::span<const double> logits, std::size_t samples, std::size_t rows,
                  std::size_t classes, std::span<double> probabilities);

/// The rule for which of its two edges belongs to a bin of equal width in [0, 1].
enum class BinEdges {
  right,  ///< (low, high], the first bin closed: scikit-learn's rule
  left,   ///< [low, high), the last bin closed: netcal's rule
};
/// Returns the bin of a value in [0, 1]. The edges are the doubles b / bins: for 15 bins, 0.2 is an
/// edge.
std::size_t bin_of(double value, std::size_t bins, BinEdges edges);

/// One bin of a reliability diagram. BinEdges says which of low and high belongs to the bin.
struct ReliabilityBin {
  double low = 0.0;
  double high = 0.0;
  std::size_t count = 0;
  double confidence = 0.0;  ///< mean of the largest probability; 0 if empty
  double accuracy = 0.0;    ///< share of right predictions; 0 if empty
};

/// Expected calibration error (Guo et al. 2017, eq. 3). The confidence is the probability of the
/// predicted class, and the bins have equal width. Over the predictions of all episodes together,
/// ECE = sum_b (n_b / n) |accuracy_b - confidence_b|.
class Calibration {
 public:
  explicit Calibration(std::size_t bins = 15, BinEdges edges = BinEdges::right);
  void add(double confidence, bool right);
  double ece() const;  ///< NaN if empty
  /// Maximum calibration error: the largest |accuracy_b - confidence_b| of a bin that is not empty.
  /// NaN if all bins are empty.
  double mce() const;
  std::vector<ReliabilityBin> bins() const;

 private:
  struct Sum {
    std::size_t count = 0;
    std::size_t right = 0;
    double confidence = 0.0;
  };
  std::vector<Sum> sums_;
  BinEdges edges_;
};

/// Means over the rows of one episode.
struct ClassificationScore {
  double accuracy = 0.0;  ///< in [0, 1]; ties go to the lowest class
  /// Mean of -log p(label) in nats. p is at least the smallest normal double (708 nats).
  double nll = 0.0;
  double brier = 0.0;  ///< sum over classes of (p - 1[label])^2, in [0, 2]
};

/// Accumulates classification scores over episodes.
class ClassificationMetrics {
 public:
  /// `bins` and `edges` define the bins of the calibration error.
  explicit ClassificationMetrics(std::size_t bins = 15, BinEdges edges = BinEdges::right)
      : calibration_(bins, edges) {}
  /// Adds one episode. Call it in episode order. probabilities [n, classes] have rows that sum to
  /// one, and labels are in [0, classes). Throws Error for no rows, a label out of range or a
  /// probability that is not finite.
  ClassificationScore add_episode(std::span<const double> probabilities,
                                  std::span<const std::int32_t> labels, std::size_t classes);
  std::size_t episodes() const { return accuracy_.count(); }
  Estimate accuracy() const { return accuracy_.estimate(); }
  Estimate nll() const { return nll_.estimate(); }
  Estimate brier() const { return brier_.estimate(); }
  const Calibration& calibration() const { return calibration_; }

 private:
  Mean accuracy_, nll_, brier_;
  Calibration calibration_;
};

// ---- regression ----

/// -log N(y; mean, std^2) in nats, with std > 0.
double gaussian_nll(double y, double mean, double std);
/// -log of the equal mixture (1/S) sum_s N(y; means_s, std^2), which is the predictive likelihood
/// of S posterior samples with observation noise `std`.
double mixture_nll(double y, std::span<const double> means, double std);

/// Quantile of a standard normal distribution, p in (0, 1). It is Acklam's rational approximation
/// with one Halley step, which is as accurate as erfc.
double normal_quantile(double p);
double normal_cdf(double z);

struct Band {
  double low;
  double high;
};
/// Central band of N(mean, std^2) with probability `level` (0.9: from 5 % to 95 %).
Band central_band(double mean, double std, double level);
/// Central band of samples: quantiles (1 -+ level) / 2, linear between order statistics (type 7 of
/// Hyndman and Fan, as in NumPy). `sorted` is ascending and not empty.
Band central_band(std::span<const double> sorted, double level);
/// Central band of the mixture (1/S) sum_s N(means_s, std^2), by bisection. std = 0 gives the band
/// of the samples.
Band mixture_band(std::span<const double> sorted_means, double std, double level);

/// Share of targets within central bands, by episode. The default levels are those that reports
/// show.
class Coverage {
 public:
  explicit Coverage(std::vector<double> levels = {0.5, 0.9, 0.95});
  /// Adds one target of the current episode: its band for each level, in the order of levels().
  void add(double y, std::span<const Band> bands);
  /// Adds one target with the prediction N(mean, std^2).
  void add_gaussian(double y, double mean, double std);
  /// Adds one target with the mixture of S samples and observation noise `std` as prediction
  /// (0 means the samples themselves). Sorts `means` in place.
  void add_mixture(double y, std::span<double> means, double std);
  /// Ends the episode and returns its share of targets for each level. An episode without targets
  /// does not count and returns nothing.
  std::vector<double> end_episode();
  const std::vector<double>& levels() const { return levels_; }
  Estimate observed(std::size_t level) const { return observed_[level].estimate(); }

 private:
  void add_probability(double p);

  std::vector<double> levels_;
  std::vector<std::size_t> inside_;
  std::size_t targets_ = 0;
  std::vector<Mean> observed_;
};

/// Coefficient of determination of predictions and targets [n, outputs], over rows and outputs:
///   1 - sum (y - p)^2 / sum (y - m)^2, where m is the mean of an output's targets.
/// It is at most 1, 0 for predicting these means, and negative for worse predictions. NaN where
/// every target equals its mean.
double r_squared(std::span<const double> predictions, std::span<const double> targets,
                 std::size_t outputs);

struct RegressionScore {
  double mse = 0.0;
  double nll = 0.0;  ///< nats per row; NaN where the prediction has no density
  /// Share of targets within the band of each level; empty for a point prediction.
  std::vector<double> coverage;
};

/// Accumulates regression scores over episodes: MSE (mean over rows and outputs), NLL, coverage.
class RegressionMetrics {
 public:
  /// Adds one episode and returns its scores. samples [S, n, outputs] are posterior samples of the
  /// prediction (S = 1 is a point estimate), and targets are [n, outputs]. noise_std is the
  /// standard deviation of the observation noise, or 0 if there is none: then the mixture has no
  /// density, and NLL is not recorded. The prediction is the mean of the samples. Coverage is
  /// recorded where S > 1 or noise_std > 0. Throws Error for no rows or numbers that are not
  /// finite.
  RegressionScore add_episode(std::span<const double> samples, std::size_t sample_count,
                              std::span<const double> targets, double noise_std);
  /// Adds one episode whose targets have separate noises, [n, outputs].
  RegressionScore add_episode(std::span<const double> samples, std::size_t sample_count,
                              std::span<const double> targets, std::span<const double> noise_std);
  std::size_t episodes() const { return mse_.count(); }
  Estimate mse() const { return mse_.estimate(); }
  Estimate nll() const { return nll_.estimate(); }  ///< count 0 if never recorded
  const Coverage& coverage() const { return coverage_; }

 private:
  Mean mse_, nll_;
  Coverage coverage_;
};

}  // namespace kshot::metrics
