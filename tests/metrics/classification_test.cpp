// Calibration errors, Brier parts, risk and coverage, and AUROC: small cases by hand, and random
// rows against scikit-learn and NumPy.
#include "metrics/classification.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kshot/error.h"
#include "kshot/random.h"
#include "support/python.h"

namespace kshot::metrics {
namespace {

using nlohmann::json;

std::size_t filled_bin(double confidence, std::size_t bins, BinEdges edges) {
  Calibration calibration(bins, edges);
  calibration.add(confidence, true);
  const auto all = calibration.bins();
  for (std::size_t b = 0; b < bins; ++b) {
    if (all[b].count == 1) return b;
  }
  return bins;
}

TEST(BinEdges, OneFifthIsAnEdgeOfFifteenBins) {
  // A uniform prediction over five classes is 0.2 = 3 / 15. The bin below this edge is 2, and the
  // bin above is 3.
  EXPECT_EQ(filled_bin(0.2, 15, BinEdges::right), 2u);
  EXPECT_EQ(filled_bin(0.2, 15, BinEdges::left), 3u);
  for (int k = 1; k < 15; ++k) {
    const double edge = k / 15.0;
    const auto above = static_cast<std::size_t>(k);
    EXPECT_EQ(filled_bin(edge, 15, BinEdges::right), above - 1) << k;
    EXPECT_EQ(filled_bin(edge, 15, BinEdges::left), above) << k;
    for (const BinEdges edges : {BinEdges::right, BinEdges::left}) {
      EXPECT_EQ(filled_bin(std::nextafter(edge, 0.0), 15, edges), above - 1) << k;
      EXPECT_EQ(filled_bin(std::nextafter(edge, 1.0), 15, edges), above) << k;
    }
  }
  for (const BinEdges edges : {BinEdges::right, BinEdges::left}) {
    EXPECT_EQ(filled_bin(0.0, 15, edges), 0u);
    EXPECT_EQ(filled_bin(1.0, 15, edges), 14u) << "no bin of its own";
  }
}

TEST(BinEdges, TheRuleChangesTheEceOfUniformPredictions) {
  // 0.2 shares a bin with the confidence 0.19 or with 0.21, as the rule for edges says. The answer
  // at 0.2 is right, and the others are wrong.
  Calibration right(15), left(15, BinEdges::left);
  for (Calibration* c : {&right, &left}) {
    c->add(0.2, true);
    c->add(0.19, false);
    c->add(0.21, false);
  }
  EXPECT_NEAR(right.ece(), (std::abs(1 - 0.39) + 0.21) / 3, 1e-12);
  EXPECT_NEAR(left.ece(), (0.19 + std::abs(1 - 0.41)) / 3, 1e-12);
  EXPECT_NEAR(right.mce(), (1 - 0.39) / 2, 1e-12);
  EXPECT_NEAR(left.mce(), (1 - 0.41) / 2, 1e-12);
  EXPECT_TRUE(std::isnan(Calibration(15).mce()));
}

TEST(EqualMass, BinsByHand) {
  // There are two bins. The edge is the median, 0.6, and belongs to the lower bin.
  const std::vector<Answer> all = {
      {0.9, true}, {0.5, false}, {0.8, true}, {0.6, true}, {0.55, false}};
  // The lower bin holds 0.5, 0.55 and 0.6 with one right answer, |1 - 1.65|. The upper bin holds
  // 0.8 and 0.9 with two right answers, |2 - 1.7|.
  EXPECT_NEAR(ece_equal_mass(all, 2), (0.65 + 0.3) / 5, 1e-12);
  // Equal confidences share a bin, whatever the number of bins.
  const std::vector<Answer> equal = {{0.7, true}, {0.7, false}, {0.7, true}, {0.7, true}};
  EXPECT_NEAR(ece_equal_mass(equal, 15), 0.05, 1e-12);
  EXPECT_NEAR(ece_equal_mass(std::vector<Answer>{{0.25, true}}), 0.75, 1e-12);
  EXPECT_TRUE(std::isnan(ece_equal_mass({})));
  EXPECT_THROW(ece_equal_mass(all, 0), Error);
  EXPECT_THROW(ece_equal_mass(std::vector<Answer>{{1.5, true}}), Error);
}

TEST(Brier, PartsByHand) {
  // Two classes. The probability of the first class is 0.8 in three rows, of which two are of this
  // class, and 0.4 in two rows, of which one is. Per class, reliability is (3 (0.8 - 2/3)^2 + 2
  // (0.4 - 0.5)^2) / 5, resolution is (3 (2/3 - 0.6)^2 + 2 (0.5 - 0.6)^2) / 5, and uncertainty is
  // 0.6 * 0.4. Nothing varies within a bin.
  const std::vector<double> p = {0.8, 0.2, 0.8, 0.2, 0.8, 0.2, 0.4, 0.6, 0.4, 0.6};
  const std::vector<std::int32_t> labels = {0, 0, 1, 0, 1};
  const BrierParts parts = brier_parts(p, labels, 2);
  const double gap = 0.8 - 2.0 / 3.0;
  EXPECT_NEAR(parts.reliability, 2 * (3 * gap * gap + 2 * 0.01) / 5, 1e-12);
  EXPECT_NEAR(parts.resolution, 2 * (3 / 225.0 + 2 * 0.01) / 5, 1e-12);
  EXPECT_NEAR(parts.uncertainty, 0.48, 1e-12);
  EXPECT_NEAR(parts.within_bin, 0.0, 1e-12);
  EXPECT_NEAR(parts.brier, 2 * (2 * 0.04 + 0.64 + 0.36 + 0.16) / 5, 1e-12);
  EXPECT_NEAR(parts.brier, parts.reliability - parts.resolution + parts.uncertainty, 1e-12);
}

TEST(Classwise, ByHand) {
  // With one bin, each class contributes |share - mean probability|, which is |0.6 - 0.64| for the
  // first class and as much for the second.
  const std::vector<double> p = {0.8, 0.2, 0.8, 0.2, 0.8, 0.2, 0.4, 0.6, 0.4, 0.6};
  const std::vector<std::int32_t> labels = {0, 0, 1, 0, 1};
  EXPECT_NEAR(classwise_ece(p, labels, 2, 1), 0.04, 1e-12);
  EXPECT_TRUE(std::isnan(classwise_ece({}, {}, 2)));
  EXPECT_THROW(classwise_ece(p, labels, 3), Error);
  EXPECT_THROW(classwise_ece(p, std::vector<std::int32_t>{0, 0, 2, 0, 1}, 2), Error);
  EXPECT_THROW(classwise_ece(std::vector<double>{1.1, -0.1}, std::vector<std::int32_t>{0}, 2),
               Error);
}

TEST(Answers, TiesGoToTheLowestClass) {
  const auto all = answers(std::vector<double>{0.4, 0.4, 0.2, 0.1, 0.2, 0.7},
                           std::vector<std::int32_t>{0, 1}, 3);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_TRUE(all[0].right);
  EXPECT_FALSE(all[1].right);
  EXPECT_EQ(all[1].confidence, 0.7);
}

TEST(RiskCoverage, ByHand) {
  // The risks of the 1, 2, 3, 4 and 5 most confident answers are 0, 1/2, 1/3, 1/4 and 2/5.
  const RiskCoverage curve(
      std::vector<Answer>{{0.6, true}, {0.9, true}, {0.8, false}, {0.7, true}, {0.5, false}});
  EXPECT_NEAR(curve.aurc(), (0.5 + 1.0 / 3 + 0.25 + 0.4) / 5, 1e-12);
  EXPECT_NEAR(curve.risk_at(0.8), 0.25, 1e-12);
  EXPECT_NEAR(curve.risk_at(0.81), 0.4, 1e-12);
  EXPECT_NEAR(curve.risk_at(0.0), 0.0, 1e-12);
  EXPECT_NEAR(curve.coverage_at(0.25), 0.8, 1e-12);
  EXPECT_NEAR(curve.coverage_at(0.05), 0.2, 1e-12);
  EXPECT_NEAR(curve.coverage_at(0.4), 1.0, 1e-12);
  EXPECT_THROW(curve.risk_at(1.5), Error);
}

TEST(RiskCoverage, EqualConfidencesAreAveragedAndNotDivided) {
  // The answer at 0.9 is right, and one of the two at 0.5 is wrong. The risks of the two possible
  // orders are (0, 0, 1/3) and (0, 1/2, 1/3).
  for (const bool first : {true, false}) {
    const RiskCoverage curve(std::vector<Answer>{{0.5, first}, {0.9, true}, {0.5, !first}});
    EXPECT_NEAR(curve.aurc(), (0.25 + 1.0 / 3.0) / 3.0, 1e-12);
    ASSERT_EQ(curve.points().size(), 2u);
    EXPECT_NEAR(curve.risk_at(0.5), 1.0 / 3.0, 1e-12) << "a threshold answers both or neither";
    EXPECT_NEAR(curve.coverage_at(0.2), 1.0 / 3.0, 1e-12);
  }
  // Where all confidences are equal, every coverage has the error rate.
  EXPECT_NEAR(RiskCoverage(std::vector<Answer>{{0.2, true}, {0.2, false}, {0.2, false}}).aurc(),
              2.0 / 3.0, 1e-12);
}

TEST(RiskCoverage, NothingToAnswerAndNeverRight) {
  const RiskCoverage none(std::vector<Answer>{});
  EXPECT_TRUE(std::isnan(none.aurc()));
  EXPECT_TRUE(std::isnan(none.risk_at(0.8)));
  EXPECT_EQ(none.coverage_at(1.0), 0.0);
  const RiskCoverage wrong(std::vector<Answer>{{0.4, false}, {0.3, false}});
  EXPECT_EQ(wrong.aurc(), 1.0);
  EXPECT_EQ(wrong.coverage_at(0.5), 0.0);
}

TEST(Auroc, PairsByHand) {
  // The positive scores are 3, 1, 1 and the negative ones 1, 0. Of the six pairs, four are in order
  // (3 > 1, 3 > 0 and twice 1 > 0) and two are ties.
  const std::vector<Scored> rows = {{3, true}, {1, false}, {1, true}, {0, false}, {1, true}};
  EXPECT_NEAR(auroc(rows), (4 + 2 * 0.5) / 6, 1e-12);
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(auroc(std::vector<Scored>{{infinity, true}, {-infinity, false}}), 1.0);
  EXPECT_EQ(auroc(std::vector<Scored>{{0, true}, {0, false}}), 0.5);
  EXPECT_TRUE(std::isnan(auroc(std::vector<Scored>{{1, true}})));
  EXPECT_TRUE(std::isnan(auroc({})));
  EXPECT_THROW(auroc(std::vector<Scored>{{std::nan(""), true}, {0, false}}), Error);
}

/// The expected numbers come from scikit-learn where it has the quantity, and otherwise from NumPy.
/// torchmetrics and netcal need PyTorch and are not used. Their rules are written out here
/// (netcal's bins are [low, high)).
const char kMetrics[] = R"(
import json, os
os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, roc_auc_score
d = json.load(open("rows.json"))
P = np.array(d["p"]).reshape(-1, d["classes"]); y = np.array(d["labels"]); C = d["classes"]
n = len(y); one = np.eye(C)[y]
best = P.argmax(1); confidence = P.max(1); right = (best == y).astype(float)
edges = np.arange(16) / 15
def bins(p, rule):
    inner = edges[1:-1]
    return np.searchsorted(inner, p, side="left" if rule == "right" else "right")
def gaps(p, hit, rule):
    b = bins(p, rule)
    return [((b == i).sum(), hit[b == i].mean() - p[b == i].mean())
            for i in range(15) if (b == i).any()]
out = {}
for rule in ("right", "left"):
    g = gaps(confidence, right, rule)
    out[rule] = {
        "ece": sum(k * abs(x) for k, x in g) / n, "mce": max(abs(x) for _, x in g),
        "classwise": np.mean([sum(k * abs(x) for k, x in gaps(P[:, c], one[:, c], rule)) / n
                              for c in range(C)])}
    parts = np.zeros(4)
    for c in range(C):
        p, o = P[:, c], one[:, c]; b = bins(p, rule)
        for i in np.unique(b):
            q, r = p[b == i], o[b == i]
            parts[0] += len(q) / n * (q.mean() - r.mean()) ** 2
            parts[1] += len(q) / n * (r.mean() - o.mean()) ** 2
            parts[3] += len(q) / n * (q.var() - 2 * np.mean((q - q.mean()) * (r - r.mean())))
        parts[2] += o.var()
    out[rule]["parts"] = parts.tolist()
# scikit-learn's bins: (low, high], uniform or by quantiles
share, mean = calibration_curve(right, confidence, n_bins=15)
g = gaps(confidence, right, "right")
out["sklearn gap"] = float(np.abs((share - mean) - np.array([x for _, x in g])).max())
quantiles = np.quantile(confidence, np.arange(16) / 15)
b = np.searchsorted(quantiles[1:-1], confidence)
share, mean = calibration_curve(right, confidence, n_bins=15, strategy="quantile")
weights = np.array([(b == i).sum() for i in np.unique(b)])
out["equal mass"] = float((weights * np.abs(share - mean)).sum() / n)
out["brier"] = float(np.mean(((P - one) ** 2).sum(1)))
out["brier binary"] = [float(brier_score_loss(one[:, c], P[:, c])) for c in range(C)]
order = np.argsort(-confidence, kind="stable")
risks = np.cumsum(1 - right[order]) / np.arange(1, n + 1)
# distinct confidences but for the uniform rows, which are all wrong: their order does not matter
out["aurc"] = float(risks.mean())
out["risk"] = float(risks[int(np.ceil(0.8 * n)) - 1])
out["coverage"] = max([(i + 1) / n for i in range(n) if risks[i] <= 0.25], default=0.0)
out["auroc"] = [float(roc_auc_score(one[:, c], np.round(P[:, c], 2))) for c in range(C)]
print(json.dumps(out))
)";

TEST(Classification, ScikitLearnAndNumPyGiveTheSameNumbers) {
  KSHOT_NEEDS("sklearn");
  // 398 / 15 is not whole, so that no quantile is an order statistic, which NumPy's rounding may
  // miss.
  constexpr std::size_t classes = 5, rows = 399;
  RandomStream random({.seed = 5});
  std::vector<double> p(rows * classes);
  std::vector<std::int32_t> labels;
  for (std::size_t r = 0; r < rows; ++r) {
    const auto row = std::span(p).subspan(r * classes, classes);
    for (double& x : row) x = 1.5 * random.normal();
    softmax(row, row);
    // The label is drawn from the row's own probabilities, tempered, so that the rows are
    // overconfident.
    std::int32_t label = 0;
    double u = random.uniform(), tempered = 0.6 * row[0] + 0.08;
    while (u >= tempered && label < 4) {
      u -= tempered;
      tempered = 0.6 * row[static_cast<std::size_t>(++label)] + 0.08;
    }
    labels.push_back(label);
  }
  // 0.2 lies on the edge of fifteen bins. All these rows are wrong.
  for (std::size_t r = 0; r < 8; ++r) {
    std::fill_n(p.begin() + static_cast<std::ptrdiff_t>(r * classes), classes, 0.2);
    labels[r] = 3;
  }
  const test::TempFolder folder;
  io::write_file_atomic(folder / "rows.json",
                        json({{"p", p}, {"labels", labels}, {"classes", classes}}).dump());
  const json expected = test::run_python(folder, kMetrics);
  ASSERT_TRUE(expected.is_object());
  constexpr double tolerance = 1e-12;  // The values are sums of some hundred terms of at most one.
  const auto all = answers(p, labels, classes);
  for (const auto& [name, edges] :
       {std::pair{"right", BinEdges::right}, {"left", BinEdges::left}}) {
    Calibration calibration(15, edges);
    for (const Answer& a : all) calibration.add(a.confidence, a.right);
    const json& e = expected.at(name);
    EXPECT_NEAR(calibration.ece(), e.at("ece").get<double>(), tolerance) << name;
    EXPECT_NEAR(calibration.mce(), e.at("mce").get<double>(), tolerance) << name;
    EXPECT_NEAR(classwise_ece(p, labels, classes, 15, edges), e.at("classwise").get<double>(),
                tolerance)
        << name;
    const BrierParts parts = brier_parts(p, labels, classes, 15, edges);
    const double found[] = {parts.reliability, parts.resolution, parts.uncertainty,
                            parts.within_bin};
    for (std::size_t i = 0; i < 4; ++i) {
      EXPECT_NEAR(found[i], e.at("parts")[i].get<double>(), tolerance) << name << i;
    }
    EXPECT_NEAR(parts.brier, expected.at("brier").get<double>(), tolerance);
    EXPECT_NEAR(parts.brier, found[0] - found[1] + found[2] + found[3], tolerance);
    double binary = 0.0;
    for (const json& b : expected.at("brier binary")) binary += b.get<double>();
    EXPECT_NEAR(parts.brier, binary, tolerance);
  }
  EXPECT_NE(expected.at("right").at("parts"), expected.at("left").at("parts"))
      << "0.2 is on an edge";
  EXPECT_NEAR(expected.at("sklearn gap").get<double>(), 0.0, tolerance)
      << "scikit-learn's bins are (low, high]";
  EXPECT_NEAR(ece_equal_mass(all), expected.at("equal mass").get<double>(), tolerance);
  const RiskCoverage curve(all);
  EXPECT_NEAR(curve.aurc(), expected.at("aurc").get<double>(), tolerance);
  EXPECT_NEAR(curve.risk_at(0.8), expected.at("risk").get<double>(), tolerance);
  EXPECT_NEAR(curve.coverage_at(0.25), expected.at("coverage").get<double>(), tolerance);
  for (std::size_t c = 0; c < classes; ++c) {
    std::vector<Scored> scored;
    for (std::size_t r = 0; r < rows; ++r) {
      // Scores are rounded, so that many rows have equal scores.
      scored.push_back({std::round(100.0 * p[r * classes + c]) / 100.0,
                        labels[r] == static_cast<std::int32_t>(c)});
    }
    EXPECT_NEAR(auroc(scored), expected.at("auroc")[c].get<double>(), 1e-9) << c;
  }
}

}  // namespace
}  // namespace kshot::metrics
