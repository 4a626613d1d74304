// Fits one number that corrects the confidence of a trained method: a temperature of class
// probabilities, or a factor of the variance of predicted numbers. The criterion is the mean
// negative log-likelihood over episodes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kshot::metrics {

/// The fitted number, and the NLL before and after (the mean over episodes of the mean over rows).
struct Recalibration {
  double value = 1.0;
  double nll_before = 0.0, nll_after = 0.0;
  /// True if the likelihood still grows at the end of the searched range, which is 0.001 to 1000
  /// for a temperature and 1e-6 to 1e6 for a variance factor.
  bool at_end = false;
};

/// Sets probabilities = p_c^(1/T) / sum_k p_k^(1/T) for each row [classes], in place. A probability
/// of 0 stays 0.
void apply_temperature(std::span<double> probabilities, std::size_t classes, double temperature);

/// Temperature scaling (Guo et al. 2017) of predicted probabilities. The NLL is a convex function
/// of 1/T, so that bisection of its derivative finds the minimum, to a relative accuracy of 1e-9.
class TemperatureFit {
 public:
  /// Adds one episode: probabilities [n, classes], labels in [0, classes), at least one row.
  void add_episode(std::span<const double> probabilities, std::span<const std::int32_t> labels,
                   std::size_t classes);
  Recalibration fit() const;

 private:
  struct Episode {
    std::size_t first = 0, rows = 0, classes = 0, first_label = 0;
  };
  /// Mean NLL at 1/T = `inverse`, and its derivative with respect to 1/T.
  struct Value {
    double nll = 0.0, slope = 0.0;
  };
  Value value(double inverse) const;

  std::vector<double> log_probabilities_;
  std::vector<std::int32_t> labels_;
  std::vector<Episode> episodes_;
};

/// Variance scaling of predictive distributions. Each is the equal mixture
/// (1/S) sum_s N(means_s, std^2), and is stretched about its mean by the square root of the factor.
/// The fit scans the factor on a logarithmic grid, and then runs a golden-section search around the
/// best point, to a relative accuracy of 1e-6. For one sample, the minimum is the mean of the
/// squared standardised residuals.
class VarianceFit {
 public:
  /// Adds one episode: samples [S, n], targets [n], and noise standard deviations std [n], all
  /// above 0.
  void add_episode(std::span<const double> samples, std::size_t sample_count,
                   std::span<const double> targets, std::span<const double> std);
  Recalibration fit() const;

 private:
  double nll(double log_factor) const;

  std::vector<double> weights_;    ///< weight of each target: 1 / number of targets of its episode
  std::vector<double> residuals_;  ///< target minus mean of the mixture
  std::vector<double> stds_;
  std::vector<std::size_t> first_;  ///< index of the first deviation of each target
  std::vector<double> deviations_;  ///< means of the mixture's parts, minus the mean of the mixture
  std::size_t episodes_ = 0;
};

}  // namespace kshot::metrics
