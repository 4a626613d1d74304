#include "metrics/baselines.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "kshot/error.h"
#include "metrics/baseline_checks.h"
#include "metrics/metrics.h"
#include "metrics/small_algebra.h"

namespace kshot::metrics {
namespace {

/// The least share of the identity in a shrunk covariance. Where all residuals have equal outer
/// products (two rows of one class), the estimated share is 0, and the covariance would be
/// singular.
constexpr double kLeastShrinkage = 0.01;

/// An orthonormal basis of the span of some rows, and the coordinates of the rows in this basis. A
/// model with an l2 penalty on its weights has its optimum in the span.
struct Span {
  std::size_t rank = 0;
  std::vector<double> basis;        // [rank, dim]
  std::vector<double> coordinates;  // [rows, rank]
};

Span span_of(const std::vector<double>& rows, std::size_t dim) {
  const std::size_t n = rows.size() / dim;
  Span span;
  std::vector<double> rest(dim);
  for (std::size_t i = 0; i < n && span.rank < dim; ++i) {
    const auto row = std::span(rows).subspan(i * dim, dim);
    const double length = std::sqrt(dot(row, row));
    std::copy(row.begin(), row.end(), rest.begin());
    for (int pass = 0; pass < 2; ++pass) {  // Gram-Schmidt twice is enough (Kahan, Parlett)
      for (std::size_t j = 0; j < span.rank; ++j) {
        const auto direction = std::span(span.basis).subspan(j * dim, dim);
        add_scaled(rest, -dot(direction, rest), direction);
      }
    }
    const double left = std::sqrt(dot(rest, rest));
    if (left <= 1e-12 * length) continue;  // also skips zero rows
    for (double value : rest) span.basis.push_back(value / left);
    ++span.rank;
  }
  span.coordinates.resize(n * span.rank);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < span.rank; ++j) {
      span.coordinates[i * span.rank + j] =
          dot(std::span(rows).subspan(i * dim, dim), std::span(span.basis).subspan(j * dim, dim));
    }
  }
  return span;
}

/// Converts weights on coordinates [outputs, rank] to weights on features [outputs, dim].
std::vector<double> expand(const Span& span, std::span<const double> weight, std::size_t outputs,
                           std::size_t dim) {
  std::vector<double> out(outputs * dim, 0.0);
  for (std::size_t o = 0; o < outputs; ++o) {
    for (std::size_t j = 0; j < span.rank; ++j) {
      add_scaled(std::span(out).subspan(o * dim, dim), weight[o * span.rank + j],
                 std::span(span.basis).subspan(j * dim, dim));
    }
  }
  return out;
}

std::vector<double> linear(std::span<const float> x, std::size_t dim,
                           const std::vector<double>& weight, const std::vector<double>& bias) {
  const std::size_t rows = check_rows(x, dim, "query set");
  const std::size_t outputs = bias.size();
  std::vector<double> out(rows * outputs);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t o = 0; o < outputs; ++o) {
      double sum = bias[o];
      for (std::size_t d = 0; d < dim; ++d) sum += weight[o * dim + d] * x[r * dim + d];
      out[r * outputs + o] = sum;
    }
  }
  return out;
}

/// Softmax regression in the coordinates of the span. The parameters are W [classes, rank],
/// followed by b [classes].
class LogisticObjective {
 public:
  LogisticObjective(const Span& span, std::span<const std::int32_t> labels, std::size_t classes,
                    double l2)
      : span_(span), labels_(labels), classes_(classes), l2_(l2), row_(classes) {}

  std::size_t size() const { return classes_ * (span_.rank + 1); }

