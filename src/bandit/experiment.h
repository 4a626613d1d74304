// The experiment of `kshot bandit`: all agents of a configuration play in all its environments.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "bandit/results.h"
#include "bandit/settings.h"

namespace kshot::bandit {

/// Options of run_experiment.
struct ExperimentOptions {
  std::string device = "auto";
  int threads = 0;  ///< 0: all cores
  /// Called after each agent has played in an environment.
  std::function<void(const Result&)> on_result = {};
  std::function<bool()> stop = {};  ///< as PlayOptions::stop
  /// The processes that play together, as in PlayOptions::ranks. All processes throw Error where
  /// they differ in the configuration, the tables, the runs or the kind of device.
  std::shared_ptr<Communicator> ranks = {};
};

/// Plays every agent in every environment. Throws Error where two agents have the same name, and
/// where a run does not fit an environment.
Results run_experiment(const Settings& settings, const ExperimentOptions& options);

}  // namespace kshot::bandit
