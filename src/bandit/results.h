// Results of `kshot bandit` as a table, as JSON and as a plot.
#pragma once

#include <string>
#include <vector>

#include "kshot/bandit.h"

namespace kshot::bandit {

/// All agents in all environments.
struct Results {
  int trials = 0;
  std::uint64_t steps = 0, last_steps = 0, seed = 0;
  std::string device;
  struct Entry {
    Result result;
    /// Mean over trials of the uniform agent's regrets in the same environment: the 100 %.
    double uniform_cumulative = 0.0, uniform_simple = 0.0;
  };
  std::vector<Entry> entries;

  /// Regrets as percentages of the uniform agent's mean: mean and standard deviation over trials.
  std::string table() const;
  std::string to_json() const;
  /// Cumulative regret against rounds, one panel per environment, as an HTML page.
  std::string page() const;
};

}  // namespace kshot::bandit