  double operator()(std::span<const double> parameters, std::span<double> gradient) {
    const std::size_t rank = span_.rank;
    const auto weight = parameters.first(classes_ * rank);
    const auto bias = parameters.subspan(classes_ * rank);
    const auto bias_gradient = gradient.subspan(classes_ * rank);
    std::fill(gradient.begin(), gradient.end(), 0.0);
    double value = 0.5 * l2_ * dot(weight, weight);
    add_scaled(gradient.first(classes_ * rank), l2_, weight);
    for (std::size_t i = 0; i < labels_.size(); ++i) {
      const auto x = std::span(span_.coordinates).subspan(i * rank, rank);
      for (std::size_t c = 0; c < classes_; ++c) {
        row_[c] = bias[c] + dot(weight.subspan(c * rank, rank), x);
      }
      const auto label = static_cast<std::size_t>(labels_[i]);
      const double norm = log_sum_exp(row_);
      value += norm - row_[label];
      for (std::size_t c = 0; c < classes_; ++c) {
        const double slope = std::exp(row_[c] - norm) - (c == label ? 1.0 : 0.0);
        add_scaled(gradient.subspan(c * rank, rank), slope, x);
        bias_gradient[c] += slope;
      }
    }
    return value;
  }

 private:
  const Span& span_;
  std::span<const std::int32_t> labels_;
  std::size_t classes_;
  double l2_;
  std::vector<double> row_;
};

/// L-BFGS (Nocedal & Wright 2006, algorithm 7.4) with backtracking, for smooth convex functions.
/// Returns true if the gradient fell below the tolerance.
template <typename Objective>
bool minimise(Objective& objective, std::vector<double>& x, int max_iterations, double tolerance) {
  constexpr std::size_t memory = 10;
  struct Pair {
    std::vector<double> step, change;
    double inverse_product;
  };
  const std::size_t n = x.size();
  std::vector<Pair> pairs;  // oldest first
  std::vector<double> gradient(n), direction(n), next(n), next_gradient(n), scale(memory);
  double value = objective(x, gradient);
  for (int iteration = 0;; ++iteration) {
    double largest = 0.0;
    for (double g : gradient) largest = std::max(largest, std::abs(g));
    if (largest <= tolerance) return true;
    if (iteration == max_iterations) return false;

    direction = gradient;
    for (std::size_t i = pairs.size(); i-- > 0;) {
      scale[i] = pairs[i].inverse_product * dot(pairs[i].step, direction);
      add_scaled(direction, -scale[i], pairs[i].change);
    }
    double first = 1.0 / std::max(1.0, std::sqrt(dot(gradient, gradient)));
    if (!pairs.empty()) {
      const Pair& last = pairs.back();
      first = 1.0 / (last.inverse_product * dot(last.change, last.change));
    }
    for (double& d : direction) d *= first;
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      const double correction = pairs[i].inverse_product * dot(pairs[i].change, direction);
      add_scaled(direction, scale[i] - correction, pairs[i].step);
    }

    const double slope = -dot(gradient, direction);
    double length = 1.0;
    double next_value = 0.0;
    for (int halving = 0;; ++halving) {
      if (halving == 50) return false;  // rounding errors hide any lower value
      next = x;
      add_scaled(next, -length, direction);
      next_value = objective(next, next_gradient);
      if (next_value <= value + 1e-4 * length * slope) break;
      length *= 0.5;
    }

    Pair pair{std::vector<double>(n), std::vector<double>(n), 0.0};
    for (std::size_t i = 0; i < n; ++i) {
      pair.step[i] = next[i] - x[i];
      pair.change[i] = next_gradient[i] - gradient[i];
    }
    const double product = dot(pair.step, pair.change);
    if (product > 1e-12 * dot(pair.change, pair.change)) {
      pair.inverse_product = 1.0 / product;
      if (pairs.size() == memory) pairs.erase(pairs.begin());
      pairs.push_back(std::move(pair));
    }
    x.swap(next);
    gradient.swap(next_gradient);
    value = next_value;
  }
}

struct ClassMeans {
  std::vector<std::size_t> count;  // [classes]
  std::vector<double> mean;        // [classes, dim], zero if a class has no rows
};

