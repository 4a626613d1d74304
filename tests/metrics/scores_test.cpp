// The public metrics (kshot/metrics.h): values by hand, and what is refused. python/tests/
// test_metrics.py holds them against torchmetrics, netcal, scikit-learn and scoringrules.
#include "kshot/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kshot/error.h"
#include "support/error_text.h"

namespace kshot {
namespace {

using test::error_text;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(ClassificationScores, ByHand) {
  // Confidences 0.9 (right), 0.6 (wrong), 0.7 (right), 1 (wrong) of two classes, in two bins.
  const std::vector<double> p = {0.9, 0.1, 0.4, 0.6, 0.3, 0.7, 1.0, 0.0};
  const std::vector<std::int32_t> labels = {0, 0, 1, 1};
  const ClassificationScores s =
      classification_scores(p, labels, 2, {.bins = 2, .coverage = 0.5, .risk = 0.35});
  EXPECT_EQ(s.rows, 4u);
  EXPECT_EQ(s.classes, 2u);
  EXPECT_DOUBLE_EQ(s.accuracy, 0.5);
  const double smallest = std::numeric_limits<double>::min();
  EXPECT_DOUBLE_EQ(s.nll,
                   -(std::log(0.9) + std::log(0.4) + std::log(0.7) + std::log(smallest)) / 4);
  EXPECT_DOUBLE_EQ(s.brier, 2 * (0.01 + 0.36 + 0.09 + 1.0) / 4);
  EXPECT_NEAR(s.brier,
              s.brier_reliability - s.brier_resolution + s.brier_uncertainty + s.brier_within_bin,
              1e-15);
  EXPECT_DOUBLE_EQ(s.brier_uncertainty, 0.5);
  // All confidences are in the upper bin: mean 0.8, accuracy 0.5.
  EXPECT_DOUBLE_EQ(s.ece, 0.3);
  EXPECT_DOUBLE_EQ(s.mce, 0.3);
  // The median of the confidences is 0.8: gaps |1 - 1.3| and |1 - 1.9|.
  EXPECT_DOUBLE_EQ(s.ece_equal_mass, (0.3 + 0.9) / 4);
  // Class 0: 0.4 and 0.3 (label 0 once) below, 0.9 and 1 (once) above. Class 1 mirrors it.
  EXPECT_DOUBLE_EQ(s.classwise_ece, (0.3 + 0.9) / 4);
  // Risks of the 1, 2, 3, 4 surest rows: 1, 1/2, 1/3, 1/2.
  EXPECT_DOUBLE_EQ(s.aurc, (1.0 + 0.5 + 1.0 / 3 + 0.5) / 4);
  EXPECT_DOUBLE_EQ(s.risk_at_coverage, 0.5);
  EXPECT_DOUBLE_EQ(s.coverage_at_risk, 0.75);
  // Class 1 scores 0.7 and 0 against 0.1 and 0.6.
  EXPECT_DOUBLE_EQ(s.auroc, 0.5);
  ASSERT_EQ(s.reliability.size(), 2u);
  EXPECT_EQ(s.reliability[0].count, 0u);
  EXPECT_EQ(s.reliability[1].count, 4u);
  EXPECT_DOUBLE_EQ(s.reliability[1].low, 0.5);
  EXPECT_DOUBLE_EQ(s.reliability[1].confidence, 0.8);
  EXPECT_DOUBLE_EQ(s.reliability[1].accuracy, 0.5);
  ASSERT_EQ(s.risk_coverage.size(), 4u);
  EXPECT_DOUBLE_EQ(s.risk_coverage[0].threshold, 1.0);
  EXPECT_DOUBLE_EQ(s.risk_coverage[3].coverage, 1.0);
}

TEST(ClassificationScores, TheRuleForEdgesAndTheDefaults) {
  // 0.2 of five classes is an edge of 15 bins, the default.
  const std::vector<double> p(5, 0.2);
  const std::vector<std::int32_t> label = {0};
  const auto bin = [&](const ClassificationScoreOptions& options) {
    const ClassificationScores s = classification_scores(p, label, 5, options);
    EXPECT_EQ(s.reliability.size(), 15u);
    std::size_t b = 0;
    while (s.reliability[b].count == 0) ++b;
    return b;
  };
  EXPECT_EQ(bin({}), 2u);
  EXPECT_EQ(bin({.edges = "left"}), 3u);
}

TEST(ClassificationScores, AurocIsTheMeanOverClassesThatHaveOne) {
  // Class 2 has no rows. Class 0 against the rest: 1. Class 1 against the rest: 1/2.
  const std::vector<double> p = {0.6, 0.3, 0.1, 0.2, 0.3, 0.5};
  EXPECT_DOUBLE_EQ(classification_scores(p, std::vector<std::int32_t>{0, 1}, 3).auroc, 0.75);
  EXPECT_TRUE(std::isnan(classification_scores(p, std::vector<std::int32_t>{1, 1}, 3).auroc));
}

TEST(ClassificationScores, RefusesInOneLine) {
  const auto refused = [](const std::vector<double>& p, const std::vector<std::int32_t>& labels,
                          std::size_t classes, const ClassificationScoreOptions& options = {}) {
    return error_text([&] { classification_scores(p, labels, classes, options); });
  };
  const std::vector<double> p = {0.5, 0.5, 0.25, 0.75};
  const std::vector<std::int32_t> labels = {0, 1};
  EXPECT_EQ(refused({}, {}, 2), "labels: no rows, expected at least one");
  EXPECT_EQ(refused(p, labels, 0), "classes: 0, expected at least 1");
  EXPECT_EQ(refused(p, labels, 3), "probabilities: 4 values, expected 2 times 3");
  // 2^63 columns of two rows: the product is 0.
  EXPECT_THAT(refused({}, labels, std::size_t{1} << 63), HasSubstr("0 values"));
  EXPECT_EQ(refused(p, {0, 2}, 2), "labels[1]: 2, expected 0 to 1");
  EXPECT_EQ(refused(p, {-1, 1}, 2), "labels[0]: -1, expected 0 to 1");
  EXPECT_EQ(refused({0.5, 0.5, 0.25, 0.7}, labels, 2),
            "probabilities[1]: sum 0.950000, expected 1");
  EXPECT_EQ(refused({0.5, 0.5, -0.25, 1.25}, labels, 2),
            "probabilities[1]: -0.250000, expected 0 to 1");
  EXPECT_EQ(refused({0.5, kNaN, 0.5, 0.5}, labels, 2), "probabilities[0]: nan, expected 0 to 1");
  EXPECT_EQ(refused(p, labels, 2, {.bins = 0}), "bins: 0, expected at least 1");
  EXPECT_EQ(refused(p, labels, 2, {.edges = "both"}),
            "edges: \"both\", expected \"right\" or \"left\"");
  EXPECT_EQ(refused(p, labels, 2, {.coverage = 1.5}), "coverage: 1.500000, expected 0 to 1");
  EXPECT_EQ(refused(p, labels, 2, {.risk = kNaN}), "risk: nan, expected 0 to 1");
}

TEST(RegressionScores, GaussianByHand) {
  // Targets at 0, 1 and 3 standard deviations from the mean.
  const std::vector<double> mean = {1.0, 2.0, -1.0}, std = {2.0, 1.0, 0.5}, y = {1.0, 3.0, 0.5};
  const RegressionScores s = regression_scores(mean, std, y, {.levels = {0.5, 0.9}});
  EXPECT_EQ(s.rows, 3u);
  EXPECT_NEAR(s.mse, (0.0 + 1.0 + 2.25) / 3, 1e-15);
  EXPECT_NEAR(s.nll, 0.5 * std::log(2 * M_PI) + (0.0 + 0.5 + 4.5) / 3, 1e-14);  // log std: 0 in sum
  EXPECT_NEAR(s.sharpness, 3.5 / 3, 1e-15);
  // CRPS in standard deviations: 2 phi(0) - 1 / sqrt(pi) = 0.2336949773 at z = 0, 0.6024413576 at
  // 1, 2.4365799 at 3.
  EXPECT_NEAR(s.crps, (2 * 0.2336949773 + 0.6024413576 + 0.5 * 2.4365799) / 3, 1e-6);
  ASSERT_EQ(s.bands.size(), 2u);
  EXPECT_DOUBLE_EQ(s.bands[0].level, 0.5);
  EXPECT_NEAR(s.bands[0].coverage, 1.0 / 3, 1e-15);
  EXPECT_NEAR(s.bands[1].coverage, 2.0 / 3, 1e-15);
  EXPECT_NEAR(s.bands[0].width, 2 * 0.674489750196 * 3.5 / 3, 1e-10);
  EXPECT_NEAR(s.bands[1].width, 2 * 1.644853626951 * 3.5 / 3, 1e-10);
  ASSERT_EQ(s.pit.size(), 3u);
  EXPECT_DOUBLE_EQ(s.pit[0], 0.5);
  EXPECT_NEAR(s.pit[1], 0.841344746069, 1e-10);
  EXPECT_THAT(s.pit_histogram, ElementsAre(0, 0, 0, 0, 0, 1, 0, 0, 1, 1));
}

TEST(RegressionScores, SamplesWithNoise) {
  const std::vector<double> samples = {0.0, 5.0, 2.0, 5.0}, y = {1.0, 4.0};  // [2, 2]
  const std::vector<double> one = {0.5}, each = {0.5, 0.5};
  const RegressionScores s = regression_scores_of_samples(samples, 2, y, one);
  // Both parts of the first mixture are 2 standard deviations from its target, and the second
  // mixture is a Gaussian at -2.
  const double nll = 0.5 * std::log(2 * M_PI) + std::log(0.5) + 2.0;
  EXPECT_NEAR(s.nll, nll, 1e-14);
  EXPECT_DOUBLE_EQ(s.mse, 0.5);
  EXPECT_NEAR(s.sharpness, (std::sqrt(1.25) + 0.5) / 2, 1e-15);
  EXPECT_DOUBLE_EQ(s.pit[0], 0.5);
  EXPECT_NEAR(s.pit[1], 0.022750131948, 1e-10);
  EXPECT_NEAR(s.bands[2].coverage, 0.5, 1e-15);
  const RegressionScores same = regression_scores_of_samples(samples, 2, y, each);
  EXPECT_EQ(s.crps, same.crps);
  EXPECT_EQ(s.nll, same.nll);
  // One sample with noise is a Gaussian.
  const RegressionScores g = regression_scores(y, each, std::vector{1.5, 3.0});
  const RegressionScores m = regression_scores_of_samples(y, 1, std::vector{1.5, 3.0}, each);
  EXPECT_EQ(g.crps, m.crps);
  EXPECT_EQ(g.pit, m.pit);
  EXPECT_EQ(g.bands[1].width, m.bands[1].width);
}

TEST(RegressionScores, SamplesWithoutNoise) {
  const std::vector<double> samples = {3.0, 1.0, 2.0, 4.0, 5.0}, y = {2.0};  // [5, 1]
  const RegressionScores s = regression_scores_of_samples(samples, 5, y, {}, {.levels = {0.5}});
  EXPECT_DOUBLE_EQ(s.mse, 1.0);
  EXPECT_TRUE(std::isnan(s.nll));
  EXPECT_NEAR(s.crps, 7.0 / 5 - 0.5 * 40.0 / 25, 1e-15);
  EXPECT_NEAR(s.sharpness, std::sqrt(2.0), 1e-15);
  EXPECT_DOUBLE_EQ(s.pit[0], 0.3);  // one sample below, one equal
  EXPECT_DOUBLE_EQ(s.bands[0].coverage, 1.0);
  EXPECT_DOUBLE_EQ(s.bands[0].width, 2.0);  // from 2 to 4
}

TEST(RegressionScores, APointPredictionHasNoBands) {
  const RegressionScores s =
      regression_scores_of_samples(std::vector{1.0, 2.0}, 1, std::vector{0.5, 4.0});
  EXPECT_DOUBLE_EQ(s.crps, 1.25);
  EXPECT_DOUBLE_EQ(s.sharpness, 0.0);
  EXPECT_TRUE(s.bands.empty() && s.pit.empty() && s.pit_histogram.empty());
}

TEST(RegressionScores, RefusesInOneLine) {
  const std::vector<double> two = {1.0, 2.0}, three = {1.0, 2.0, 3.0}, none;
  const std::vector<double> zero = {1.0, 0.0}, bad = {1.0, kNaN};
  const auto gaussian = [](const auto& m, const auto& s, const auto& y,
                           const RegressionScoreOptions& options = {}) {
    return error_text([&] { regression_scores(m, s, y, options); });
  };
  EXPECT_EQ(gaussian(none, none, none), "y: no rows, expected at least one");
  EXPECT_EQ(gaussian(three, two, two), "mean: 3 values, expected 2");
  EXPECT_EQ(gaussian(two, three, two), "std: 3 values, expected 2");
  EXPECT_EQ(gaussian(two, zero, two), "std[1]: 0.000000, expected a number above 0");
  EXPECT_EQ(gaussian(two, bad, two), "std[1]: nan, expected a finite number");
  EXPECT_EQ(gaussian(bad, two, two), "mean[1]: nan, expected a finite number");
  EXPECT_EQ(gaussian(two, two, bad), "y[1]: nan, expected a finite number");
  EXPECT_EQ(gaussian(two, two, two, {.levels = {1.0}}),
            "levels: 1.000000, expected between 0 and 1");
  EXPECT_EQ(gaussian(two, two, two, {.pit_bins = 0}), "pit_bins: 0, expected at least 1");
  const auto mixture = [](const auto& samples, std::size_t count, const auto& y,
                          const std::vector<double>& noise) {
    return error_text([&] { regression_scores_of_samples(samples, count, y, noise); });
  };
  EXPECT_EQ(mixture(two, 0, two, {}), "sample_count: 0, expected at least 1");
  EXPECT_EQ(mixture(three, 2, two, {}), "samples: 3 values, expected 2 times 2");
  EXPECT_EQ(mixture(two, 1, two, three), "noise_std: 3 values, expected 2");
  EXPECT_EQ(mixture(two, 1, two, {0.0}), "noise_std[0]: 0.000000, expected a number above 0");
  EXPECT_EQ(mixture(bad, 1, two, {}), "samples[1]: nan, expected a finite number");
}

TEST(DetectionScores, ByHand) {
  // Pairs: 3 beats both, 1 ties with one and beats one. Precisions at the outside rows: 1, 2/3.
  const DetectionScores s = detection_scores(std::vector{0.0, 1.0}, std::vector{1.0, 3.0});
  EXPECT_DOUBLE_EQ(s.auroc, 3.5 / 4);
  EXPECT_DOUBLE_EQ(s.aupr, 0.5 * 1.0 + 0.5 * 2.0 / 3);
  EXPECT_DOUBLE_EQ(s.fpr95, 0.5);  // all inside rows pass at 1, and with them one outside row
  const DetectionScores infinite =
      detection_scores(std::vector{-kInfinity, 0.0}, std::vector{kInfinity});
  EXPECT_DOUBLE_EQ(infinite.auroc, 1.0);
  EXPECT_DOUBLE_EQ(infinite.fpr95, 0.0);
  const std::vector<double> one = {1.0}, none, bad = {kNaN};
  EXPECT_EQ(error_text([&] { detection_scores(none, one); }),
            "inside: no scores, expected at least one");
  EXPECT_EQ(error_text([&] { detection_scores(one, none); }),
            "outside: no scores, expected at least one");
  EXPECT_EQ(error_text([&] { detection_scores(one, bad); }),
            "outside: a score is NaN, expected numbers");
}

TEST(MeanInterval, HoldsTheMeanAndRefuses) {
  const std::vector<double> values = {1.0, 2.0, 3.0, 4.0};
  const IntervalScore wide = mean_interval(values);
  EXPECT_DOUBLE_EQ(wide.value, 2.5);
  EXPECT_GE(wide.low, 1.0);
  EXPECT_LT(wide.low, 2.5);
  EXPECT_GT(wide.high, 2.5);
  EXPECT_LE(wide.high, 4.0);
  const IntervalScore narrow = mean_interval(values, {.level = 0.5});
  EXPECT_GT(narrow.low, wide.low);
  EXPECT_LT(narrow.high, wide.high);
  EXPECT_EQ(mean_interval(values).low, wide.low);
  EXPECT_TRUE(std::isnan(mean_interval(std::vector{3.0}).low));
  const auto refused = [](const std::vector<double>& v, const IntervalOptions& options = {}) {
    return error_text([&] { mean_interval(v, options); });
  };
  EXPECT_EQ(refused({}), "values: no episodes, expected at least one");
  EXPECT_EQ(refused({1.0, kInfinity}), "values[1]: inf, expected a finite number");
  EXPECT_EQ(refused(values, {.resamples = 0}), "resamples: 0, expected at least 1");
  EXPECT_EQ(refused(values, {.level = 1.0}), "level: 1.000000, expected between 0 and 1");
}

}  // namespace
}  // namespace kshot
