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
    /// The uniform agent's regrets in the same environment, mean over trials. They are the 100 %.
    double uniform_cumulative = 0.0, uniform_simple = 0.0;
  };
  std::vector<Entry> entries;

  /// Returns a table of the regrets in percent of the uniform agent's mean, with mean and standard
  /// deviation over trials.
  std::string table() const;
  std::string to_json() const;
  /// Returns an HTML page with the cumulative regret against rounds, one chart per environment.
  std::string page() const;
};

}  // namespace kshot::bandit
