// Confidence thresholds and conformal quantiles: small cases by hand, and the stated rates on
// synthetic episodes whose rows depend on each other.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kshot/decisions.h"
#include "kshot/error.h"
#include "kshot/random.h"

namespace kshot {
namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

/// Episodes of different difficulty. A row with confidence c, uniform in [0.5, 1), is wrong with
/// probability (1 - c) d. The difficulty d of an episode is 0 or 2 with equal probability. The
/// selective risk of a threshold t is therefore the mean of 1 - c over [t, 1), which is (1 - t) /
/// 2.
struct GradedEpisodes {
  explicit GradedEpisodes(std::uint32_t repetition) : random({.seed = 7, .task = repetition}) {}
  void draw(std::size_t rows) {
    confidences.clear();
    right.clear();
    const float difficulty = random.below(2) == 0 ? 0.0f : 2.0f;
    for (std::size_t i = 0; i < rows; ++i) {
      const float c = random.uniform(0.5f, 1.0f);
      confidences.push_back(static_cast<double>(c));
      right.push_back(random.uniform() >= (1.0f - c) * difficulty);
    }
  }
  RandomStream random;
  std::vector<double> confidences;
  std::vector<bool> right;
};

TEST(Decisions, AnEValueIsTheMeanCapitalOfItsBets) {
  // Without losses, each bet b grows by 1 + b bound per row. The bets are (j / 24)^2 / (1 - bound).
  double expected = 0.0;
  for (int j = 1; j <= 24; ++j) {
    expected += std::pow(1.0 + 0.25 * std::pow(j / 24.0, 2) / 0.75, 10) / 24.0;
  }
  EXPECT_NEAR(mean_below_e_value(std::vector<double>(10, -0.25), 0.25), expected, 1e-6 * expected);
  EXPECT_DOUBLE_EQ(mean_below_e_value({}, 0.25), 1.0);
  EXPECT_LT(mean_below_e_value(std::vector<double>(10, 0.1), 0.25), 1.0);
  EXPECT_THROW(mean_below_e_value({}, 1.0), Error);
  EXPECT_THROW(mean_below_e_value(std::vector<double>{0.9}, 0.25), Error);
}

TEST(Decisions, AnEValueRarelyExceedsItsBoundWhereTheMeanIsTheBound) {
  // The number of 2000 samples of 150 losses (0 or 1, with one mean) whose e-value is at least 10.
  const auto exceeding = [](float mean) {
    int exceeded = 0;
    for (std::uint32_t r = 0; r < 2000; ++r) {
      RandomStream random({.seed = 3, .task = r});
      std::vector<double> excesses;
      for (int i = 0; i < 150; ++i) excesses.push_back((random.uniform() < mean ? 1.0 : 0.0) - 0.1);
      exceeded += mean_below_e_value(excesses, 0.1) >= 10.0 ? 1 : 0;
    }
    return exceeded;
  };
  EXPECT_LE(exceeding(0.1f), 200);    // A share of 0.1 is allowed.
  EXPECT_GE(exceeding(0.03f), 1000);  // It must also detect a smaller mean.
}

TEST(Decisions, ThresholdsKeepTheirRiskAtTheStatedRate) {
  const double bound = 0.12;  // Thresholds of at least 0.76 keep it.
  int broken = 0, found = 0;
  double answered = 0.0;
  const int repetitions = 300;
  for (std::uint32_t r = 0; r < repetitions; ++r) {
    GradedEpisodes e(r);
    SelectiveRisk selective;
    for (int i = 0; i < 150; ++i) {
      e.draw(10 + static_cast<std::size_t>(i % 3) * 10);
      selective.add_choosing(e.confidences, e.right);
    }
    for (int i = 0; i < 300; ++i) {
      e.draw(10 + static_cast<std::size_t>(i % 3) * 10);
      selective.add_testing(e.confidences, e.right);
    }
    const RiskThreshold t = selective.threshold(bound, 0.8);
    if (!t.threshold) continue;
    ++found;
    answered += t.coverage;
    broken += (1.0 - std::max(0.5, *t.threshold)) / 2.0 > bound ? 1 : 0;
    EXPECT_LE(t.observed_risk, bound);
  }
  EXPECT_GE(found, repetitions * 9 / 10);
  // The stated rate is 0.2, which is 60 of 300. Three standard deviations of this binomial are 21.
  EXPECT_LE(broken, 81);
  // With full knowledge, 48 % of the rows could be answered.
  EXPECT_GT(answered / found, 0.3);
  EXPECT_LT(answered / found, 0.48);
}

TEST(Decisions, NoThresholdIsFoundWhereNoneKeepsTheRisk) {
  SelectiveRisk selective;
  for (int i = 0; i < 200; ++i)
    selective.add_choosing(std::vector<double>{0.9, 0.6}, {i % 2 == 0, true});
  for (int i = 0; i < 200; ++i)
    selective.add_testing(std::vector<double>{0.9, 0.9}, {i % 2 == 0, false});
  EXPECT_FALSE(selective.threshold(0.1, 0.95).threshold.has_value());
  // A bound that all answers keep leads to the threshold 0, which also answers less confident rows
  // in the future.
  const RiskThreshold all = selective.threshold(0.9, 0.95);
  ASSERT_TRUE(all.threshold.has_value());
  EXPECT_EQ(*all.threshold, 0.0);
  EXPECT_DOUBLE_EQ(all.coverage, 1.0);
  EXPECT_DOUBLE_EQ(all.observed_risk, 0.75);
  EXPECT_FALSE(SelectiveRisk().threshold(0.1, 0.95).threshold.has_value());
  EXPECT_THROW(selective.threshold(0.0, 0.95), Error);
  EXPECT_THROW(selective.threshold(0.1, 1.0), Error);
  EXPECT_THROW(selective.add_testing(std::vector<double>{1.5}, {true}), Error);
  EXPECT_THROW(selective.add_testing(std::vector<double>{0.5}, {}), Error);
  EXPECT_THROW(selective.add_choosing(std::vector<double>{0.5}, {true}), Error);
}

TEST(Decisions, ThresholdsNeedEnoughEpisodes) {
  SelectiveRisk few;
  for (int i = 0; i < 5; ++i)
    few.add_choosing(std::vector<double>(50, 0.9), std::vector<bool>(50, true));
  for (int i = 0; i < 5; ++i)
    few.add_testing(std::vector<double>(50, 0.9), std::vector<bool>(50, true));
  // There are 250 right answers in a row, but only five episodes.
  EXPECT_FALSE(few.threshold(0.05, 0.95).threshold.has_value());
}

TEST(Decisions, AConformalQuantileByHand) {
  // The weights are 1/3 per episode and for infinity, and 1/6 for each row of the first episode.
  const std::vector<std::vector<double>> scores = {{0.4, 0.1}, {}, {0.2}};
  EXPECT_EQ(conformal_quantile(scores, 1.0 / 6), 0.1);
  EXPECT_EQ(conformal_quantile(scores, 0.17), 0.2);
  EXPECT_EQ(conformal_quantile(scores, 0.5), 0.2);
  EXPECT_EQ(conformal_quantile(scores, 2.0 / 3), 0.4);
  EXPECT_EQ(conformal_quantile(scores, 0.67), inf);
  EXPECT_EQ(conformal_quantile({}, 0.5), inf);
  EXPECT_THROW(conformal_quantile(scores, 1.0), Error);
  EXPECT_THROW(conformal_quantile(std::vector<std::vector<double>>{{std::nan("")}}, 0.5), Error);
}

TEST(Decisions, ConformalQuantilesHoldRowsOfNewEpisodesAtTheStatedRate) {
  // The rows of an episode share a shift, so that they are far from independent.
  double covered = 0.0;
  const int repetitions = 3000, episodes = 30;
  const auto draw = [](RandomStream& random, std::size_t rows) {
    std::vector<double> scores;
    const double shift = 2.0 * static_cast<double>(random.normal());
    for (std::size_t i = 0; i < rows; ++i) {
      scores.push_back(shift + static_cast<double>(random.normal()));
    }
    return scores;
  };
  for (std::uint32_t r = 0; r < repetitions; ++r) {
    RandomStream random({.seed = 11, .task = r});
    std::vector<std::vector<double>> scores;
    for (int e = 0; e < episodes; ++e) scores.push_back(draw(random, 3 + random.below(20)));
    const double q = conformal_quantile(scores, 0.8);
    covered += draw(random, 1)[0] <= q ? 1.0 : 0.0;
  }
  // The standard deviation of the share is 0.0073.
  EXPECT_GE(covered / repetitions, 0.8 - 0.022);
  EXPECT_LE(covered / repetitions, 0.8 + 1.0 / (episodes + 1) + 0.022);
}

TEST(Decisions, APredictionSetHasTheMostProbableClass) {
  const std::vector<double> p = {0.2, 0.5, 0.3};
  EXPECT_EQ(prediction_set(p, 0.7), (std::vector<bool>{false, true, true}));
  EXPECT_EQ(prediction_set(p, 0.1), (std::vector<bool>{false, true, false}));
  EXPECT_EQ(prediction_set(p, inf), (std::vector<bool>{true, true, true}));
}

}  // namespace
}  // namespace kshot
