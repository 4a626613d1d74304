// What evaluation measures: accuracy, likelihood, calibration, coverage. Plain functions and
// accumulators over host memory; nothing here knows tasks, networks or devices.
//
// Whatever is averaged is averaged first within an episode and then over episodes, so the spread is
// the spread between tasks. Accumulators are fed in episode order and sum in double in that order:
// the same episodes give the same bits, however evaluation was threaded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kshot::metrics {

/// A mean over episodes. half_width is that of the 95 % confidence interval by the normal
/// approximation: 1.96 s / sqrt(n), s the sample standard deviation (n - 1), as few-shot papers
/// report it. NaN where there are fewer than two episodes.
struct Estimate {
  double mean;
  double half_width;
  std::size_t count;
};

/// Mean and spread of a stream of numbers (Welford's update).
class Mean {
 public:
  void add(double value);
  std::size_t count() const { return count_; }
  double mean() const;                ///< NaN where empty
  double standard_deviation() const;  ///< sample (n - 1); NaN below two values
  Estimate estimate() const;

 private:
  std::size_t count_ = 0;
  double mean_ = 0.0;
  double squares_ = 0.0;
};

Estimate estimate(std::span<const double> values);

// ---- classification ----

/// log(sum_i exp(x_i)) without overflow; -infinity where empty.
double log_sum_exp(std::span<const double> x);
/// probabilities = softmax(logits), same length (may be the same memory).
void softmax(std::span<const double> logits, std::span<double> probabilities);
/// log_probabilities = log softmax(logits), same length (may be the same memory).
void log_softmax(std::span<const double> logits, std::span<double> log_probabilities);

/// Predictive probabilities of posterior samples: the mean over samples of softmax(logits).
/// logits [samples, rows, classes] -> probabilities [rows, classes].
void mean_softmax(std::span<const double> logits, std::size_t samples, std::size_t rows,
                  std::size_t classes, std::span<double> probabilities);

/// Which of its two edges belongs to a bin of equal width in [0, 1].
enum class BinEdges {
  right,  ///< (low, high], the first bin closed: scikit-learn's rule
  left,   ///< [low, high), the last bin closed: netcal's rule
};
/// The bin of a value in [0, 1] among `bins`. The edges are the doubles b / bins: 0.2 lies on an
/// edge of 15 bins.
std::size_t bin_of(double value, std::size_t bins, BinEdges edges);

/// One bin of a reliability diagram; BinEdges says which of low and high belongs to it.
struct ReliabilityBin {
  double low = 0.0;
  double high = 0.0;
  std::size_t count = 0;
  double confidence = 0.0;  ///< mean of the largest probability; 0 where empty
  double accuracy = 0.0;    ///< share of right predictions; 0 where empty
};

/// Expected calibration error (Guo et al. 2017, eq. 3): confidence is the probability of the
/// predicted class, bins are of equal width, ECE = sum_b (n_b / n) |accuracy_b - confidence_b| over
/// all predictions of all episodes together.
class Calibration {
 public:
  explicit Calibration(std::size_t bins = 15, BinEdges edges = BinEdges::right);
  void add(double confidence, bool right);
  double ece() const;  ///< NaN where empty
  /// Maximum calibration error: the largest |accuracy_b - confidence_b| of a bin that is not empty.
  /// NaN where all are.
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

/// Means of one episode's rows.
struct ClassificationScore {
  double accuracy = 0.0;  ///< in [0, 1]; ties go to the lowest class
  double nll = 0.0;  ///< -log p(label), nats; p is floored at the smallest normal double (708 nats)
  double brier = 0.0;  ///< sum over classes of (p - 1[label])^2, in [0, 2]
};

/// Classification over episodes.
class ClassificationMetrics {
 public:
  /// Bins of the calibration error.
  explicit ClassificationMetrics(std::size_t bins = 15, BinEdges edges = BinEdges::right)
      : calibration_(bins, edges) {}
  /// One episode, in episode order: probabilities [n, classes] with rows that sum to one, labels in
  /// [0, classes). Throws Error for no rows, a label out of range or a probability that is not
  /// finite.
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

/// -log N(y; mean, std^2), nats. std > 0.
double gaussian_nll(double y, double mean, double std);
/// -log of the equal mixture (1/S) sum_s N(y; means_s, std^2): the predictive likelihood of S
/// posterior samples under observation noise `std`.
double mixture_nll(double y, std::span<const double> means, double std);

/// Quantile of a standard normal, p in (0, 1) (Acklam's rational approximation with one Halley
/// step: as accurate as erfc).
double normal_quantile(double p);
double normal_cdf(double z);

struct Band {
  double low;
  double high;
};
/// Central band of N(mean, std^2) that holds `level` (0.9: from 5 % to 95 %).
Band central_band(double mean, double std, double level);
/// Central band of samples: quantiles (1 -+ level) / 2, linear between order statistics (Hyndman
/// and Fan's type 7, as in NumPy). `sorted` ascending, not empty.
Band central_band(std::span<const double> sorted, double level);
/// The same of the mixture (1/S) sum_s N(means_s, std^2), by bisection; std = 0 gives the samples'.
Band mixture_band(std::span<const double> sorted_means, double std, double level);

/// Share of targets within central bands, by episode. The default levels are those reports show.
class Coverage {
 public:
  explicit Coverage(std::vector<double> levels = {0.5, 0.9, 0.95});
  /// One target of the current episode: its band for each level, in the order of levels().
  void add(double y, std::span<const Band> bands);
  /// One target under N(mean, std^2).
  void add_gaussian(double y, double mean, double std);
  /// One target under the mixture of S samples with observation noise `std` (0: the samples').
  /// Sorts `means` in place.
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

/// Coefficient of determination of predictions and targets [n, outputs]: 1 - sum (y - p)^2 /
/// sum (y - m)^2 over rows and outputs, m the mean of an output's targets. At most 1; 0 for the
/// mean of these targets, negative for what is worse. NaN where no target differs from its mean.
double r_squared(std::span<const double> predictions, std::span<const double> targets,
                 std::size_t outputs);

struct RegressionScore {
  double mse = 0.0;
  double nll = 0.0;  ///< nats per row; NaN where the prediction has no density
  /// Share of targets within the band of each level; empty for a point prediction.
  std::vector<double> coverage;
};

/// Regression over episodes: MSE (mean over rows and outputs), NLL, coverage.
class RegressionMetrics {
 public:
  /// One episode. samples [S, n, outputs] posterior samples of the prediction (S = 1: a point
  /// estimate), targets [n, outputs], noise_std the observation noise, 0 where there is none: then
  /// the mixture has no density and NLL is not recorded. The prediction is the samples' mean;
  /// coverage is recorded where S > 1 or noise_std > 0. Throws Error for no rows or numbers that
  /// are not finite. Returns the episode's scores.
  RegressionScore add_episode(std::span<const double> samples, std::size_t sample_count,
                              std::span<const double> targets, double noise_std);
  /// The same for a noise of its own for each target, [n, outputs].
  RegressionScore add_episode(std::span<const double> samples, std::size_t sample_count,
                              std::span<const double> targets, std::span<const double> noise_std);
  std::size_t episodes() const { return mse_.count(); }
  Estimate mse() const { return mse_.estimate(); }
  Estimate nll() const { return nll_.estimate(); }  ///< count 0 where never recorded
  const Coverage& coverage() const { return coverage_; }

 private:
  Mean mse_, nll_;
  Coverage coverage_;
};

}  // namespace kshot::metrics
