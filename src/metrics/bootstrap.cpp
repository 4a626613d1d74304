#include "metrics/bootstrap.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "kshot/error.h"
#include "kshot/random.h"
#include "metrics/metrics.h"

namespace kshot::metrics {

Interval bootstrap(std::size_t episodes,
                   const std::function<double(std::span<const std::size_t> episodes)>& statistic,
                   const BootstrapOptions& options) {
  if (options.resamples == 0 || !(options.level > 0.0 && options.level < 1.0)) {
    throw Error("bootstrap: " + std::to_string(options.resamples) + " resamples and level " +
                std::to_string(options.level) + ", expected at least 1, and between 0 and 1");
  }
  std::vector<std::size_t> drawn(episodes);
  std::iota(drawn.begin(), drawn.end(), std::size_t{0});
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  Interval interval{statistic(drawn), nan, nan};
  if (episodes < 2) return interval;
  std::vector<double> values;
  for (std::size_t r = 0; r < options.resamples; ++r) {
    RandomStream random({.seed = options.seed, .task = static_cast<std::uint32_t>(r)});
    for (std::size_t& episode : drawn) episode = random.below(static_cast<std::uint32_t>(episodes));
    values.push_back(statistic(drawn));
    if (!std::isfinite(values.back())) return interval;
  }
  std::ranges::sort(values);
  const Band band = central_band(values, options.level);
  interval.low = band.low;
  interval.high = band.high;
  return interval;
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
