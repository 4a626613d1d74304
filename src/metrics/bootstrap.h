// Bootstrap intervals over episodes: episodes, not rows, are drawn anew, because the rows of one
// episode have its support set in common.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace kshot::metrics {

struct BootstrapOptions {
  std::size_t resamples = 2000;
  double level = 0.95;     ///< of the interval, in (0, 1)
  std::uint64_t seed = 0;  ///< the same seed draws the same episodes, whatever the values
};

/// A statistic and its percentile interval (Efron 1979): the (1 - level) / 2 and (1 + level) / 2
/// quantiles, as central_band, of the statistic of episodes drawn with replacement. NaN ends where
/// there are fewer than two episodes, or where the statistic of a resample is not finite.
struct Interval {
  double value = 0.0;
  double low = 0.0;
  double high = 0.0;
};

/// Any statistic of n episodes, given by their numbers in [0, n) (some more than once): ECE, AURC.
Interval bootstrap(std::size_t episodes,
                   const std::function<double(std::span<const std::size_t> episodes)>& statistic,
                   const BootstrapOptions& options = {});
/// The mean over episodes; values [episodes].
Interval bootstrap_mean(std::span<const double> values, const BootstrapOptions& options = {});
/// The mean of first - second, paired by episode: of two methods on the same episodes. Throws Error
/// for lengths that differ.
Interval bootstrap_difference(std::span<const double> first, std::span<const double> second,
                              const BootstrapOptions& options = {});

/// Several statistics of the same resamples, whose draws are those of `bootstrap`. `statistics`
/// writes `count` values for episodes of which each counts so many times, weights [episodes]. Each
/// statistic has NaN ends where it is not finite in some resample.
std::vector<Interval> bootstrap_all(std::size_t episodes, std::size_t count,
                                    const std::function<void(std::span<const std::uint32_t> weights,
                                                             std::span<double> values)>& statistics,
                                    const BootstrapOptions& options = {});

/// A number of resamples whose cost is bounded: 1000, or fewer, down to 200, where that many times
/// `work` (the steps that one resample takes) is more than 5e7.
std::size_t affordable_resamples(std::size_t work);

}  // namespace kshot::metrics