ClassMeans class_means(std::span<const float> rows, std::size_t dim,
                       std::span<const std::int32_t> labels, std::size_t classes) {
  ClassMeans means{std::vector<std::size_t>(classes, 0), std::vector<double>(classes * dim, 0.0)};
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const auto label = static_cast<std::size_t>(labels[i]);
    ++means.count[label];
    for (std::size_t d = 0; d < dim; ++d) means.mean[label * dim + d] += rows[i * dim + d];
  }
  for (std::size_t c = 0; c < classes; ++c) {
    if (means.count[c] == 0) continue;
    for (std::size_t d = 0; d < dim; ++d) {
      means.mean[c * dim + d] /= static_cast<double>(means.count[c]);
    }
  }
  return means;
}

/// The covariance (1 - delta) E^T E / n + delta mu I of rows E [n, dim] with mean zero, where delta
/// is the estimate of Ledoit and Wolf (2004), and Mahalanobis distances with this covariance. The
/// linear systems have the smaller of the sizes n and dim.
class ShrunkCovariance {
 public:
  ShrunkCovariance(std::vector<double> rows, std::size_t dim)
      : rows_(std::move(rows)), dim_(dim), n_(rows_.size() / dim) {
    const double n = static_cast<double>(n_), d = static_cast<double>(dim);
    gram();
    double trace = 0.0, squares = 0.0, fourths = 0.0;  // tr S, ||S||^2, sum ||e||^4
    for (std::size_t i = 0; i < n_; ++i) {
      const double length = dot(row(i), row(i));
      trace += length / n;
      fourths += length * length;
    }
    for (std::size_t i = 0; i < size_; ++i) {
      const auto line = std::span(factor_).subspan(i * size_, i);
      const double diagonal = factor_[i * size_ + i];
      squares += (2.0 * dot(line, line) + diagonal * diagonal) / (n * n);
    }
    scale_ = trace / d;
    const double distance = squares - d * scale_ * scale_;  // ||S - mu I||^2
    const double error = (fourths / n - squares) / n;       // estimated ||S - Sigma||^2
    shrinkage_ = distance > 1e-12 * squares ? error / distance : 0.0;
    shrinkage_ = std::clamp(shrinkage_, kLeastShrinkage, 1.0);
    if (scale_ > 0.0) factorize();
  }

  /// mu, the mean variance of a feature. If it is 0, there is no scale for distances.
  double scale() const { return scale_; }

  /// Transforms a vector x for `distance`: L^-1 x, or L^-1 E x if n < dim.
  std::vector<double> transformed(std::span<const double> x) const {
    std::vector<double> out(x.begin(), x.end());
    if (dual()) {
      out.resize(n_);
      for (std::size_t i = 0; i < n_; ++i) out[i] = dot(row(i), x);
    }
    solve_lower(factor_, size_, out);
    return out;
  }

  /// (x - y)^T Sigma^-1 (x - y) for two vectors and their transformed vectors.
  double distance(std::span<const double> x, std::span<const double> y,
                  std::span<const double> transformed_x,
                  std::span<const double> transformed_y) const {
    const double inside = squared_distance(transformed_x, transformed_y);
    // Woodbury: Sigma^-1 = (I - E^T (E E^T + ridge I)^-1 E) / (delta mu).
    return dual() ? (squared_distance(x, y) - inside) / (shrinkage_ * scale_) : inside;
  }

 private:
  bool dual() const { return n_ < dim_; }
  std::span<const double> row(std::size_t i) const {
    return std::span(rows_).subspan(i * dim_, dim_);
  }

  /// Computes the lower triangle of E E^T if n < dim, else of E^T E.
  void gram() {
    size_ = std::min(n_, dim_);
    factor_.assign(size_ * size_, 0.0);
    if (dual()) {
      for (std::size_t i = 0; i < n_; ++i) {
        for (std::size_t j = 0; j <= i; ++j) factor_[i * n_ + j] = dot(row(i), row(j));
      }
      return;
    }
    for (std::size_t k = 0; k < n_; ++k) {
      for (std::size_t i = 0; i < dim_; ++i) {
        add_scaled(std::span(factor_).subspan(i * dim_, i + 1), row(k)[i], row(k).first(i + 1));
      }
    }
  }

