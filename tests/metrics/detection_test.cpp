// AUROC, average precision and FPR at 95 % for scores that separate two kinds of rows, against
// values by hand.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kshot/error.h"
#include "kshot/random.h"
#include "metrics/classification.h"
#include "metrics/detection.h"

namespace kshot::metrics {
namespace {

const BootstrapOptions few{.resamples = 50};

TEST(Detection, OfAFewScoresByHand) {
  Detection d;
  d.add_episode(std::vector<double>{0.1, 0.4}, std::vector<double>{0.35, 0.8});
  const DetectionStatistics s = d.statistics(few);
  // This is scikit-learn's own example: roc_auc_score is 0.75 and average_precision_score is
  // 0.8333.
  EXPECT_DOUBLE_EQ(s.auroc.value, 0.75);
  EXPECT_NEAR(s.aupr.value, 0.5 * 1.0 + 0.5 * 2.0 / 3.0, 1e-12);
  // All known rows have to pass, so that the threshold is 0.4. One of two other rows passes.
  EXPECT_DOUBLE_EQ(s.fpr95.value, 0.5);
  EXPECT_TRUE(std::isnan(s.auroc.low)) << "one episode has no interval";
}

TEST(Detection, EqualScoresSayNothing) {
  Detection d;
  for (int i = 0; i < 3; ++i)
    d.add_episode(std::vector<double>{1.0, 1.0, 1.0}, std::vector<double>{1.0});
  const DetectionStatistics s = d.statistics(few);
  EXPECT_DOUBLE_EQ(s.auroc.value, 0.5);
  EXPECT_DOUBLE_EQ(s.aupr.value, 0.25);
  EXPECT_DOUBLE_EQ(s.fpr95.value, 1.0);
  Detection none;
  none.add_episode(std::vector<double>{1.0}, {});
  EXPECT_TRUE(std::isnan(none.statistics(few).auroc.value));
  EXPECT_THROW(none.add_episode(std::vector<double>{std::nan("")}, {}), Error);
}

TEST(Detection, FalsePositivesAreCountedWhere95PercentOfTheKnownRowsPass) {
  // The known rows are 1 ... 100, so that the threshold is 95. Five of the other rows, 91 ... 110,
  // pass (91 to 95).
  std::vector<double> known, other;
  for (int i = 1; i <= 100; ++i) known.push_back(i);
  for (int i = 91; i <= 110; ++i) other.push_back(i);
  Detection d;
  d.add_episode(known, other);
  EXPECT_DOUBLE_EQ(d.statistics(few).fpr95.value, 0.25);
}

TEST(Detection, AgreesWithTheAurocOfAllRowsAndHasIntervals) {
  RandomStream random({.seed = 5});
  Detection d;
  std::vector<Scored> rows;
  for (int e = 0; e < 40; ++e) {
    std::vector<double> known, other;
    for (int i = 0; i < 6; ++i) {
      known.push_back(std::round(10.0 * static_cast<double>(random.normal())));
      other.push_back(std::round(10.0 * static_cast<double>(random.normal() + 1.0f)));
      rows.push_back({known.back(), false});
      rows.push_back({other.back(), true});
    }
    d.add_episode(known, other);
  }
  const DetectionStatistics s = d.statistics({.resamples = 200});
  EXPECT_NEAR(s.auroc.value, auroc(rows), 1e-12);
  EXPECT_LT(s.auroc.low, s.auroc.value);
  EXPECT_GT(s.auroc.high, s.auroc.value);
  const Detection::Histogram h = d.histogram(10);
  std::size_t known = 0, other = 0;
  for (std::size_t b = 0; b < 10; ++b) {
    known += h.known[b];
    other += h.other[b];
  }
  EXPECT_EQ(known, 240u);
  EXPECT_EQ(other, 240u);
  EXPECT_GT(h.known[0] + h.known[1] + h.known[2], h.other[0] + h.other[1] + h.other[2]);
}

}  // namespace
}  // namespace kshot::metrics
