#include "bandit/bayes_regression.h"

#include <algorithm>
#include <cmath>

#include "kshot/error.h"
#include "metrics/small_algebra.h"

namespace kshot::bandit {

BayesRegression::BayesRegression(const RegressionPrior& prior, std::size_t inputs)
    : prior_(prior), inputs_(inputs) {
  clear();
}

void BayesRegression::clear() {
  precision_.assign(inputs_ * inputs_, 0.0);
  for (std::size_t i = 0; i < inputs_; ++i) precision_[i * inputs_ + i] = prior_.lambda;
  xy_.assign(inputs_, 0.0);
  yy_ = 0.0;
  rows_ = 0;
  solved_ = false;
}

void BayesRegression::add(std::span<const float> x, double y) {
  for (std::size_t i = 0; i < inputs_; ++i) {
    const double xi = static_cast<double>(x[i]);
    xy_[i] += xi * y;
    if (xi == 0.0) continue;
    double* const row = precision_.data() + i * inputs_;
    for (std::size_t j = 0; j <= i; ++j) row[j] += xi * static_cast<double>(x[j]);
  }
  yy_ += y * y;
  ++rows_;
  solved_ = false;
}

void BayesRegression::solve() {
  if (solved_) return;
  factor_ = precision_;
  if (!metrics::cholesky(factor_, inputs_)) {
    throw Error("Bayesian linear regression: the contexts are not finite numbers");
  }
  // With h = C^-1 X^T y, L = C C^T: m = C^-T h and m^T L m = h^T h.
  mean_ = xy_;
  metrics::solve_lower(factor_, inputs_, mean_);
  const double explained = metrics::dot(mean_, mean_);
  metrics::solve_lower_transposed(factor_, inputs_, mean_);
  rate_ = prior_.rate + 0.5 * std::max(0.0, yy_ - explained);
  solved_ = true;
}

double BayesRegression::shape() const {
  return prior_.shape + 0.5 * static_cast<double>(rows_);
}

double BayesRegression::rate() {
  solve();
  return rate_;
}

std::span<const double> BayesRegression::mean() {
  solve();
  return mean_;
}

void BayesRegression::sample(RandomStream& stream, std::span<double> w) {
  solve();
  const double variance = rate_ / gamma_draw(stream, shape());
  for (double& element : w) element = static_cast<double>(stream.normal());
  metrics::solve_lower_transposed(factor_, inputs_, w);
  const double deviation = std::sqrt(variance);
  for (std::size_t i = 0; i < inputs_; ++i) w[i] = mean_[i] + deviation * w[i];
}

double gamma_draw(RandomStream& stream, double shape) {
  const double d = shape - 1.0 / 3.0;
  const double c = 1.0 / std::sqrt(9.0 * d);
  while (true) {
    const double x = static_cast<double>(stream.normal());
    const double root = 1.0 + c * x;
    if (root <= 0.0) continue;
    const double v = root * root * root;
    // u lies in (0, 1), without the ends.
    const double u = (static_cast<double>(stream.uniform()) + 0x1p-25);
    if (std::log(u) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
  }
}

double product(std::span<const double> w, std::span<const float> x) {
  double sum = 0.0;
  for (std::size_t i = 0; i < w.size(); ++i) sum += w[i] * static_cast<double>(x[i]);
  return sum;
}

}  // namespace kshot::bandit