  void factorize() {
    const double n = static_cast<double>(n_);
    double ridge = shrinkage_ * scale_;
    if (dual()) {
      if (shrinkage_ == 1.0) {  // Sigma = mu I
        rows_.assign(rows_.size(), 0.0);
        factor_.assign(factor_.size(), 0.0);
        ridge = 1.0;
      } else {
        ridge *= n / (1.0 - shrinkage_);
      }
    } else {
      for (double& value : factor_) value *= (1.0 - shrinkage_) / n;
    }
    for (std::size_t i = 0; i < size_; ++i) factor_[i * size_ + i] += ridge;
    if (!cholesky(factor_, size_)) {
      throw Error("baseline: the covariance of the support set is singular");
    }
  }

  std::vector<double> rows_;  // [n, dim]
  std::size_t dim_, n_, size_ = 0;
  std::vector<double> factor_;  // [size, size], lower
  double scale_ = 0.0, shrinkage_ = 1.0;
};

}  // namespace

std::vector<double> nearest_centroid(const Features& features, std::span<const std::int32_t> labels,
                                     std::size_t classes) {
  const std::size_t dim = features.dim;
  const std::size_t rows = check_rows(features.support, dim, "support set");
  const std::size_t queries = check_rows(features.query, dim, "query set");
  check_labels(labels, rows, classes);
  const auto [count, centroid] = class_means(features.support, dim, labels, classes);
  std::vector<double> out(queries * classes);
  for (std::size_t q = 0; q < queries; ++q) {
    const auto row = std::span(out).subspan(q * classes, classes);
    for (std::size_t c = 0; c < classes; ++c) {
      if (count[c] == 0) {
        row[c] = -std::numeric_limits<double>::infinity();
        continue;
      }
      double distance = 0.0;
      for (std::size_t d = 0; d < dim; ++d) {
        const double gap = features.query[q * dim + d] - centroid[c * dim + d];
        distance += gap * gap;
      }
      row[c] = -distance;
    }
    softmax(row, row);
  }
  return out;
}

std::vector<double> mahalanobis(const Features& features, std::span<const std::int32_t> labels,
                                std::size_t classes) {
  const std::size_t dim = features.dim;
  const std::size_t rows = check_rows(features.support, dim, "support set");
  const std::size_t queries = check_rows(features.query, dim, "query set");
  check_labels(labels, rows, classes);
  const auto [count, centroid] = class_means(features.support, dim, labels, classes);
  std::vector<double> residuals(features.support.begin(), features.support.end());
  for (std::size_t i = 0; i < rows; ++i) {
    add_scaled(std::span(residuals).subspan(i * dim, dim), -1.0,
               std::span(centroid).subspan(static_cast<std::size_t>(labels[i]) * dim, dim));
  }
  const ShrunkCovariance covariance(std::move(residuals), dim);
  if (covariance.scale() == 0.0) return nearest_centroid(features, labels, classes);
  const auto centre = [&, &means = centroid](std::size_t c) {
    return std::span(means).subspan(c * dim, dim);
  };
  std::vector<std::vector<double>> centres(classes);
  for (std::size_t c = 0; c < classes; ++c) {
    if (count[c] > 0) centres[c] = covariance.transformed(centre(c));
  }
  std::vector<double> out(queries * classes);
  std::vector<double> query(dim);
  for (std::size_t q = 0; q < queries; ++q) {
    std::copy_n(features.query.begin() + static_cast<std::ptrdiff_t>(q * dim), dim, query.begin());
    const std::vector<double> transformed = covariance.transformed(query);
    const auto row = std::span(out).subspan(q * classes, classes);
    for (std::size_t c = 0; c < classes; ++c) {
      row[c] = count[c] == 0
                   ? -std::numeric_limits<double>::infinity()
                   : -0.5 * covariance.distance(query, centre(c), transformed, centres[c]);
    }
    softmax(row, row);
  }
  return out;
}

std::vector<double> class_prior(std::span<const std::int32_t> labels, std::size_t classes) {
  check_labels(labels, labels.size(), classes);
  if (labels.empty()) throw Error("baseline: a support set without examples");
  std::vector<double> share(classes, 0.0);
  for (std::int32_t label : labels) share[static_cast<std::size_t>(label)] += 1.0;
  for (double& s : share) s /= static_cast<double>(labels.size());
  return share;
}

