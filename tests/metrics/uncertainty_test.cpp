// Statistics of weighted episodes against the plain functions on the rows.
#include "metrics/uncertainty.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <numeric>
#include <vector>

#include "kshot/random.h"

namespace kshot::metrics {
namespace {

/// Predictions [rows, classes] and labels of the rows of one episode, or of several in turn.
struct Rows {
  std::vector<double> probabilities;
  std::vector<std::int32_t> labels;
  std::size_t classes = 0;

  void append(const Rows& more) {
    probabilities.insert(probabilities.end(), more.probabilities.begin(), more.probabilities.end());
    labels.insert(labels.end(), more.labels.begin(), more.labels.end());
    classes = more.classes;
  }
};

/// Episodes of different sizes. Probabilities are multiples of 1/20, so that many confidences are
/// equal and many lie on an edge of 15 bins.
Rows episode(std::uint32_t number, std::size_t classes) {
  RandomStream random({.seed = 21, .task = number});
  Rows rows;
  rows.classes = classes;
  for (std::size_t r = 0; r < 4 + number % 3; ++r) {
    std::vector<int> counts(classes, 0);
    for (int i = 0; i < 20; ++i) {
      ++counts[random.below(static_cast<std::uint32_t>(i % 2 == 0 ? classes : 2))];
    }
    for (const int c : counts) rows.probabilities.push_back(c / 20.0);
    rows.labels.push_back(
        static_cast<std::int32_t>(random.below(static_cast<std::uint32_t>(classes))));
  }
  return rows;
}

std::array<double, 11> by_hand(const Rows& rows, const UncertaintyOptions& o) {
  const std::vector<Answer> all = answers(rows.probabilities, rows.labels, rows.classes);
  Calibration calibration(o.bins, o.edges);
  for (const Answer& a : all) calibration.add(a.confidence, a.right);
  const BrierParts brier =
      brier_parts(rows.probabilities, rows.labels, rows.classes, o.bins, o.edges);
  const RiskCoverage risk(all);
  return {calibration.ece(),
          calibration.mce(),
          ece_equal_mass(all, o.bins),
          classwise_ece(rows.probabilities, rows.labels, rows.classes, o.bins, o.edges),
          brier.reliability,
          brier.resolution,
          brier.uncertainty,
          brier.within_bin,
          risk.aurc(),
          risk.risk_at(o.coverage),
          risk.coverage_at(o.risk)};
}

std::array<Interval, 11> all_of(const UncertaintyStatistics& s) {
  return {s.ece,
          s.mce,
          s.ece_equal_mass,
          s.classwise_ece,
          s.brier_reliability,
          s.brier_resolution,
          s.brier_uncertainty,
          s.brier_within_bin,
          s.aurc,
          s.risk_at_coverage,
          s.coverage_at_risk};
}

TEST(EpisodeAnswers, StatisticsAndIntervalsAreThoseOfTheRows) {
  for (const BinEdges edges : {BinEdges::right, BinEdges::left}) {
    const UncertaintyOptions options{.bins = 15, .edges = edges, .coverage = 0.8, .risk = 0.8};
    constexpr std::size_t count = 12;
    EpisodeAnswers collected(options);
    std::vector<Rows> episodes;
    for (std::uint32_t e = 0; e < count; ++e) {
      episodes.push_back(episode(e, 5));
      collected.add_episode(episodes.back().probabilities, episodes.back().labels, 5);
    }
    const BootstrapOptions bootstrap_options{.resamples = 60, .seed = 8};
    const auto found = all_of(collected.statistics(bootstrap_options));
    for (std::size_t i = 0; i < found.size(); ++i) {
      // The rows of the drawn episodes, one episode after another, each as often as it is drawn.
      const Interval expected = bootstrap(
          count,
          [&](std::span<const std::size_t> drawn) {
            Rows rows;
            for (const std::size_t e : drawn) rows.append(episodes[e]);
            return by_hand(rows, options)[i];
          },
          bootstrap_options);
      EXPECT_NEAR(found[i].value, expected.value, 1e-12) << i;
      EXPECT_NEAR(found[i].low, expected.low, 1e-12) << i;
      EXPECT_NEAR(found[i].high, expected.high, 1e-12) << i;
      EXPECT_LT(found[i].low, found[i].high) << i;
    }
  }
}

TEST(EpisodeAnswers, EpisodesMayDifferInTheirClasses) {
  EpisodeAnswers collected;
  double brier = 0.0, rows = 0.0, third_class = 0.0;
  Rows wide;
  for (std::uint32_t e = 0; e < 8; ++e) {
    const std::size_t classes = e % 2 == 0 ? 2 : 3;
    const Rows one = episode(e, classes);
    if (classes == 3) wide.append(one);
    collected.add_episode(one.probabilities, one.labels, classes);
    brier += brier_parts(one.probabilities, one.labels, classes).brier *
             static_cast<double>(one.labels.size());
    rows += static_cast<double>(one.labels.size());
  }
  const UncertaintyStatistics s = collected.statistics({.resamples = 10});
  EXPECT_NEAR(s.brier_reliability.value - s.brier_resolution.value + s.brier_uncertainty.value +
                  s.brier_within_bin.value,
              brier / rows, 1e-12);
  // The third class is calibrated over the rows of the episodes that have it.
  Calibration third;
  for (std::size_t r = 0; r < wide.labels.size(); ++r) {
    third.add(wide.probabilities[3 * r + 2], wide.labels[r] == 2);
  }
  third_class = third.ece();
  EXPECT_GT(3.0 * s.classwise_ece.value, third_class);
  EXPECT_TRUE(std::isfinite(s.classwise_ece.value));
}

TEST(EpisodeAnswers, OneEpisodeHasNoInterval) {
  EpisodeAnswers collected;
  const Rows one = episode(1, 3);
  collected.add_episode(one.probabilities, one.labels, 3);
  const UncertaintyStatistics s = collected.statistics({});
  EXPECT_TRUE(std::isfinite(s.ece.value));
  EXPECT_TRUE(std::isnan(s.ece.low) && std::isnan(s.ece.high));
}

TEST(Bootstrap, AllStatisticsShareTheDrawsOfOne) {
  std::vector<double> values(30);
  std::iota(values.begin(), values.end(), 1.0);
  const auto found =
      bootstrap_all(values.size(), 2,
                    [&](std::span<const std::uint32_t> weights, std::span<double> out) {
                      double sum = 0.0;
                      for (std::size_t e = 0; e < weights.size(); ++e)
                        sum += weights[e] * values[e];
                      out[0] = sum / static_cast<double>(weights.size());
                      out[1] = weights[0] > 0 ? std::nan("") : 1.0;
                    },
                    {.resamples = 200, .seed = 3});
  const Interval expected = bootstrap_mean(values, {.resamples = 200, .seed = 3});
  EXPECT_NEAR(found[0].low, expected.low, 1e-12);
  EXPECT_NEAR(found[0].high, expected.high, 1e-12);
  EXPECT_TRUE(std::isnan(found[1].low)) << "it is not defined in every resample";
}

TEST(Bootstrap, TheNumberOfResamplesIsBounded) {
  EXPECT_EQ(affordable_resamples(0), 1000u);
  EXPECT_EQ(affordable_resamples(100'000), 500u);
  EXPECT_EQ(affordable_resamples(1'000'000'000'000), 200u);
}

}  // namespace
}  // namespace kshot::metrics
