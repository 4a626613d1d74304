// Bootstrap intervals over episodes. Whole episodes are resampled instead of rows, because the rows
// of one episode share its support set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace kshot::metrics {

struct BootstrapOptions {
  std::size_t resamples = 2000;
  double level = 0.95;     ///< coverage of the interval, in (0, 1)
  std::uint64_t seed = 0;  ///< the same seed draws the same episodes for any values
};

/// A statistic and its percentile interval (Efron 1979): the (1 - level) / 2 and (1 + level) / 2
/// quantiles, computed as in central_band, of the statistic over episodes that are drawn with
/// replacement. The ends are NaN where there are fewer than two episodes, or where the statistic of
/// a resample is not finite.
struct Interval {
  double value = 0.0;
  double low = 0.0;
  double high = 0.0;
};

/// Interval of any statistic of n episodes, such as ECE or AURC. The statistic gets episode numbers
/// in [0, n), some of them more than once.
Interval bootstrap(std::size_t episodes,
                   const std::function<double(std::span<const std::size_t> episodes)>& statistic,
                   const BootstrapOptions& options = {});
/// Interval of the mean over episodes; values [episodes].
Interval bootstrap_mean(std::span<const double> values, const BootstrapOptions& options = {});
/// Interval of the mean of first - second, paired by episode, for two methods on the same episodes.
/// Throws Error for different lengths.
Interval bootstrap_difference(std::span<const double> first, std::span<const double> second,
                              const BootstrapOptions& options = {});

/// Intervals of several statistics on the same resamples, which are those of `bootstrap`.
/// `statistics` writes `count` values. Its argument weights [episodes] says how many times each
/// episode counts. A statistic that is not finite in some resample has NaN ends.
std::vector<Interval> bootstrap_all(std::size_t episodes, std::size_t count,
                                    const std::function<void(std::span<const std::uint32_t> weights,
                                                             std::span<double> values)>& statistics,
                                    const BootstrapOptions& options = {});

/// Returns a number of resamples with bounded cost. `work` is the number of steps per resample. The
/// result is 1000, or less (down to 200) where 1000 resamples would take more than 5e7 steps.
std::size_t affordable_resamples(std::size_t work);

}  // namespace kshot::metrics
