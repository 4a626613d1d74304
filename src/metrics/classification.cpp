#include "metrics/classification.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "kshot/error.h"
#include "metrics/classification_checks.h"
#include "metrics/constants.h"

namespace kshot::metrics {
namespace {

void check(std::span<const double> probabilities, std::span<const std::int32_t> labels,
           std::size_t classes) {
  check_labelled_rows(probabilities, labels, classes);
  for (double p : probabilities) {
    if (!(p >= 0.0 && p <= 1.0)) {
      throw Error("classification metrics: probability " + std::to_string(p) + ", expected 0 to 1");
    }
  }
}

/// Returns the confidences in ascending order. Throws Error for a confidence outside [0, 1].
std::vector<double> sorted_confidences(std::span<const Answer> answers) {
  std::vector<double> sorted;
  for (const Answer& a : answers) {
    if (!(a.confidence >= 0.0 && a.confidence <= 1.0)) {
      throw Error("classification metrics: confidence " + std::to_string(a.confidence) +
                  ", expected 0 to 1");
    }
    sorted.push_back(a.confidence);
  }
  std::ranges::sort(sorted);
  return sorted;
}

}  // namespace

std::vector<Answer> answers(std::span<const double> probabilities,
                            std::span<const std::int32_t> labels, std::size_t classes) {
  check(probabilities, labels, classes);
  std::vector<Answer> all;
  for (std::size_t r = 0; r < labels.size(); ++r) {
    const auto row = probabilities.subspan(r * classes, classes);
    const auto best = std::ranges::max_element(row);
    all.push_back({*best, best - row.begin() == labels[r]});
  }
  return all;
}

double ece_equal_mass(std::span<const Answer> answers, std::size_t bins) {
  if (bins == 0) throw Error("calibration: number of bins is 0, expected at least 1");
  const std::vector<double> sorted = sorted_confidences(answers);
  if (sorted.empty()) return kNaN;
  std::vector<double> edges;
  for (std::size_t b = 1; b < bins; ++b) {
    // The position b (n - 1) / bins is computed in whole numbers, so that an edge on an order
    // statistic equals it exactly.
    const std::size_t position = b * (sorted.size() - 1);
    const double low = sorted[position / bins];
    const double high = sorted[std::min(position / bins + 1, sorted.size() - 1)];
    const double rest = static_cast<double>(position % bins) / static_cast<double>(bins);
    edges.push_back(low + rest * (high - low));
  }
  std::vector<double> gaps(bins, 0.0);  // sum of right - confidence per bin
  for (const Answer& a : answers) {
    const auto above = std::ranges::lower_bound(edges, a.confidence);
    gaps[static_cast<std::size_t>(above - edges.begin())] += (a.right ? 1.0 : 0.0) - a.confidence;
  }
  double sum = 0.0;
  for (double gap : gaps) sum += std::abs(gap);
  return sum / static_cast<double>(answers.size());
}

double classwise_ece(std::span<const double> probabilities, std::span<const std::int32_t> labels,
                     std::size_t classes, std::size_t bins, BinEdges edges) {
  check(probabilities, labels, classes);
  double sum = 0.0;
  for (std::size_t c = 0; c < classes; ++c) {
    Calibration one(bins, edges);
    for (std::size_t r = 0; r < labels.size(); ++r) {
      one.add(probabilities[r * classes + c], static_cast<std::size_t>(labels[r]) == c);
    }
    sum += one.ece();
  }
  return sum / static_cast<double>(classes);
}

BrierParts brier_parts(std::span<const double> probabilities, std::span<const std::int32_t> labels,
                       std::size_t classes, std::size_t bins, BinEdges edges) {
  check(probabilities, labels, classes);
  const double n = static_cast<double>(labels.size());
  if (labels.empty()) return {kNaN, kNaN, kNaN, kNaN, kNaN};
  BrierParts parts;
  for (std::size_t c = 0; c < classes; ++c) {
    Calibration binned(bins, edges);
    double right = 0.0;
    for (std::size_t r = 0; r < labels.size(); ++r) {
      const bool is = static_cast<std::size_t>(labels[r]) == c;
      const double p = probabilities[r * classes + c];
      binned.add(p, is);
      right += is ? 1.0 : 0.0;
      parts.brier += (p - (is ? 1.0 : 0.0)) * (p - (is ? 1.0 : 0.0)) / n;
    }
    const double share = right / n;
    parts.uncertainty += share * (1.0 - share);
    const std::vector<ReliabilityBin> filled = binned.bins();
    for (const ReliabilityBin& b : filled) {
      const double weight = static_cast<double>(b.count) / n;
      parts.reliability += weight * (b.confidence - b.accuracy) * (b.confidence - b.accuracy);
      parts.resolution += weight * (b.accuracy - share) * (b.accuracy - share);
    }
    for (std::size_t r = 0; r < labels.size(); ++r) {
      const double p = probabilities[r * classes + c];
      const ReliabilityBin& b = filled[bin_of(p, bins, edges)];
      const double is = static_cast<std::size_t>(labels[r]) == c ? 1.0 : 0.0;
      const double gap = p - b.confidence;
      parts.within_bin += (gap * gap - 2.0 * gap * (is - b.accuracy)) / n;
    }
  }
  return parts;
}

RiskCoverage::RiskCoverage(std::span<const Answer> answers) : aurc_(0.0) {
  std::vector<Answer> sorted(answers.begin(), answers.end());
  sorted_confidences(answers);  // checks the confidences
  std::ranges::sort(sorted, std::ranges::greater{}, &Answer::confidence);
  const double n = static_cast<double>(sorted.size());
  double wrong = 0.0;
  for (std::size_t first = 0; first < sorted.size();) {
    std::size_t end = first;
    double wrong_here = 0.0;
    while (end < sorted.size() && sorted[end].confidence == sorted[first].confidence) {
      wrong_here += sorted[end++].right ? 0.0 : 1.0;
    }
    // In a random order of equal confidences, the first j answers are expected to have j times the
    // mean share of wrong ones.
    const double share = wrong_here / static_cast<double>(end - first);
    for (std::size_t i = first; i < end; ++i) {
      aurc_ +=
          (wrong + share * static_cast<double>(i + 1 - first)) / static_cast<double>(i + 1) / n;
    }
    wrong += wrong_here;
    const double answered = static_cast<double>(end);
    points_.push_back({sorted[first].confidence, answered / n, wrong / answered});
    first = end;
  }
  if (sorted.empty()) aurc_ = kNaN;
}

double RiskCoverage::risk_at(double coverage) const {
  if (!(coverage >= 0.0 && coverage <= 1.0)) {
    throw Error("risk at a coverage of " + std::to_string(coverage) + ", expected 0 to 1");
  }
  for (const RiskPoint& point : points_) {
    // The tolerance is for rounding: the coverage of 4 of 5 rows may be slightly below 0.8.
    if (point.coverage >= coverage - 1e-12) return point.risk;
  }
  return kNaN;
}

double RiskCoverage::coverage_at(double risk) const {
  double largest = 0.0;
  for (const RiskPoint& point : points_) {
    if (point.risk <= risk + 1e-12) largest = point.coverage;
  }
  return largest;
}

double auroc(std::span<const Scored> rows) {
  std::vector<Scored> sorted(rows.begin(), rows.end());
  for (const Scored& row : sorted) {
    if (std::isnan(row.score)) throw Error("AUROC: a score is not a number");
  }
  std::ranges::sort(sorted, {}, &Scored::score);
  double positives = 0.0, negatives = 0.0, pairs = 0.0;
  for (std::size_t first = 0; first < sorted.size();) {
    std::size_t end = first;
    double here[2] = {0.0, 0.0};  // numbers of negative and positive rows with this score
    while (end < sorted.size() && sorted[end].score == sorted[first].score) {
      ++here[sorted[end++].positive ? 1 : 0];
    }
    pairs += here[1] * (negatives + 0.5 * here[0]);
    negatives += here[0];
    positives += here[1];
    first = end;
  }
  return positives > 0.0 && negatives > 0.0 ? pairs / (positives * negatives) : kNaN;
}

double class_auroc(std::span<const double> probabilities, std::span<const std::int32_t> labels,
                   std::size_t classes, std::size_t of) {
  std::vector<Scored> rows;
  rows.reserve(labels.size());
  for (std::size_t r = 0; r < labels.size(); ++r) {
    rows.push_back({probabilities[r * classes + of], static_cast<std::size_t>(labels[r]) == of});
  }
  return auroc(rows);
}

}  // namespace kshot::metrics
