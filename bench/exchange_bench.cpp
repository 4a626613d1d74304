// Measures the cost of one exchange between ranks in a training step.
//   mpirun -n 2 build/bench/exchange_bench
// For vectors of 14 KB (sinusoids) to 1 MB (conv4-64) it prints the median time of gathering the
// vectors of all ranks, and the time of the whole sum in pieces (all-to-all, then all-gather).
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "backend/tree_sum.h"
#include "kshot/communicator.h"
#include "kshot/error.h"

namespace kshot {
namespace {

using Clock = std::chrono::steady_clock;

/// Returns the median time of `act` in seconds.
template <class Act>
double median(int repeats, const Act& act) {
  std::vector<double> seconds;
  for (int i = 0; i < repeats + 3; ++i) {
    const Clock::time_point start = Clock::now();
    act();
    if (i >= 3) {
      seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    }
  }
  std::ranges::nth_element(seconds, seconds.begin() + seconds.size() / 2);
  return seconds[seconds.size() / 2];
}

int run() {
  const std::shared_ptr<Communicator> ranks = launched_ranks();
  if (!ranks) throw Error("exchange_bench: expected several ranks (mpirun -n 2 ...)");
  const bool is_rank_zero = ranks->rank() == 0;
  if (is_rank_zero)
    fmt::print("{}\n{:>12} {:>16} {:>16}\n", ranks->describe(), "bytes", "all_gather us",
               "whole sum us");
  const double nothing = median(400, [&] { ranks->barrier("nothing"); });
  if (is_rank_zero) fmt::print("{:>12} {:>16.1f}\n", 0, nothing * 1e6);
  for (const std::size_t bytes : {std::size_t{14} << 10, std::size_t{64} << 10,
                                  std::size_t{256} << 10, std::size_t{1} << 20}) {
    const std::size_t width = bytes / sizeof(double);
    const std::vector<double> mine(width, 1.0);
    const double gathered =
        median(200, [&] { ranks->all_gather(std::span<const double>(mine), "a vector"); });
    // Each rank has one run of 16 tasks.
    const backend::TaskShares shares(16 * static_cast<std::size_t>(ranks->size()), 16,
                                     ranks->rank(), ranks->size());
    const std::vector<float> node(width, 1.0f);
    const double whole = median(200, [&] {
      backend::TreeSum<float> sum;
      sum.push(backend::run_level, static_cast<std::uint64_t>(ranks->rank()), node);
      sum.exchange(*ranks, shares, width);
    });
    if (is_rank_zero)
      fmt::print("{:>12} {:>16.1f} {:>16.1f}\n", bytes, gathered * 1e6, whole * 1e6);
  }
  return 0;
}

}  // namespace
}  // namespace kshot

int main() {
  try {
    return kshot::run();
  } catch (const kshot::Error& error) {
    std::fprintf(stderr, "exchange_bench: %s\n", error.what());
    return 2;
  }
}
