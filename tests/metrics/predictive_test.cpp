// CRPS, PIT and sharpness of predictive distributions, against closed forms, numerical integration
// and the Python package scoringrules.
#include "metrics/predictive.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <vector>

#include "kshot/error.h"
#include "kshot/random.h"
#include "metrics/metrics.h"
#include "support/python.h"

namespace kshot::metrics {
namespace {

using nlohmann::json;

/// The integral of (F(x) - 1[x >= y])^2 by the midpoint rule, separately below and above y.
template <typename Cdf>
double crps_by_integration(double y, double low, double high, Cdf cdf) {
  double sum = 0.0;
  constexpr int steps = 20000;
  for (int i = 0; i < steps; ++i) {
    const double below = low + (y - low) * (i + 0.5) / steps;
    const double above = y + (high - y) * (i + 0.5) / steps;
    sum += (y - low) / steps * std::pow(cdf(below), 2);
    sum += (high - y) / steps * std::pow(1.0 - cdf(above), 2);
  }
  return sum;
}

TEST(Crps, GaussianByHandAndIntegration) {
  // At the mean, the CRPS is std (2 phi(0) - 1 / sqrt(pi)) = std (sqrt(2) - 1) / sqrt(pi).
  EXPECT_NEAR(crps_gaussian(3.0, 3.0, 2.0),
              2.0 * (std::numbers::sqrt2 - 1.0) / std::sqrt(std::numbers::pi), 1e-14);
  EXPECT_EQ(crps_gaussian(1.0, 3.5, 0.0), 2.5);
  for (const double y : {-4.0, 0.3, 2.0}) {
    const double expected =
        crps_by_integration(y, -20.0, 20.0, [](double x) { return normal_cdf((x - 0.5) / 1.5); });
    EXPECT_NEAR(crps_gaussian(y, 0.5, 1.5), expected, 1e-5);
  }
  EXPECT_NEAR(crps_gaussian(1e6, 0.0, 1.0), 1e6 - 1.0 / std::sqrt(std::numbers::pi), 1e-6);
}

TEST(Crps, MixtureByHandAndIntegration) {
  // For the samples 0, 2, 3 and y = 1, the mean distance is 4/3. The pairs give (2 + 3 + 1) * 2 / 9
  // / 2 = 2/3.
  EXPECT_NEAR(crps_mixture(1.0, std::vector<double>{3, 0, 2}, 0.0), 2.0 / 3.0, 1e-14);
  EXPECT_NEAR(crps_mixture(1.0, std::vector<double>{4}, 0.0), 3.0, 1e-14);
  EXPECT_NEAR(crps_mixture(1.0, std::vector<double>{4}, 0.7), crps_gaussian(1.0, 4.0, 0.7), 1e-14);
  EXPECT_NEAR(crps_mixture(1.0, std::vector<double>{4, 4, 4}, 0.7), crps_gaussian(1.0, 4.0, 0.7),
              1e-14);
  const std::vector<double> means = {-1.0, 0.5, 3.0};
  for (const double y : {-2.0, 0.5, 4.0}) {
    const double expected =
        crps_by_integration(y, -20.0, 20.0, [&](double x) { return pit_mixture(x, means, 0.8); });
    EXPECT_NEAR(crps_mixture(y, means, 0.8), expected, 1e-5);
  }
  EXPECT_THROW(crps_mixture(1.0, {}, 1.0), Error);
}

TEST(Pit, Values) {
  EXPECT_NEAR(pit_gaussian(1.96, 0.0, 1.0), 0.975, 1e-5);
  EXPECT_NEAR(pit_mixture(0.0, std::vector<double>{-1, 1}, 0.5), 0.5, 1e-14);
  // Of the samples, one lies below, two are equal (and count half each), and one lies above.
  EXPECT_NEAR(pit_mixture(2.0, std::vector<double>{1, 2, 2, 3}, 0.0), 0.5, 1e-14);
  EXPECT_EQ(pit_gaussian(1.0, 2.0, 0.0), 0.0);
}

TEST(Pit, HistogramHasClosedEnds) {
  PitHistogram histogram(4);
  for (const double u : {0.0, 0.25, 0.3, 0.75, 1.0}) histogram.add(u);
  EXPECT_EQ(histogram.counts(), (std::vector<std::size_t>{1, 2, 0, 2}));
  EXPECT_EQ(histogram.total(), 5u);
  EXPECT_NEAR(histogram.densities()[1], 1.6, 1e-14);
  EXPECT_THROW(histogram.add(1.5), Error);
  EXPECT_THROW(histogram.add(std::nan("")), Error);
  EXPECT_THROW(PitHistogram(0), Error);
  EXPECT_TRUE(std::isnan(PitHistogram().densities()[0]));
}

TEST(Pit, IsUniformForTargetsOfThePredictionAndNotForNarrowOnes) {
  PitHistogram right, narrow;
  RandomStream random({.seed = 3});
  for (int i = 0; i < 20000; ++i) {
    const double y = random.normal();
    right.add(pit_gaussian(y, 0.0, 1.0));
    narrow.add(pit_gaussian(y, 0.0, 0.5));
  }
  // There are 2,000 values per bin with a standard deviation of 42. The tolerance is five of these.
  for (double density : right.densities()) EXPECT_NEAR(density, 1.0, 0.107);
  EXPECT_GT(narrow.densities().front(), 2.0);
  EXPECT_GT(narrow.densities().back(), 2.0);
}

TEST(Sharpness, MixtureAddsTheNoiseToTheSamples) {
  EXPECT_NEAR(mixture_std(std::vector<double>{1, 5}, 1.5), 2.5, 1e-14);
  EXPECT_EQ(mixture_std(std::vector<double>{7}, 0.0), 0.0);
  EXPECT_NEAR(mixture_std(std::vector<double>{1e9, 1e9 + 4}, 0.0), 2.0, 1e-6);
}

TEST(Crps, ScoringrulesGivesTheSameNumbers) {
  KSHOT_NEEDS("scoringrules");
  const test::TempFolder folder;
  const json found = test::run_python(folder, R"(
import json
import numpy as np
import scoringrules as sr
means = np.array([-1.0, 0.5, 3.0, 0.25])
ys = [-3.0, 0.4, 2.0, 10.0]
print(json.dumps({
    "normal": [float(sr.crps_normal(y, 0.5, 1.5)) for y in ys],
    "ensemble": [float(sr.crps_ensemble(y, means, estimator="nrg")) for y in ys],
    "mixture": [float(sr.crps_mixnorm(y, means, np.full(4, 0.8), np.full(4, 0.25))) for y in ys]}))
)");
  const std::vector<double> means = {-1.0, 0.5, 3.0, 0.25}, ys = {-3.0, 0.4, 2.0, 10.0};
  for (std::size_t i = 0; i < ys.size(); ++i) {
    EXPECT_NEAR(crps_gaussian(ys[i], 0.5, 1.5), found.at("normal")[i].get<double>(), 1e-9);
    EXPECT_NEAR(crps_mixture(ys[i], means, 0.0), found.at("ensemble")[i].get<double>(), 1e-9);
    EXPECT_NEAR(crps_mixture(ys[i], means, 0.8), found.at("mixture")[i].get<double>(), 1e-9);
  }
}

}  // namespace
}  // namespace kshot::metrics
