// Measures of a predictive distribution of a number: CRPS, probability integral transform,
// sharpness. As in metrics/metrics.h, a distribution is N(mean, std^2), or the equal mixture
// (1/S) sum_s N(means_s, std^2) of S posterior samples with observation noise. With std = 0, the
// mixture consists of the samples themselves. (mixture_nll is in metrics/metrics.h.)
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace kshot::metrics {

/// Continuous ranked probability score, the integral of (F(x) - 1[x >= y])^2, in the unit of y.
/// Smaller is better. The closed form for a Gaussian (Gneiting and Raftery 2007, section 4.2) is
///   std (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)),  z = (y - mean) / std.
/// It is |y - mean| where std is 0.
double crps_gaussian(double y, double mean, double std);
/// CRPS of the mixture in closed form (Grimit et al. 2006):
///   mean_s A(y - m_s, std^2) - mean_st A(m_s - m_t, 2 std^2) / 2,  A(d, v) = E |d + sqrt(v) e|
/// with e standard normal. Where std is 0, it is the CRPS of the samples' empirical distribution,
/// mean_s |y - m_s| - mean_st |m_s - m_t| / 2. The cost is S^2 steps, or S log S where std is 0.
/// Throws Error if there are no means.
double crps_mixture(double y, std::span<const double> means, double std);

/// Probability integral transform F(y). It is uniform in [0, 1] where the prediction is calibrated.
double pit_gaussian(double y, double mean, double std);
/// Probability integral transform of the mixture. Where std is 0, it is the share of samples below
/// y, and samples equal to y count half. It is in [0, 1] in spite of rounding.
double pit_mixture(double y, std::span<const double> means, double std);

/// Standard deviation of the mixture: sqrt(variance of the means (divided by S) + std^2). Its mean
/// over predictions is their sharpness (Gneiting et al. 2007): of two calibrated predictions the
/// sharper one is better.
double mixture_std(std::span<const double> means, double std);

/// Counts of PIT values in bins of equal width, [low, high), with the last one closed (as in
/// numpy.histogram).
class PitHistogram {
 public:
  explicit PitHistogram(std::size_t bins = 10);
  /// Throws Error for a value outside [0, 1].
  void add(double pit);
  const std::vector<std::size_t>& counts() const { return counts_; }
  std::size_t total() const { return total_; }
  /// The shares of the bins times the number of bins. They are 1 everywhere where the prediction is
  /// calibrated, and larger at the ends where its bands are too narrow. NaN if empty.
  std::vector<double> densities() const;

 private:
  std::vector<std::size_t> counts_;
  std::size_t total_ = 0;
};

}  // namespace kshot::metrics
