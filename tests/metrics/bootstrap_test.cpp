// Bootstrap intervals over episodes: small cases by hand, the normal interval, and SciPy's.
#include "metrics/bootstrap.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "kshot/error.h"
#include "metrics/classification.h"
#include "metrics/metrics.h"
#include "support/normals.h"
#include "support/python.h"

namespace kshot::metrics {
namespace {

TEST(Bootstrap, TwoEpisodesByHand) {
  // The mean of two draws of 0 and 1 is 0, 1/2 or 1, with probability 1/4, 1/2, 1/4.
  const std::vector<double> values = {0, 1};
  const Interval wide = bootstrap_mean(values);
  EXPECT_EQ(wide.value, 0.5);
  EXPECT_EQ(wide.low, 0.0);
  EXPECT_EQ(wide.high, 1.0);
  const Interval narrow = bootstrap_mean(values, {.level = 0.4});
  EXPECT_EQ(narrow.low, 0.5);
  EXPECT_EQ(narrow.high, 0.5);
}

TEST(Bootstrap, MeanOfManyEpisodesIsNearTheNormalInterval) {
  const auto values = test::normals<double>(400, 1);
  const Interval interval = bootstrap_mean(values, {.resamples = 10000});
  const Estimate normal = estimate(values);
  EXPECT_NEAR(interval.value, normal.mean, 1e-12);
  // The ends of 10,000 resamples have a standard deviation of about 0.025 half widths.
  EXPECT_NEAR(interval.low, normal.mean - normal.half_width, 0.12 * normal.half_width);
  EXPECT_NEAR(interval.high, normal.mean + normal.half_width, 0.12 * normal.half_width);
}

TEST(Bootstrap, SameSeedSameEpisodesWhateverTheValues) {
  const auto values = test::normals<double>(50, 2);
  std::vector<double> scaled(values);
  for (double& x : scaled) x = 2.0 * x + 1.0;
  const Interval a = bootstrap_mean(values, {.seed = 4}), b = bootstrap_mean(scaled, {.seed = 4});
  EXPECT_NEAR(b.low, 2.0 * a.low + 1.0, 1e-12);
  EXPECT_NEAR(b.high, 2.0 * a.high + 1.0, 1e-12);
  EXPECT_NE(bootstrap_mean(values, {.seed = 5}).low, a.low);
}

TEST(Bootstrap, PairedDifferencesDoNotSeeWhatEpisodesHaveInCommon) {
  auto first = test::normals<double>(100, 3);
  std::vector<double> second(first);
  for (std::size_t i = 0; i < first.size(); ++i) {
    first[i] = 10.0 * first[i] + 0.5;
    second[i] = 10.0 * second[i];
  }
  const Interval difference = bootstrap_difference(first, second);
  EXPECT_NEAR(difference.value, 0.5, 1e-9);
  EXPECT_NEAR(difference.low, 0.5, 1e-9);
  EXPECT_NEAR(difference.high, 0.5, 1e-9);
  second.pop_back();
  EXPECT_THROW(bootstrap_difference(first, second), Error);
}

TEST(Bootstrap, AnyStatisticOfWholeEpisodes) {
  // The statistic is the risk of the more confident half of the answers. Whole episodes are drawn.
  const std::vector<std::vector<Answer>> episodes = {
      {{0.9, true}, {0.2, false}}, {{0.8, false}, {0.3, true}}, {{0.7, true}, {0.1, false}}};
  std::set<std::size_t> seen;
  const Interval interval = bootstrap(3, [&](std::span<const std::size_t> drawn) {
    std::vector<Answer> all;
    for (std::size_t e : drawn) {
      seen.insert(e);
      all.insert(all.end(), episodes[e].begin(), episodes[e].end());
    }
    return RiskCoverage(all).risk_at(0.5);
  });
  EXPECT_NEAR(interval.value, 1.0 / 3.0, 1e-12);
  EXPECT_EQ(interval.low, 0.0);
  EXPECT_EQ(interval.high, 1.0);
  EXPECT_EQ(seen.size(), 3u);
}

TEST(Bootstrap, TooFewEpisodesAndNumbersThatAreNotFinite) {
  EXPECT_TRUE(std::isnan(bootstrap_mean(std::vector<double>{3.0}).low));
  EXPECT_EQ(bootstrap_mean(std::vector<double>{3.0}).value, 3.0);
  EXPECT_TRUE(std::isnan(bootstrap_mean({}).value));
  EXPECT_TRUE(std::isnan(bootstrap_mean(std::vector<double>{1, 2, std::nan("")}).high));
  EXPECT_THROW(bootstrap_mean(std::vector<double>{1, 2}, {.level = 1.0}), Error);
  EXPECT_THROW(bootstrap_mean(std::vector<double>{1, 2}, {.resamples = 0}), Error);
}

TEST(Bootstrap, ScipyGivesTheSameInterval) {
  KSHOT_NEEDS("scipy");
  std::vector<double> values = test::normals<double>(60, 6);
  // The values are skewed, so that the interval is not the normal one.
  for (double& x : values) x = std::exp(x);
  const test::TempFolder folder;
  io::write_file_atomic(folder / "values.json", nlohmann::json(values).dump());
  const nlohmann::json found = test::run_python(folder, R"(
import json
import numpy as np
from scipy.stats import bootstrap
x = np.array(json.load(open("values.json")))
i = bootstrap((x,), np.mean, n_resamples=40000, method="percentile",
              random_state=np.random.default_rng(0)).confidence_interval
print(json.dumps([float(i.low), float(i.high)]))
)");
  const Interval ours = bootstrap_mean(values, {.resamples = 40000});
  const double width = ours.high - ours.low;
  // Both intervals have 40,000 resamples. The standard deviation of an end is about 0.5 % of the
  // width.
  EXPECT_NEAR(ours.low, found[0].get<double>(), 0.025 * width);
  EXPECT_NEAR(ours.high, found[1].get<double>(), 0.025 * width);
}

}  // namespace
}  // namespace kshot::metrics
