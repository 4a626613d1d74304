#include "metrics/bootstrap.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "kshot/error.h"
#include "kshot/random.h"
#include "metrics/constants.h"
#include "metrics/metrics.h"

namespace kshot::metrics {

namespace {

void check(const BootstrapOptions& options) {
  if (options.resamples == 0 || !(options.level > 0.0 && options.level < 1.0)) {
    throw Error("bootstrap: " + std::to_string(options.resamples) + " resamples and level " +
                std::to_string(options.level) + ", expected at least 1, and between 0 and 1");
  }
}

/// Draws the numbers of the episodes of resample `r`.
void draw(std::vector<std::size_t>& drawn, std::uint64_t seed, std::size_t r) {
  RandomStream random({.seed = seed, .task = static_cast<std::uint32_t>(r)});
  const auto episodes = static_cast<std::uint32_t>(drawn.size());
  for (std::size_t& episode : drawn) episode = random.below(episodes);
}

/// Sets the ends of an interval from the statistic's values in the resamples.
void set_ends(Interval& interval, std::vector<double>& values, double level) {
  if (!std::ranges::all_of(values, [](double v) { return std::isfinite(v); })) return;
  std::ranges::sort(values);
  const Band band = central_band(values, level);
  interval.low = band.low;
  interval.high = band.high;
}

}  // namespace

Interval bootstrap(std::size_t episodes,
                   const std::function<double(std::span<const std::size_t> episodes)>& statistic,
                   const BootstrapOptions& options) {
  check(options);
  std::vector<std::size_t> drawn(episodes);
  std::iota(drawn.begin(), drawn.end(), std::size_t{0});
  Interval interval{statistic(drawn), kNaN, kNaN};
  if (episodes < 2) return interval;
  std::vector<double> values;
  for (std::size_t r = 0; r < options.resamples; ++r) {
    draw(drawn, options.seed, r);
    values.push_back(statistic(drawn));
    if (!std::isfinite(values.back())) return interval;
  }
  set_ends(interval, values, options.level);
  return interval;
}

std::vector<Interval> bootstrap_all(
    std::size_t episodes, std::size_t count,
    const std::function<void(std::span<const std::uint32_t>, std::span<double>)>& statistics,
    const BootstrapOptions& options) {
  check(options);
  std::vector<std::uint32_t> weights(episodes, 1);
  std::vector<double> values(count);
  statistics(weights, values);
  std::vector<Interval> intervals;
  for (const double value : values) intervals.push_back({value, kNaN, kNaN});
  if (episodes < 2) return intervals;
  std::vector<std::size_t> drawn(episodes);
  std::vector<std::vector<double>> all(count);
  for (std::size_t r = 0; r < options.resamples; ++r) {
    draw(drawn, options.seed, r);
    std::ranges::fill(weights, 0U);
    for (const std::size_t episode : drawn) ++weights[episode];
    statistics(weights, values);
    for (std::size_t i = 0; i < count; ++i) all[i].push_back(values[i]);
  }
  for (std::size_t i = 0; i < count; ++i) set_ends(intervals[i], all[i], options.level);
  return intervals;
}

std::size_t affordable_resamples(std::size_t work) {
  constexpr std::size_t most_steps = 50'000'000;
  return std::clamp<std::size_t>(most_steps / std::max<std::size_t>(work, 1), 200, 1000);
}

Interval bootstrap_mean(std::span<const double> values, const BootstrapOptions& options) {
  return bootstrap(
      values.size(),
      [&](std::span<const std::size_t> episodes) {
        double sum = 0.0;
        for (std::size_t episode : episodes) sum += values[episode];
        return sum / static_cast<double>(episodes.size());
      },
      options);
}

Interval bootstrap_difference(std::span<const double> first, std::span<const double> second,
                              const BootstrapOptions& options) {
  if (first.size() != second.size()) {
    throw Error("bootstrap: " + std::to_string(first.size()) + " and " +
                std::to_string(second.size()) + " episodes, expected the same ones");
  }
  std::vector<double> differences(first.begin(), first.end());
  for (std::size_t i = 0; i < second.size(); ++i) differences[i] -= second[i];
  return bootstrap_mean(differences, options);
}

}  // namespace kshot::metrics
