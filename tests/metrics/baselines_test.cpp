// Baselines on features (nearest centroid, Mahalanobis distance, logistic and ridge regression)
// against closed forms and optimality conditions.
#include "metrics/baselines.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kshot/error.h"
#include "metrics/metrics.h"
#include "support/normals.h"

namespace kshot::metrics {
namespace {

TEST(NearestCentroid, ClosedForm) {
  // The centroids are (1, 0) and (0, 2). The query (0, 0) has squared distances 1 and 4.
  const std::vector<float> support = {0, 0, 2, 0, 0, 2};
  const std::vector<std::int32_t> labels = {0, 0, 1};
  const std::vector<float> query = {0, 0};
  const auto p = nearest_centroid({support, query, 2}, labels, 3);
  EXPECT_NEAR(p[0], 1.0 / (1.0 + std::exp(-3.0)), 1e-14);
  EXPECT_NEAR(p[0] + p[1], 1.0, 1e-14);
  EXPECT_EQ(p[2], 0.0);  // This class has no support row.
}

TEST(Mahalanobis, TallByHand) {
  // The residuals are (-1, -1), (1, -1), (0, 2), twice. S = diag(2/3, 2), mu = 4/3, ||S||^2 = 40/9,
  // sum ||e||^4 / n = 8, delta = ((8 - 40/9) / 6) / (8/9) = 2/3, and the covariance is diag(10/9,
  // 14/9).
  const std::vector<float> support = {0, 0, 2, 0, 1, 3, 4, 4, 6, 4, 5, 7}, query = {2, 1};
  const auto p = mahalanobis({support, query, 2}, std::vector<std::int32_t>{0, 0, 0, 1, 1, 1}, 3);
  const double near = 0.9, far = 9 * 0.9 + 16 * 9.0 / 14.0;
  EXPECT_NEAR(p[0], 1.0 / (1.0 + std::exp(-0.5 * (far - near))), 1e-12);
  EXPECT_NEAR(p[0] + p[1], 1.0, 1e-14);
  EXPECT_EQ(p[2], 0.0);  // This class has no support row.
}

TEST(Mahalanobis, WideByHand) {
  // The residuals are (1, 0, 0, 0), (-1, 0, 0, 0) and 0. S = diag(2/3, 0, 0, 0), mu = 1/6, delta =
  // 2/9, and the covariance is diag(15, 1, 1, 1) / 27. The class means are 0 and (0, 2, 0, 0).
  const std::vector<float> support = {1, 0, 0, 0, -1, 0, 0, 0, 0, 2, 0, 0};
  const std::vector<float> query = {3, 0.95f, 0, 1};
  const auto p = mahalanobis({support, query, 4}, std::vector<std::int32_t>{0, 0, 1}, 2);
  const double x = 0.95f;
  const double gap = 27.0 * ((2 - x) * (2 - x) - x * x);  // The other features cancel.
  EXPECT_NEAR(p[0], 1.0 / (1.0 + std::exp(-0.5 * gap)), 1e-12);
}

TEST(Mahalanobis, ResidualsOfOneDirectionAreShrunkAll) {
  // The only residuals are +-(1, 0, 0, 0, 0). The estimated delta is 0, so that 0.01 is used, and
  // the variance of the other features is 0.01 / 5 = 0.002.
  const std::vector<float> support = {1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1, 2, 0, 0, 0, -1, 2, 0, 0, 0};
  const std::vector<float> query = {0, 1.001f, 0, 0, 0};
  const auto p = mahalanobis({support, query, 5}, std::vector<std::int32_t>{0, 0, 1, 1}, 2);
  const double x = 1.001f;
  const double gap = (x * x - (2 - x) * (2 - x)) / 0.002;
  EXPECT_NEAR(p[1], 1.0 / (1.0 + std::exp(-0.5 * gap)), 1e-9);
}

TEST(Mahalanobis, OneShotAndEqualRowsAreTheNearestCentroid) {
  const auto support = test::normals(5 * 7, 1), query = test::normals(4 * 7, 2);
  const std::vector<std::int32_t> labels = {3, 1, 0, 4, 2};
  EXPECT_EQ(mahalanobis({support, query, 7}, labels, 5),
            nearest_centroid({support, query, 7}, labels, 5));
  const std::vector<float> twice = {0.1f, 0.1f, 0.1f, 5}, at = {1};
  const std::vector<std::int32_t> classes = {0, 0, 0, 1};
  EXPECT_EQ(mahalanobis({twice, at, 1}, classes, 2), nearest_centroid({twice, at, 1}, classes, 2));
}

TEST(Mahalanobis, ExtremeInputsAreFine) {
  // The cases are residuals of equal length in every direction (delta = 1), huge and tiny features,
  // constant features, and a single feature.
  const std::vector<float> cross = {1, 0, 0, -1, 0, 0, 0, 1, 0, 0, -1, 0, 0, 0, 1, 0, 0, -1};
  const std::vector<float> large = {1e30f, -1e30f, 3e38f, 0, 1, 1e20f};
  const std::vector<float> tiny = {1e-30f, 0, 2e-30f, 0, 0, 1e-38f};
  const std::vector<float> constant = {4, 1, 4, 2, 4, 3};
  for (const auto& [support, dim] :
       {std::pair{cross, 3u}, {large, 2u}, {tiny, 2u}, {constant, 2u}, {large, 1u}}) {
    std::vector<std::int32_t> labels(support.size() / dim, 0);
    labels.back() = 1;
    const auto p = mahalanobis({support, support, dim}, labels, 2);
    for (std::size_t i = 0; i < p.size(); i += 2) EXPECT_NEAR(p[i] + p[i + 1], 1.0, 1e-12);
  }
  EXPECT_THROW(mahalanobis({{}, cross, 3}, {}, 2), Error);
  EXPECT_THROW(mahalanobis({cross, cross, 3}, std::vector<std::int32_t>{0, 1}, 2), Error);
}

TEST(Priors, SharesAndMeans) {
  const auto share = class_prior(std::vector<std::int32_t>{2, 0, 2, 2}, 3);
  EXPECT_EQ(share, (std::vector<double>{0.25, 0.0, 0.75}));
  const auto mean = support_mean(std::vector<float>{1, 2, 3, 6}, 2);
  EXPECT_EQ(mean, (std::vector<double>{2.0, 4.0}));
}

/// The largest element of the gradient of sum CE + l2 ||W||^2 / 2 in the full feature space. It is
/// computed from the fitted weights alone.
double largest_gradient(const LogisticRegression& fit, const std::vector<float>& x, std::size_t dim,
                        const std::vector<std::int32_t>& labels, std::size_t classes, double l2) {
  std::vector<double> weight(fit.weight()), bias(classes, 0.0);
  for (double& w : weight) w *= l2;
  const auto p = fit.predict(x);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    for (std::size_t c = 0; c < classes; ++c) {
      const double slope =
          p[i * classes + c] - (static_cast<std::size_t>(labels[i]) == c ? 1.0 : 0.0);
      for (std::size_t d = 0; d < dim; ++d) weight[c * dim + d] += slope * x[i * dim + d];
      bias[c] += slope;
    }
  }
  double largest = 0.0;
  for (double g : weight) largest = std::max(largest, std::abs(g));
  for (double g : bias) largest = std::max(largest, std::abs(g));
  return largest;
}

TEST(LogisticRegression, GradientVanishesWideAndTall) {
  struct Case {
    std::size_t rows, dim, classes;
    double l2;
  };
  for (const Case& c : {Case{10, 200, 5, 1.0}, Case{200, 4, 3, 0.1}, Case{5, 5, 5, 0.01}}) {
    const auto x = test::normals(c.rows * c.dim, static_cast<std::uint32_t>(c.rows));
    std::vector<std::int32_t> labels(c.rows);
    for (std::size_t i = 0; i < c.rows; ++i) labels[i] = static_cast<std::int32_t>(i % c.classes);
    const LogisticRegression fit(x, c.dim, labels, c.classes, {.l2 = c.l2, .max_iterations = 500});
    EXPECT_TRUE(fit.converged());
    EXPECT_LT(largest_gradient(fit, x, c.dim, labels, c.classes, c.l2), 1e-5);
  }
}

TEST(LogisticRegression, KnownOptimum) {
  // For x = +-1, two classes and weights +-w, the optimum has one scalar condition: 2 / (1 + exp(2
  // w)) = l2 w.
  const std::vector<float> x = {1, -1};
  const double l2 = 0.5;
  const LogisticRegression fit(x, 1, std::vector<std::int32_t>{0, 1}, 2, {.l2 = l2});
  double low = 0.0, high = 10.0;
  for (int i = 0; i < 200; ++i) {
    const double w = 0.5 * (low + high);
    (2.0 / (1.0 + std::exp(2.0 * w)) > l2 * w ? low : high) = w;
  }
  EXPECT_NEAR(fit.weight()[0], low, 1e-6);
  EXPECT_NEAR(fit.weight()[1], -low, 1e-6);
  EXPECT_NEAR(fit.bias()[0], 0.0, 1e-6);
}

TEST(LogisticRegression, SeparableClassesAreLearned) {
  std::vector<float> x = test::normals(60 * 3, 3);
  std::vector<std::int32_t> labels(60);
  for (std::size_t i = 0; i < 60; ++i) {
    labels[i] = static_cast<std::int32_t>(i % 3);
    x[i * 3 + i % 3] += 12.0f;
  }
  const LogisticRegression fit(x, 3, labels, 3);
  ClassificationMetrics metrics;
  metrics.add_episode(fit.predict(x), labels, 3);
  EXPECT_EQ(metrics.accuracy().mean, 1.0);
  EXPECT_LT(metrics.nll().mean, 0.05);
}

TEST(LogisticRegression, DuplicatesZerosAndAbsentClassesAreFine) {
  const std::vector<float> x = {1, 0, 1, 0, 0, 0};
  const LogisticRegression fit(x, 2, std::vector<std::int32_t>{0, 0, 1}, 3);
  for (double p : fit.predict(x)) EXPECT_TRUE(std::isfinite(p));
  EXPECT_LT(fit.predict(x)[2], 1e-3);
}

TEST(LogisticRegression, SameInputSameBits) {
  const auto x = test::normals(20 * 50, 5);
  std::vector<std::int32_t> labels(20);
  for (std::size_t i = 0; i < 20; ++i) labels[i] = static_cast<std::int32_t>(i % 4);
  const LogisticRegression a(x, 50, labels, 4), b(x, 50, labels, 4);
  EXPECT_EQ(a.weight(), b.weight());
}

TEST(RidgeRegression, NormalEquationsHoldWideAndTall) {
  struct Case {
    std::size_t rows, dim, outputs;
    double l2;
  };
  for (const Case& c : {Case{5, 30, 2, 1.0}, Case{40, 3, 1, 0.5}}) {
    const auto x = test::normals(c.rows * c.dim, 21);
    const auto y = test::normals(c.rows * c.outputs, 22);
    const RidgeRegression fit(x, c.dim, y, c.outputs, c.l2);
    const auto predicted = fit.predict(x);
    for (std::size_t o = 0; o < c.outputs; ++o) {
      double bias = 0.0;
      for (std::size_t i = 0; i < c.rows; ++i) {
        bias += predicted[i * c.outputs + o] - y[i * c.outputs + o];
      }
      EXPECT_NEAR(bias, 0.0, 1e-10);
      for (std::size_t d = 0; d < c.dim; ++d) {
        double gradient = c.l2 * fit.weight()[o * c.dim + d];
        for (std::size_t i = 0; i < c.rows; ++i) {
          gradient += (predicted[i * c.outputs + o] - y[i * c.outputs + o]) * x[i * c.dim + d];
        }
        EXPECT_NEAR(gradient, 0.0, 1e-10);
      }
    }
  }
}

TEST(RidgeRegression, RecoversALine) {
  const std::vector<float> x = {0, 1, 2, 3};
  const std::vector<float> y = {1, 3, 5, 7};
  const RidgeRegression fit(x, 1, y, 1, 1e-9);
  EXPECT_NEAR(fit.weight()[0], 2.0, 1e-8);
  EXPECT_NEAR(fit.bias()[0], 1.0, 1e-8);
}

TEST(Baselines, BadInputIsAnError) {
  const std::vector<float> x = {1, 2, 3, 4};
  const std::vector<std::int32_t> labels = {0, 1};
  EXPECT_THROW(LogisticRegression(x, 3, labels, 2), Error);
  EXPECT_THROW(LogisticRegression(x, 2, labels, 1), Error);
  EXPECT_THROW(LogisticRegression(std::vector<float>{1, NAN, 3, 4}, 2, labels, 2), Error);
  EXPECT_THROW(RidgeRegression(x, 2, std::vector<float>{1}, 1), Error);
  EXPECT_THROW(RidgeRegression(x, 2, std::vector<float>{1, 2}, 1, 0.0), Error);
  EXPECT_THROW(nearest_centroid({x, x, 2}, std::vector<std::int32_t>{0}, 2), Error);
  EXPECT_THROW(class_prior({}, 2), Error);
}

}  // namespace
}  // namespace kshot::metrics
