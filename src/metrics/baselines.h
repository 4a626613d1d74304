// What meta-learning is held against: predictors that see one task's support set and nothing else.
// They compute in double, are deterministic and take one task at a time. Features are [n, dim]
// row-major. Those that go by pairs of rows are in metrics/pair_baselines.h.
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

/// Nearest centroid on raw features: softmax of minus the squared distance to the class means, as
/// in prototypical networks (Snell et al. 2017) with the identity for an embedding. A class without
/// support examples has probability 0. Returns [query_n, classes].
std::vector<double> nearest_centroid(const Features& features, std::span<const std::int32_t> labels,
                                     std::size_t classes);

/// Classes as Gaussians of one covariance: softmax of minus half the squared Mahalanobis distance
/// to the class means, all classes as likely as each other (linear discriminant analysis with equal
/// priors; Bateni et al. 2020 for few-shot tasks). The covariance is that of the support rows
/// around their class means, pooled over classes, S = E^T E / n, shrunk towards the identity:
/// (1 - delta) S + delta mu I with mu = tr(S) / dim and delta = min(1, ((sum_i ||e_i||^4) / n -
/// ||S||^2) / (n ||S - mu I||^2)) of Ledoit and Wolf (2004), at least 0.01. Where every row is its
/// class's mean (one shot), it is the nearest centroid. A class without support examples has
/// probability 0. Solves systems of the smaller of support_n and dim. Returns [query_n, classes].
std::vector<double> mahalanobis(const Features& features, std::span<const std::int32_t> labels,
                                std::size_t classes);

/// Share of each class in the support set, for any query. Returns [classes].
std::vector<double> class_prior(std::span<const std::int32_t> labels, std::size_t classes);

/// Mean support target, for any query: values [support_n, outputs] -> [outputs].
std::vector<double> support_mean(std::span<const float> values, std::size_t outputs);

struct LogisticOptions {
  /// Objective: sum over the support set of cross-entropy + l2 ||W||^2 / 2, biases free (as
  /// scikit-learn's C = 1 / l2).
  double l2 = 1.0;
  int max_iterations = 200;
  double tolerance = 1e-7;  ///< on the largest entry of the gradient, in the support's span
};

/// A linear softmax classifier on raw features: logits = W x + b.
class LogisticRegression {
 public:
  /// Fits by L-BFGS. W's optimum lies in the span of the support examples, so the search runs there
  /// (at most support_n of the dim directions): exact, and cheap for images.
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

/// A linear model of values, in closed form: minimises sum ||y - W x - b||^2 + l2 ||W||^2, biases
/// free. l2 > 0. Throws Error as LogisticRegression.
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