std::vector<double> support_mean(std::span<const float> values, std::size_t outputs) {
  const std::size_t rows = check_rows(values, outputs, "support targets");
  std::vector<double> mean(outputs, 0.0);
  for (std::size_t i = 0; i < values.size(); ++i) mean[i % outputs] += values[i];
  for (double& m : mean) m /= static_cast<double>(rows);
  return mean;
}

LogisticRegression::LogisticRegression(std::span<const float> support, std::size_t dim,
                                       std::span<const std::int32_t> labels, std::size_t classes,
                                       const LogisticOptions& options)
    : dim_(dim), classes_(classes) {
  const std::size_t rows = check_rows(support, dim, "support set");
  check_labels(labels, rows, classes);
  const Span span = span_of({support.begin(), support.end()}, dim);
  LogisticObjective objective(span, labels, classes, options.l2);
  std::vector<double> parameters(objective.size(), 0.0);
  converged_ = minimise(objective, parameters, options.max_iterations, options.tolerance);
  weight_ = expand(span, parameters, classes, dim);
  bias_.assign(parameters.end() - static_cast<std::ptrdiff_t>(classes), parameters.end());
}

std::vector<double> LogisticRegression::predict(std::span<const float> query) const {
  std::vector<double> out = linear(query, dim_, weight_, bias_);
  for (std::size_t r = 0; r < out.size(); r += classes_) {
    const auto row = std::span(out).subspan(r, classes_);
    softmax(row, row);
  }
  return out;
}

RidgeRegression::RidgeRegression(std::span<const float> support, std::size_t dim,
                                 std::span<const float> values, std::size_t outputs, double l2)
    : dim_(dim), outputs_(outputs) {
  const std::size_t rows = check_rows(support, dim, "support set");
  if (check_rows(values, outputs, "support targets") != rows) {
    throw Error("baseline: " + std::to_string(values.size()) + " target numbers, expected " +
                std::to_string(rows) + " rows of " + std::to_string(outputs));
  }
  if (!(l2 > 0.0)) throw Error("baseline: ridge penalty " + std::to_string(l2) + ", expected > 0");
  // For centred features and values the bias is 0.
  std::vector<double> centred(support.begin(), support.end());
  const std::vector<double> middle = support_mean(support, dim);
  for (std::size_t i = 0; i < centred.size(); ++i) centred[i] -= middle[i % dim];
  bias_ = support_mean(values, outputs);
  const Span span = span_of(centred, dim);
  const std::size_t rank = span.rank;
  std::vector<double> gram(rank * rank, 0.0), weight(outputs * rank, 0.0);
  for (std::size_t i = 0; i < rows; ++i) {
    const auto z = std::span(span.coordinates).subspan(i * rank, rank);
    for (std::size_t j = 0; j < rank; ++j) {
      add_scaled(std::span(gram).subspan(j * rank, rank), z[j], z);
    }
    for (std::size_t o = 0; o < outputs; ++o) {
      add_scaled(std::span(weight).subspan(o * rank, rank), values[i * outputs + o] - bias_[o], z);
    }
  }
  for (std::size_t j = 0; j < rank; ++j) gram[j * rank + j] += l2;
  if (!cholesky(gram, rank)) throw Error("baseline: ridge regression's system is singular");
  for (std::size_t o = 0; o < outputs; ++o) {
    const auto right = std::span(weight).subspan(o * rank, rank);
    solve_lower(gram, rank, right);
    solve_lower_transposed(gram, rank, right);
  }
  weight_ = expand(span, weight, outputs, dim);
  for (std::size_t o = 0; o < outputs; ++o) {
    bias_[o] -= dot(std::span(weight_).subspan(o * dim, dim), middle);
  }
}

std::vector<double> RidgeRegression::predict(std::span<const float> query) const {
  return linear(query, dim_, weight_, bias_);
}

}  // namespace kshot::metrics
