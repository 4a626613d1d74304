// Bayesian linear regression y = w x + e, e ~ N(0, s2), with the conjugate prior
// s2 ~ InverseGamma(a0, b0), w | s2 ~ N(0, s2 / lambda I), in double precision.
//
// After n rows, with L = lambda I + X^T X:
//   mean m = L^-1 X^T y,  a = a0 + n / 2,  b = b0 + (y^T y - m^T L m) / 2.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "kshot/random.h"

namespace kshot::bandit {

/// The prior.
struct RegressionPrior {
  double shape = 6.0, rate = 6.0;  ///< a0 and b0
  double lambda = 0.25;
};

/// The posterior of one regression.
class BayesRegression {
 public:
  BayesRegression() = default;
  BayesRegression(const RegressionPrior& prior, std::size_t inputs);

  std::size_t inputs() const { return inputs_; }
  std::size_t rows() const { return rows_; }
  void add(std::span<const float> x, double y);
  /// Forgets the rows.
  void clear();

  double shape() const;
  /// b, which is at least b0.
  double rate();
  /// Posterior mean of the weights.
  std::span<const double> mean();
  /// Draws s2 and then w [inputs] from the posterior.
  void sample(RandomStream& stream, std::span<double> w);

 private:
  void solve();

  RegressionPrior prior_;
  std::size_t inputs_ = 0, rows_ = 0;
  std::vector<double> precision_, xy_;  ///< lower triangle of L [inputs, inputs], and X^T y
  double yy_ = 0.0;                     ///< y^T y
  bool solved_ = false;                 ///< true: factor_, mean_ and rate_ are those of all rows
  std::vector<double> factor_, mean_;   ///< Cholesky factor of L, and m
  double rate_ = 0.0;
};

/// Draws from Gamma(shape, 1), shape >= 1 (Marsaglia and Tsang 2000).
double gamma_draw(RandomStream& stream, double shape);

/// Returns the dot product w x.
double product(std::span<const double> w, std::span<const float> x);

}  // namespace kshot::bandit
