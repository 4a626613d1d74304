// Baselines with which meta-learning is compared: predictors that see the support set of one task
// and nothing else. They compute in double precision, are deterministic, and take one task at a
// time. Features are [n, dim], row-major. Baselines on pairs of rows are in
// metrics/pair_baselines.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kshot::metrics {

/// One task's features.
struct Features {
  std::span<const float> support;  ///< [support_n, dim]
  std::span<const float> query;    ///< [query_n, dim]
  std::size_t dim = 0;
};

/// Nearest centroid on raw features: softmax of the negative squared distance to the class means,
/// as in prototypical networks (Snell et al. 2017) with the identity as embedding. A class without
/// support examples has probability 0. Returns [query_n, classes].
std::vector<double> nearest_centroid(const Features& features, std::span<const std::int32_t> labels,
                                     std::size_t classes);

/// Classes as Gaussians with one covariance: softmax of minus half the squared Mahalanobis distance
/// to the class means, with equal class priors (linear discriminant analysis; Bateni et al. 2020
/// for few-shot tasks).
///
/// The covariance is that of the support rows around their class means, pooled over classes,
/// S = E^T E / n, and shrunk towards the identity: (1 - delta) S + delta mu I with mu = tr(S) / dim
/// and
///   delta = min(1, ((sum_i ||e_i||^4) / n - ||S||^2) / (n ||S - mu I||^2))
/// of Ledoit and Wolf (2004), but at least 0.01. Where every row equals its class mean (one shot),
/// the result is that of nearest_centroid.
///
/// A class without support examples has probability 0. The linear systems have the smaller of the
/// sizes support_n and dim. Returns [query_n, classes].
std::vector<double> mahalanobis(const Features& features, std::span<const std::int32_t> labels,
                                std::size_t classes);

/// Share of each class in the support set, as the prediction for any query. Returns [classes].
std::vector<double> class_prior(std::span<const std::int32_t> labels, std::size_t classes);

/// Mean support target, as the prediction for any query: values [support_n, outputs] -> [outputs].
std::vector<double> support_mean(std::span<const float> values, std::size_t outputs);

struct LogisticOptions {
  /// Weight of the penalty in the objective: sum over the support set of cross-entropy +
  /// l2 ||W||^2 / 2. The biases are not penalised. (scikit-learn's C is 1 / l2.)
  double l2 = 1.0;
  int max_iterations = 200;
  /// Largest entry of the gradient, in the basis of the support's span, at which the fit ends.
  double tolerance = 1e-7;
};

/// A linear softmax classifier on raw features: logits = W x + b.
class LogisticRegression {
 public:
  /// Fits by L-BFGS. The optimum of W lies in the span of the support examples. The search
  /// therefore runs in this span (at most support_n of the dim directions), which is exact, and
  /// cheap for images.
  /// Throws Error for sizes that do not fit, a label out of range or features that are not finite.
  LogisticRegression(std::span<const float> support, std::size_t dim,
                     std::span<const std::int32_t> labels, std::size_t classes,
                     const LogisticOptions& options = {});
  /// query [n, dim] -> probabilities [n, classes].
  std::vector<double> predict(std::span<const float> query) const;

  const std::vector<double>& weight() const { return weight_; }  ///< [classes, dim]
  const std::vector<double>& bias() const { return bias_; }      ///< [classes]
  bool converged() const { return converged_; }

 private:
  std::size_t dim_;
  std::size_t classes_;
  std::vector<double> weight_, bias_;
  bool converged_ = false;
};

/// A linear model of values in closed form: it minimises sum ||y - W x - b||^2 + l2 ||W||^2, with
/// l2 > 0 and without a penalty on the biases. Throws Error as LogisticRegression does.
class RidgeRegression {
 public:
  RidgeRegression(std::span<const float> support, std::size_t dim, std::span<const float> values,
                  std::size_t outputs, double l2 = 1.0);
  /// query [n, dim] -> values [n, outputs].
  std::vector<double> predict(std::span<const float> query) const;

  const std::vector<double>& weight() const { return weight_; }  ///< [outputs, dim]
  const std::vector<double>& bias() const { return bias_; }      ///< [outputs]

 private:
  std::size_t dim_;
  std::size_t outputs_;
  std::vector<double> weight_, bias_;
};

}  // namespace kshot::metrics
