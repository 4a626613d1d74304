// Basic metrics: means with intervals, softmax, calibration, likelihoods, bands, coverage and R2,
// against closed forms.
#include "metrics/metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "kshot/error.h"
#include "kshot/random.h"

namespace kshot::metrics {
namespace {

TEST(Mean, IntervalIsNormalApproximationOverEpisodes) {
  // The values 1, 2, 3, 4 have mean 5/2 and s^2 = 5/3.
  const Estimate e = estimate(std::vector<double>{1, 2, 3, 4});
  EXPECT_DOUBLE_EQ(e.mean, 2.5);
  EXPECT_NEAR(e.half_width, 1.96 * std::sqrt(5.0 / 3.0) / 2.0, 1e-14);
  EXPECT_EQ(e.count, 4u);
}

TEST(Mean, LargeOffsetKeepsTheSpread) {
  Mean mean;
  for (int i = 0; i < 1000; ++i) mean.add(1e9 + (i % 2));
  EXPECT_NEAR(mean.standard_deviation(), 0.5 * std::sqrt(1000.0 / 999.0), 1e-6);
}

TEST(Mean, TooFewValuesAreNotANumber) {
  Mean mean;
  EXPECT_TRUE(std::isnan(mean.mean()));
  mean.add(3.0);
  EXPECT_EQ(mean.mean(), 3.0);
  EXPECT_TRUE(std::isnan(mean.estimate().half_width));
}

TEST(Softmax, StableAndShiftInvariant) {
  const std::vector<double> logits = {1000.0, 1000.0 + std::log(3.0)};
  std::vector<double> p(2);
  softmax(logits, p);
  EXPECT_NEAR(p[0], 0.25, 1e-12);
  EXPECT_NEAR(p[1], 0.75, 1e-12);
  log_softmax(std::vector<double>{-1000.0, 0.0}, p);
  EXPECT_DOUBLE_EQ(p[0], -1000.0);
  EXPECT_DOUBLE_EQ(p[1], 0.0);
  EXPECT_NEAR(log_sum_exp(logits), 1000.0 + std::log(4.0), 1e-12);
}

TEST(Softmax, SamplesAreAveragedAsProbabilities) {
  // One row has two samples, (1/2, 1/2) and (1/4, 3/4).
  const std::vector<double> logits = {0.0, 0.0, 0.0, std::log(3.0)};
  std::vector<double> p(2);
  mean_softmax(logits, 2, 1, 2, p);
  EXPECT_NEAR(p[0], 0.375, 1e-15);
  EXPECT_NEAR(p[1], 0.625, 1e-15);
}

TEST(Calibration, ConstructedPredictions) {
  // Seven of ten answers at confidence 0.95 are right, and six of ten at 0.55: ECE = (10 * 0.25 +
  // 10 * 0.05) / 20 = 0.15.
  Calibration calibration;
  for (int i = 0; i < 10; ++i) {
    calibration.add(0.95, i < 7);
    calibration.add(0.55, i < 6);
  }
  EXPECT_NEAR(calibration.ece(), 0.15, 1e-12);
  const auto bins = calibration.bins();
  ASSERT_EQ(bins.size(), 15u);
  EXPECT_EQ(bins[14].count, 10u);
  EXPECT_NEAR(bins[14].confidence, 0.95, 1e-12);
  EXPECT_NEAR(bins[14].accuracy, 0.7, 1e-12);
  EXPECT_EQ(bins[8].count, 10u);  // (8/15, 9/15]
  EXPECT_EQ(bins[0].count, 0u);
}

TEST(Calibration, GapsWithinABinCancelAcrossBinsAddUp) {
  Calibration one(1), two(2);
  for (Calibration* c : {&one, &two}) {
    c->add(0.75, false);
    c->add(0.25, true);
  }
  EXPECT_NEAR(one.ece(), 0.0, 1e-15);
  EXPECT_NEAR(two.ece(), 0.75, 1e-15);
}

TEST(Calibration, EdgesBelongToTheBinBelow) {
  Calibration calibration(4);
  for (double confidence : {0.0, 0.25, 0.5, 0.75, 1.0}) calibration.add(confidence, true);
  const auto bins = calibration.bins();
  EXPECT_EQ(bins[0].count, 2u);
  EXPECT_EQ(bins[1].count, 1u);
  EXPECT_EQ(bins[2].count, 1u);
  EXPECT_EQ(bins[3].count, 1u);
}

TEST(Classification, ClosedForms) {
  ClassificationMetrics metrics;
  const std::vector<double> p = {0.7, 0.2, 0.1, 0.3, 0.3, 0.4};
  const ClassificationScore score = metrics.add_episode(p, std::vector<std::int32_t>{0, 1}, 3);
  EXPECT_DOUBLE_EQ(score.accuracy, 0.5);
  EXPECT_NEAR(score.nll, -(std::log(0.7) + std::log(0.3)) / 2.0, 1e-15);
  EXPECT_NEAR(score.brier, ((0.09 + 0.04 + 0.01) + (0.09 + 0.49 + 0.16)) / 2.0, 1e-15);
  metrics.add_episode(p, std::vector<std::int32_t>{0, 2}, 3);
  EXPECT_NEAR(metrics.accuracy().mean, 0.75, 1e-15);
  EXPECT_EQ(metrics.episodes(), 2u);
  // The ECE is taken over all four rows: the bin of 0.7 has 2 right of 2, and the bin of 0.4 has 1
  // right of 2.
  EXPECT_NEAR(metrics.calibration().ece(), (2 * 0.3 + std::abs(1 - 0.8)) / 4.0, 1e-12);
}

TEST(Classification, CertainAndWrongStaysFinite) {
  ClassificationMetrics metrics;
  const auto score =
      metrics.add_episode(std::vector<double>{1.0, 0.0}, std::vector<std::int32_t>{1}, 2);
  EXPECT_TRUE(std::isfinite(score.nll));
  EXPECT_GT(score.nll, 700.0);
  EXPECT_DOUBLE_EQ(score.brier, 2.0);
}

TEST(Classification, RefusesBadEpisodesWhole) {
  ClassificationMetrics metrics;
  const std::vector<double> p = {0.5, 0.5, 0.5, 0.5};
  EXPECT_THROW(metrics.add_episode(p, std::vector<std::int32_t>{0, 2}, 2), Error);
  EXPECT_THROW(metrics.add_episode(p, std::vector<std::int32_t>{0}, 2), Error);
  EXPECT_THROW(metrics.add_episode({}, {}, 2), Error);
  EXPECT_THROW(metrics.add_episode(std::vector<double>{0.5, 0.5, NAN, 0.5},
                                   std::vector<std::int32_t>{0, 1}, 2),
               Error);
  EXPECT_EQ(metrics.episodes(), 0u);
  EXPECT_TRUE(std::isnan(metrics.calibration().ece()));
}

TEST(Normal, QuantilesOfTables) {
  EXPECT_NEAR(normal_quantile(0.975), 1.959963984540054, 1e-14);
  EXPECT_NEAR(normal_quantile(0.95), 1.644853626951473, 1e-14);
  EXPECT_NEAR(normal_quantile(0.25), -0.6744897501960817, 1e-14);
  EXPECT_DOUBLE_EQ(normal_quantile(0.5), 0.0);
  for (double p : {1e-12, 1e-6, 0.01, 0.02425, 0.3, 0.8, 0.999}) {
    EXPECT_NEAR(normal_cdf(normal_quantile(p)), p, 1e-13 * (1.0 + p)) << p;
  }
  EXPECT_THROW(normal_quantile(0.0), Error);
  EXPECT_THROW(normal_quantile(1.0), Error);
}

TEST(Likelihood, GaussianAndMixture) {
  EXPECT_NEAR(gaussian_nll(3.0, 1.0, 2.0),
              0.5 + std::log(2.0) + 0.5 * std::log(2.0 * std::numbers::pi), 1e-15);
  // If all samples are equal, the mixture is a Gaussian.
  EXPECT_NEAR(mixture_nll(3.0, std::vector<double>{1.0, 1.0, 1.0}, 2.0),
              gaussian_nll(3.0, 1.0, 2.0), 1e-15);
  const double density =
      0.5 * (std::exp(-gaussian_nll(0.3, -1.0, 0.5)) + std::exp(-gaussian_nll(0.3, 0.5, 0.5)));
  EXPECT_NEAR(mixture_nll(0.3, std::vector<double>{-1.0, 0.5}, 0.5), -std::log(density), 1e-14);
  // Far away, there is no underflow. The nearer part dominates with weight 1/2.
  EXPECT_NEAR(mixture_nll(1000.0, std::vector<double>{0.0, 100.0}, 1.0),
              gaussian_nll(1000.0, 100.0, 1.0) + std::log(2.0), 1e-9);
}

TEST(Bands, GaussianSamplesAndMixture) {
  const Band gaussian = central_band(1.0, 2.0, 0.95);
  EXPECT_NEAR(gaussian.low, 1.0 - 2.0 * 1.959963984540054, 1e-12);
  EXPECT_NEAR(gaussian.high, 1.0 + 2.0 * 1.959963984540054, 1e-12);
  // The expected values are numpy.quantile(., [.25, .75, .05, .95]).
  const std::vector<double> samples = {0, 1, 2, 3, 4};
  EXPECT_DOUBLE_EQ(central_band(samples, 0.5).low, 1.0);
  EXPECT_DOUBLE_EQ(central_band(samples, 0.5).high, 3.0);
  EXPECT_NEAR(central_band(samples, 0.9).low, 0.2, 1e-15);
  EXPECT_NEAR(central_band(samples, 0.9).high, 3.8, 1e-15);
  const Band same = mixture_band(std::vector<double>{1.0, 1.0}, 2.0, 0.95);
  EXPECT_NEAR(same.low, gaussian.low, 1e-12);
  EXPECT_NEAR(same.high, gaussian.high, 1e-12);
  // For two narrow parts that lie far apart, the ends of the 90 % band are the 10 % and 90 %
  // quantiles of the parts.
  const Band apart = mixture_band(std::vector<double>{-100.0, 100.0}, 1.0, 0.9);
  EXPECT_NEAR(apart.low, -100.0 + normal_quantile(0.1), 1e-9);
  EXPECT_NEAR(apart.high, 100.0 + normal_quantile(0.9), 1e-9);
}

TEST(Coverage, KnownGaussianIsCoveredAsOften) {
  Coverage right, narrow;
  RandomStream stream({.seed = 7});
  for (int episode = 0; episode < 400; ++episode) {
    for (int i = 0; i < 50; ++i) {
      const double y = 3.0 + 2.0 * stream.normal();
      right.add_gaussian(y, 3.0, 2.0);
      narrow.add_gaussian(y, 3.0, 1.0);
    }
    right.end_episode();
    narrow.end_episode();
  }
  const double levels[] = {0.5, 0.9, 0.95};
  for (std::size_t i = 0; i < 3; ++i) {
    const Estimate e = right.observed(i);
    EXPECT_EQ(e.count, 400u);
    // There are 20,000 draws. The tolerance is four standard errors.
    EXPECT_NEAR(e.mean, levels[i], 4.0 * std::sqrt(levels[i] * (1.0 - levels[i]) / 20000.0));
    // With half the scale, the band covers 2 cdf(z / 2) - 1.
    const double z = normal_quantile(0.5 * (1.0 + levels[i]));
    EXPECT_NEAR(narrow.observed(i).mean, 2.0 * normal_cdf(z / 2.0) - 1.0, 0.015);
  }
}

TEST(Coverage, MixtureAgreesWithItsBands) {
  const std::vector<double> means = {-2.0, -0.5, 0.0, 0.1, 3.0};
  for (double std : {0.0, 0.4}) {
    Coverage by_band({0.5, 0.9}), direct({0.5, 0.9});
    const Band bands[] = {mixture_band(means, std, 0.5), mixture_band(means, std, 0.9)};
    for (int i = 0; i <= 400; ++i) {
      const double y = -5.0 + 0.025013 * i;
      by_band.add(y, bands);
      std::vector<double> shuffled = {0.1, 3.0, -2.0, 0.0, -0.5};
      direct.add_mixture(y, shuffled, std);
    }
    by_band.end_episode();
    direct.end_episode();
    EXPECT_DOUBLE_EQ(by_band.observed(0).mean, direct.observed(0).mean);
    EXPECT_DOUBLE_EQ(by_band.observed(1).mean, direct.observed(1).mean);
    EXPECT_GT(direct.observed(1).mean, direct.observed(0).mean);
  }
}

TEST(Regression, ClosedForms) {
  RegressionMetrics metrics;
  // Two samples of two rows have the mean predictions (1, 2). The targets are (0, 2).
  const RegressionScore score = metrics.add_episode(std::vector<double>{0.5, 1.0, 1.5, 3.0}, 2,
                                                    std::vector<double>{0.0, 2.0}, 0.5);
  const double mse = score.mse;
  EXPECT_DOUBLE_EQ(mse, 0.5);
  EXPECT_NEAR(metrics.nll().mean,
              0.5 * (mixture_nll(0.0, std::vector<double>{0.5, 1.5}, 0.5) +
                     mixture_nll(2.0, std::vector<double>{1.0, 3.0}, 0.5)),
              1e-14);
  EXPECT_EQ(metrics.coverage().observed(0).count, 1u);
}

TEST(Regression, PointEstimatesHaveNoDensityAndNoBands) {
  RegressionMetrics metrics;
  metrics.add_episode(std::vector<double>{1.0}, 1, std::vector<double>{3.0}, 0.0);
  EXPECT_DOUBLE_EQ(metrics.mse().mean, 4.0);
  EXPECT_EQ(metrics.nll().count, 0u);
  EXPECT_EQ(metrics.coverage().observed(0).count, 0u);
  EXPECT_THROW(metrics.add_episode(std::vector<double>{NAN}, 1, std::vector<double>{3.0}, 0.0),
               Error);
  EXPECT_THROW(metrics.add_episode(std::vector<double>{1.0}, 2, std::vector<double>{3.0}, 0.0),
               Error);
}

TEST(RSquared, IsOneForTheTargetsAndZeroForTheirMean) {
  const std::vector<double> targets = {1.0, 2.0, 6.0};
  EXPECT_EQ(r_squared(targets, targets, 1), 1.0);
  EXPECT_NEAR(r_squared(std::vector<double>{3.0, 3.0, 3.0}, targets, 1), 0.0, 1e-15);
  // The residual is (0 - 1)^2 + (0 - 2)^2 + (0 - 6)^2 = 41. About the mean it is 4 + 1 + 9 = 14.
  EXPECT_NEAR(r_squared(std::vector<double>{0.0, 0.0, 0.0}, targets, 1), 1.0 - 41.0 / 14.0, 1e-14);
  // Two outputs with the rows (1, 10) and (3, 10): the residual is 1 + 4, and about the means it is
  // 2 + 0.
  EXPECT_NEAR(r_squared(std::vector<double>{2.0, 10.0, 3.0, 12.0},
                        std::vector<double>{1.0, 10.0, 3.0, 10.0}, 2),
              1.0 - 5.0 / 2.0, 1e-14);
  EXPECT_TRUE(std::isnan(r_squared(std::vector<double>{1.0}, std::vector<double>{1.0}, 1)));
}

}  // namespace
}  // namespace kshot::metrics
