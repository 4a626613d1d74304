// Baselines on pairs of rows (nearest neighbours and Gaussian processes): small cases by hand, and
// random problems against scikit-learn.
#include "metrics/pair_baselines.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numbers>
#include <numeric>
#include <string>
#include <vector>

#include "kshot/error.h"
#include "metrics/metrics.h"
#include "support/normals.h"
#include "support/python.h"

namespace kshot::metrics {
namespace {

using nlohmann::json;

/// Labels with equally many rows per class, in turn: 0, 1, ..., 0, 1, ...
std::vector<std::int32_t> labels_in_turn(std::size_t rows, std::size_t classes) {
  std::vector<std::int32_t> labels(rows);
  for (std::size_t i = 0; i < rows; ++i) labels[i] = static_cast<std::int32_t>(i % classes);
  return labels;
}

void expect_probabilities(const std::vector<double>& p, std::size_t classes) {
  for (std::size_t r = 0; r < p.size(); r += classes) {
    double sum = 0.0;
    for (std::size_t c = 0; c < classes; ++c) {
      EXPECT_GE(p[r + c], 0.0);
      sum += p[r + c];
    }
    EXPECT_NEAR(sum, 1.0, 1e-12);  // also fails for NaN
  }
}

TEST(RowPairs, DistancesAndSimilarities) {
  const std::vector<float> support = {0, 0, 1, 1, 1, 0}, query = {0, 0, 0, 1};
  const RowPairs d = squared_distances({support, query, 2});
  EXPECT_EQ(d.support, (std::vector<double>{0, 2, 1, 2, 0, 1, 1, 1, 0}));
  EXPECT_EQ(d.query, (std::vector<double>{0, 2, 1, 1, 1, 2}));
  const RowPairs s = tanimoto_similarities({support, query, 2});
  EXPECT_EQ(s.support, (std::vector<double>{1, 0, 0, 0, 1, 0.5, 0, 0.5, 1}));
  EXPECT_EQ(s.query, (std::vector<double>{1, 0, 0, 0, 0.5, 0}));
  const std::vector<float> half = {0, 0.5f};
  EXPECT_FALSE(is_binary({support, half, 2}));
  EXPECT_TRUE(is_binary({support, query, 2}));
  EXPECT_THROW(tanimoto_similarities({half, query, 2}), Error);
  EXPECT_THROW(squared_distances({{}, query, 2}), Error);
  EXPECT_THROW(squared_distances({support, query, 4}), Error);
}

TEST(NearestNeighbours, VotesByHand) {
  // With each row left out in turn, k = 1 gives the labels 3/4, 3/4, 1/4, and k = 2 gives 1/2, 1/2,
  // 1/6.
  const std::vector<float> support = {0, 1, 10}, query = {9, 0.4f};
  const auto p = nearest_neighbour_classes(squared_distances({support, query, 1}),
                                           std::vector<std::int32_t>{0, 0, 1}, 2);
  EXPECT_NEAR(p[0], 0.25, 1e-12);
  EXPECT_NEAR(p[1], 0.75, 1e-12);
  EXPECT_NEAR(p[2], 0.75, 1e-12);
}

TEST(NearestNeighbours, OneShotIsTheNearestRow) {
  const std::vector<float> support = {0, 4, 9}, query = {5};
  const auto p = nearest_neighbour_classes(squared_distances({support, query, 1}),
                                           std::vector<std::int32_t>{2, 0, 1}, 4);
  // With one vote and four classes the probabilities are (1 + 1/2) / 3 and (1/2) / 3.
  EXPECT_NEAR(p[0], 0.5, 1e-12);
  EXPECT_NEAR(p[3], 1.0 / 6.0, 1e-12);
  expect_probabilities(p, 4);
}

TEST(NearestNeighbours, EqualDistancesAndVotes) {
  // There are four rows at each of two points. The query lies in the middle.
  const std::vector<float> support = {0, 0, 0, 0, 1, 1, 1, 1};
  const std::vector<std::int32_t> labels = {1, 1, 1, 1, 0, 0, 0, 0};
  const std::vector<float> query = {0.5f};
  const auto p = nearest_neighbour_classes(squared_distances({support, query, 1}), labels, 2);
  EXPECT_GT(p[1], 0.5) << "of equal distances the lower row comes first";
  const RowPairs pairs{2, 1, {0, 1, 1, 0}, {2.0, 1.0}};
  const auto nearer = nearest_neighbour_classes(pairs, std::vector<std::int32_t>{0, 1}, 2);
  EXPECT_GT(nearer[1], nearer[0]);
}

TEST(NearestNeighbours, ValuesByHand) {
  // With each row left out in turn, the squared errors sum to 4 (k = 1), 2.5 (k = 2) and 16/9 (k =
  // 3).
  const std::vector<float> support = {0, 1, 2, 3}, y = {0, 1, 0, 1}, query = {-1, 9};
  const auto mean = nearest_neighbour_values(squared_distances({support, query, 1}), y, 1);
  EXPECT_NEAR(mean[0], 1.0 / 3.0, 1e-12);
  EXPECT_NEAR(mean[1], 2.0 / 3.0, 1e-12);
  const std::vector<float> one = {5}, two = {3, -1};
  EXPECT_EQ(nearest_neighbour_values(squared_distances({one, one, 1}), two, 2),
            (std::vector<double>{3, -1}));
}

TEST(GaussianProcess, OneRowIsItsTargetWithTheScaleOne) {
  const std::vector<float> support = {0}, y = {5}, query = {0, 1};
  const auto fit = gaussian_process(Kernel::rbf, squared_distances({support, query, 1}), y, 1);
  EXPECT_EQ(fit.noise_share, 0.1);
  EXPECT_EQ(fit.length, 1.0);
  EXPECT_EQ(fit.mean, (std::vector<double>{5, 5}));
  EXPECT_NEAR(fit.std[0], std::sqrt(1.0 - 0.81), 1e-12);
  EXPECT_NEAR(fit.std[1], std::sqrt(1.0 - 0.81 * std::exp(-1.0)), 1e-12);
}

TEST(GaussianProcess, TwoRowsInClosedForm) {
  // The standardized targets -1 and 1 are an eigenvector of K = [1 r; r 1] with the eigenvalue 1 -
  // r. The log likelihood -1 / (1 - r) - log(1 - r^2) / 2 - log(2 pi) is largest for the smallest r
  // of the grid, r = 0.1 exp(-8), where the length is 2 / 4 and the noise share 0.9.
  const std::vector<float> support = {0, 2}, y = {10, 30}, query = {0};
  const auto fit = gaussian_process(Kernel::rbf, squared_distances({support, query, 1}), y, 1);
  const double r = 0.1 * std::exp(-8.0);
  EXPECT_EQ(fit.length, 0.5);
  EXPECT_EQ(fit.noise_share, 0.9);
  EXPECT_NEAR(fit.log_likelihood,
              -1.0 / (1.0 - r) - 0.5 * std::log(1.0 - r * r) - std::log(2.0 * std::numbers::pi),
              1e-12);
  // k = (0.1, r), the mean is 20 + 10 (k_1 (-1) + k_2) / (1 - r), and
  // k^T K^-1 k = (0.01 - 0.2 r r + r^2) / (1 - r^2).
  EXPECT_NEAR(fit.mean[0], 20.0 + 10.0 * (r - 0.1) / (1.0 - r), 1e-9);
  EXPECT_NEAR(fit.std[0], 10.0 * std::sqrt(1.0 - (0.01 - 0.2 * r * r + r * r) / (1.0 - r * r)),
              1e-9);
}

TEST(GaussianProcess, FollowsASmoothFunctionAndSaysWhereItDoesNotKnow) {
  std::vector<float> support, y, query = {0.33f, 8.0f};
  for (int i = -12; i <= 12; ++i) {
    support.push_back(0.25f * static_cast<float>(i));
    y.push_back(2.0f * std::sin(support.back()));
  }
  const auto fit = gaussian_process(Kernel::rbf, squared_distances({support, query, 1}), y, 1);
  EXPECT_EQ(fit.noise_share, 0.001);
  EXPECT_NEAR(fit.mean[0], 2.0 * std::sin(0.33), 0.02);
  EXPECT_LT(fit.std[0], 0.1);
  EXPECT_GT(fit.std[1], 1.0);
}

TEST(GaussianProcess, EqualTargetsAndRowsAndLargeNumbersAreFine) {
  const std::vector<float> rows = {1, 1, 1, 1, 1, 1}, query = {1, 1, 5, -5};
  const RowPairs same = squared_distances({rows, query, 2});
  const std::vector<float> equal = {0.1f, 0.1f, 0.1f}, varied = {1, 2, 6};
  const auto flat = gaussian_process(Kernel::rbf, same, equal, 1);
  EXPECT_EQ(flat.mean[0], static_cast<double>(0.1f)) << "rounding is no variance";
  EXPECT_EQ(flat.noise_share, process_noise_shares[0]) << "nothing to learn from";
  const auto noisy = gaussian_process(Kernel::rbf, same, varied, 1);
  EXPECT_NEAR(noisy.mean[0], 3.0, 1e-9) << "equal rows: the mean of their targets";
  EXPECT_EQ(noisy.noise_share, 0.9);
  const std::vector<float> large = {3e38f, -3e38f, 1e38f, 0.0f};
  const auto far = gaussian_process(Kernel::rbf, squared_distances({large, query, 2}),
                                    std::vector<float>{1, 3e38f}, 1);
  for (double value : far.mean) EXPECT_TRUE(std::isfinite(value));
  for (double value : far.std) EXPECT_GT(value, 0.0);
}

TEST(GaussianProcess, LikelihoodOfLargeSetsIsThatOfSomeRows) {
  // 300 rows are more than the likelihood uses. The fit still uses all of them.
  const auto support = test::normals(300, 1), query = test::normals(5, 2);
  std::vector<float> y(300);
  for (std::size_t i = 0; i < 300; ++i) y[i] = 3.0f * support[i];
  const auto fit = gaussian_process(Kernel::rbf, squared_distances({support, query, 1}), y, 1);
  for (std::size_t q = 0; q < 5; ++q) EXPECT_NEAR(fit.mean[q], 3.0 * query[q], 0.3);
}

TEST(GaussianProcessClasses, OneShotByHand) {
  // Two rows of two classes at distance 2: the length is 2, the noise share 0.1 and r = 0.9
  // exp(-1/2). The indicators have mean and standard deviation 1/2.
  const std::vector<float> support = {0, 2}, query = {0};
  const auto p = gaussian_process_classes(Kernel::rbf, squared_distances({support, query, 1}),
                                          std::vector<std::int32_t>{0, 1}, 2);
  const double r = 0.9 * std::exp(-0.5);
  const double mean = 0.5 * (0.9 - r) / (1.0 - r);  // mean of the first indicator above 1/2
  const double std = 0.5 * std::sqrt(1.0 - (0.81 - 2.0 * r * 0.9 * r + r * r) / (1.0 - r * r));
  const double up = normal_cdf(mean / std), down = normal_cdf(-mean / std);
  EXPECT_NEAR(p[0], up / (up + down), 1e-12);
  EXPECT_NEAR(p[1], down / (up + down), 1e-12);
}

TEST(GaussianProcessClasses, AbsentClassesHaveAShareAndOneClassIsCertain) {
  const std::vector<float> support = {0, 1, 2}, query = {0, 50};
  const RowPairs pairs = squared_distances({support, query, 1});
  const auto p =
      gaussian_process_classes(Kernel::rbf, pairs, std::vector<std::int32_t>{1, 1, 1}, 3);
  EXPECT_NEAR(p[0], 0.5 / 4.5, 1e-12);
  EXPECT_NEAR(p[1], 1.0 - 1.0 / 4.5, 1e-12);
  expect_probabilities(p, 3);
  const auto certain =
      gaussian_process_classes(Kernel::rbf, pairs, std::vector<std::int32_t>{0, 0, 0}, 1);
  EXPECT_EQ(certain, (std::vector<double>{1, 1}));
}

TEST(GaussianProcessClasses, ManyClassesFarFromOneHalfStayFinite) {
  // With 400 classes, all indicators are predicted far below 1/2, where Phi underflows.
  const auto support = test::normals(800 * 3, 3), query = test::normals(10 * 3, 4);
  expect_probabilities(gaussian_process_classes(Kernel::rbf, squared_distances({support, query, 3}),
                                                labels_in_turn(800, 400), 400),
                       400);
}

TEST(PairBaselines, SameRowsOfDifferentClassesAndConstantFeaturesAreFine) {
  const std::vector<float> support = {7, 7, 7, 7, 7, 7, 7, 7}, query = {7, 7, 0, 0};
  const std::vector<std::int32_t> labels = {0, 1, 0, 1};
  const RowPairs pairs = squared_distances({support, query, 2});
  expect_probabilities(nearest_neighbour_classes(pairs, labels, 2), 2);
  const auto p = gaussian_process_classes(Kernel::rbf, pairs, labels, 2);
  EXPECT_NEAR(p[0], 0.5, 1e-9);
}

TEST(PairBaselines, RefuseWhatDoesNotFit) {
  const std::vector<float> support = {0, 1}, query = {0};
  const RowPairs pairs = squared_distances({support, query, 1});
  const std::vector<std::int32_t> labels = {0, 1};
  EXPECT_THROW(nearest_neighbour_classes({}, {}, 2), Error);
  EXPECT_THROW(nearest_neighbour_classes(pairs, std::vector<std::int32_t>{0}, 2), Error);
  EXPECT_THROW(gaussian_process_classes(Kernel::rbf, pairs, labels, 1), Error);
  EXPECT_THROW(gaussian_process(Kernel::rbf, pairs, support, 2), Error);
  EXPECT_THROW(nearest_neighbour_values(pairs, query, 1), Error);
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_THROW(gaussian_process(Kernel::rbf, pairs, std::vector<float>{0, infinity}, 1), Error);
}

/// A random problem for the script below: support and query rows, labels and two target values per
/// row.
json random_problem(std::size_t rows, std::size_t queries, std::size_t dim, std::size_t classes,
                    bool binary) {
  auto support = test::normals(rows * dim, 5), query = test::normals(queries * dim, 6);
  const auto noise = test::normals(rows * 2, 7);
  const auto labels = labels_in_turn(rows, classes);
  for (std::size_t i = 0; i < rows; ++i) {
    support[i * dim + i % classes % dim] += 1.5f;  // makes the classes learnable
  }
  if (binary) {
    for (float& x : support) x = x > 0.5f ? 1.0f : 0.0f;
    for (float& x : query) x = x > 0.5f ? 1.0f : 0.0f;
  }
  std::vector<float> y(rows * 2);
  for (std::size_t i = 0; i < rows; ++i) {
    y[2 * i] = 10.0f + 3.0f * support[i * dim] + noise[2 * i];
    y[2 * i + 1] = 0.01f * (support[i * dim + 1] * support[i * dim]) + 0.001f * noise[2 * i + 1];
  }
  return {{"support", support}, {"query", query}, {"labels", labels},   {"y", y},
          {"dim", dim},         {"rows", rows},   {"classes", classes}, {"binary", binary}};
}

/// The same baselines in scikit-learn: Gaussian processes for the whole grid, and neighbours for
/// every k.
const char kBaselines[] = R"(
import json, os, warnings
os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np
from scipy.stats import norm
from sklearn.covariance import ledoit_wolf
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
def solve(p):
    X = np.array(p["support"]).reshape(p["rows"], p["dim"])
    Q = np.array(p["query"]).reshape(-1, p["dim"])
    y = np.array(p["labels"]); C = p["classes"]; Y = np.array(p["y"]).reshape(p["rows"], 2)
    out = {}
    # classes of one covariance
    M = np.array([X[y == c].mean(0) for c in range(C)])
    S, shrinkage = ledoit_wolf(X - M[y], assume_centered=True)
    assert 0.01 < shrinkage < 1, shrinkage
    P = np.linalg.inv(S)
    z = np.array([[-0.5 * (q - m) @ P @ (q - m) for m in M] for q in Q])
    e = np.exp(z - z.max(1, keepdims=True))
    out["mahalanobis"] = (e / e.sum(1, keepdims=True)).ravel().tolist()
    # neighbours
    keep = lambda i: np.arange(len(X)) != i
    ks = [k for k in (1, 2, 3, 5, 10, 20) if k < len(X)]
    def smoothed(train, labels, rows, k):
        nearest = KNeighborsClassifier(k, algorithm="brute").fit(train, labels).kneighbors(rows)[1]
        votes = np.array([[(labels[n] == c).sum() for c in range(C)] for n in nearest])
        return (votes + 0.5) / (k + C / 2)
    scores = [sum(np.log(smoothed(X[keep(i)], y[keep(i)], X[i:i+1], k)[0, y[i]])
                  for i in range(len(X))) for k in ks]
    out["knn"] = smoothed(X, y, Q, ks[int(np.argmax(scores))]).ravel().tolist()
    def regressed(train, values, rows, k):
        return KNeighborsRegressor(k, algorithm="brute").fit(train, values).predict(rows)
    errors = [sum(((regressed(X[keep(i)], Y[keep(i)], X[i:i+1], k)[0] - Y[i]) ** 2).sum()
                  for i in range(len(X))) for k in ks]
    out["knn values"] = regressed(X, Y, Q, ks[int(np.argmin(errors))]).ravel().tolist()
    # processes
    def best(values):
        d = np.sqrt(((X[:, None] - X) ** 2).sum(-1))[np.tril_indices(len(X), -1)]
        median = np.median(d[d > 0])
        fits = []
        for length in (1, 0.5, 2, 0.25, 4):
            for rho in (0.1, 0.01, 0.001, 0.3, 0.6, 0.9):
                kernel = ConstantKernel(1 - rho) * RBF(length * median) + WhiteKernel(rho)
                g = GaussianProcessRegressor(kernel, optimizer=None, alpha=0, normalize_y=True)
                fits.append((g.fit(X, values), length * median, rho))
        return max(fits, key=lambda f: f[0].log_marginal_likelihood_value_)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        g, length, rho = best(Y)
        mean, std = g.predict(Q, return_std=True)
        out["gp"] = {"length": length, "rho": rho, "likelihood": g.log_marginal_likelihood_value_,
                     "mean": mean.ravel().tolist(), "std": std.ravel().tolist()}
        g, _, _ = best(np.eye(C)[y])
        mean, std = g.predict(Q, return_std=True)
        up = norm.cdf((mean - 0.5) / std)
        out["gp classes"] = (up / up.sum(1, keepdims=True)).ravel().tolist()
    if p["binary"]:
        def similarity(a, b):
            both = a @ b.T
            return both / (a.sum(1)[:, None] + b.sum(1) - both)
        R, r = similarity(X, X), similarity(Q, X)
        scale = Y.std(0); t = (Y - Y.mean(0)) / scale
        def process(rho):
            K = (1 - rho) * R + rho * np.eye(len(X)); k = (1 - rho) * r
            like = -0.5 * np.trace(t.T @ np.linalg.solve(K, t)) - 2 * 0.5 * np.linalg.slogdet(K)[1] \
                - len(X) * np.log(2 * np.pi)
            mean = Y.mean(0) + scale * (k @ np.linalg.solve(K, t))
            std = np.sqrt(1 - np.einsum("qi,iq->q", k, np.linalg.solve(K, k.T)))[:, None] * scale
            return like, rho, mean, std
        like, rho, mean, std = max((process(rho) for rho in (0.1, 0.01, 0.001, 0.3, 0.6, 0.9)),
                                   key=lambda f: f[0])
        out["tanimoto"] = {"rho": rho, "likelihood": like, "mean": mean.ravel().tolist(),
                           "std": std.ravel().tolist()}
    return out
print(json.dumps([solve(p) for p in json.load(open("problems.json"))]))
)";

void expect_near(const std::vector<double>& found, const json& expected, double tolerance,
                 const std::string& what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_NEAR(found[i], expected[i].get<double>(), tolerance) << what << " " << i;
  }
}

