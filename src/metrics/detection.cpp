#include "metrics/detection.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "kshot/error.h"
#include "metrics/constants.h"

namespace kshot::metrics {

void Detection::add_episode(std::span<const double> known, std::span<const double> other) {
  for (const auto& [scores, is_other] : {std::pair{known, false}, std::pair{other, true}}) {
    for (const double s : scores) {
      if (std::isnan(s)) throw Error("detection of other rows: a score is not a number");
      rows_.push_back({s, static_cast<std::uint32_t>(episodes_), is_other});
    }
  }
  ++episodes_;
}

DetectionStatistics Detection::statistics(const BootstrapOptions& options) const {
  std::vector<Row> sorted = rows_;
  std::ranges::sort(sorted, std::ranges::greater{}, &Row::score);
  const auto statistics = [&](std::span<const std::uint32_t> weights, std::span<double> values) {
    double known = 0.0, other = 0.0;
    for (const Row& r : sorted) (r.other ? other : known) += weights[r.episode];
    if (known == 0.0 || other == 0.0) {
      std::ranges::fill(values, kNaN);
      return;
    }
    double known_above = 0.0, other_above = 0.0;
    double pairs = 0.0, precision = 0.0, passing = other;
    for (std::size_t first = 0; first < sorted.size();) {
      double known_here = 0.0, other_here = 0.0;
      std::size_t end = first;
      for (; end < sorted.size() && sorted[end].score == sorted[first].score; ++end) {
        (sorted[end].other ? other_here : known_here) += weights[sorted[end].episode];
      }
      first = end;
      pairs += other_here * (known - known_above - 0.5 * known_here);
      known_above += known_here;
      other_above += other_here;
      if (other_here > 0.0) precision += other_here * other_above / (other_above + known_above);
      if (known_above <= 0.05 * known + 1e-9) passing = other - other_above;
    }
    values[0] = pairs / (known * other);
    values[1] = precision / other;
    values[2] = passing / other;
  };
  const std::vector<Interval> all = bootstrap_all(episodes_, 3, statistics, options);
  return {all[0], all[1], all[2]};
}

Detection::Histogram Detection::histogram(std::size_t bins) const {
  Histogram h{.known = std::vector<std::size_t>(bins), .other = std::vector<std::size_t>(bins)};
  if (rows_.empty()) return h;
  std::vector<double> scores;
  for (const Row& r : rows_) scores.push_back(r.score);
  std::ranges::sort(scores);
  h.low = scores.front();
  h.high = scores[(scores.size() - 1) * 99 / 100];
  const double width = (h.high - h.low) / static_cast<double>(bins);
  for (const Row& r : rows_) {
    const double place = width > 0.0 ? (r.score - h.low) / width : 0.0;
    const auto bin = static_cast<std::size_t>(std::min(place, static_cast<double>(bins - 1)));
    ++(r.other ? h.other : h.known)[bin];
  }
  return h;
}

}  // namespace kshot::metrics