void expect_process(const GaussianProcessFit& fit, const json& expected, const std::string& what) {
  EXPECT_EQ(fit.noise_share, expected.at("rho").get<double>()) << what;
  const double likelihood = expected.at("likelihood");
  EXPECT_NEAR(fit.log_likelihood, likelihood, 1e-8 * std::abs(likelihood)) << what;
  // The smallest eigenvalue of K is at least the noise share, 1e-3, so that solves lose only a few
  // digits.
  expect_near(fit.mean, expected.at("mean"), 1e-8, what + " mean");
  expect_near(fit.std, expected.at("std"), 1e-8, what + " std");
}

/// The baselines give scikit-learn's numbers for support sets that are wide, tall, or of zeros and
/// ones.
TEST(PairBaselines, ScikitLearnGivesTheSameNumbers) {
  KSHOT_NEEDS("sklearn");
  const json problems = {random_problem(12, 7, 30, 4, false), random_problem(40, 9, 3, 3, false),
                         random_problem(24, 8, 16, 2, true)};
  const test::TempFolder folder;
  io::write_file_atomic(folder / "problems.json", problems.dump());
  const json answers = test::run_python(folder, kBaselines);
  ASSERT_EQ(answers.size(), problems.size());
  for (std::size_t i = 0; i < problems.size(); ++i) {
    const json &problem = problems[i], &expected = answers[i];
    const auto support = problem.at("support").get<std::vector<float>>();
    const auto query = problem.at("query").get<std::vector<float>>();
    const auto labels = problem.at("labels").get<std::vector<std::int32_t>>();
    const auto y = problem.at("y").get<std::vector<float>>();
    const std::size_t classes = problem.at("classes");
    const Features features{support, query, problem.at("dim")};
    const RowPairs pairs = squared_distances(features);
    expect_near(mahalanobis(features, labels, classes), expected.at("mahalanobis"), 1e-9,
                "mahalanobis");
    if (problem.at("binary") == false) {  // Of equal distances, scikit-learn takes any.
      // One of our votes counts up to 2e-5 less.
      expect_near(nearest_neighbour_classes(pairs, labels, classes), expected.at("knn"), 3e-5,
                  "knn");
      expect_near(nearest_neighbour_values(pairs, y, 2), expected.at("knn values"), 1e-9,
                  "knn values");
    }
    const GaussianProcessFit fit = gaussian_process(Kernel::rbf, pairs, y, 2);
    EXPECT_NEAR(fit.length, expected.at("gp").at("length").get<double>(), 1e-9);
    expect_process(fit, expected.at("gp"), "gp");
    expect_near(gaussian_process_classes(Kernel::rbf, pairs, labels, classes),
                expected.at("gp classes"), 1e-8, "gp classes");
    if (problem.at("binary") == true) {
      expect_process(gaussian_process(Kernel::tanimoto, tanimoto_similarities(features), y, 2),
                     expected.at("tanimoto"), "tanimoto");
    }
  }
}

}  // namespace
}  // namespace kshot::metrics
