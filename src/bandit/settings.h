// The settings of `kshot bandit`: environments, agents and the number of rounds. They are read from
// TOML. settings.cpp has the list of the keys, and docs/bandits.md is checked against that list.
//
// These keys are not part of kshot::Config: a Config describes one training run, but the file of
// `kshot bandit` holds a list of agents, each with its own keys.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "kshot/bandit.h"

namespace kshot::bandit {

/// The keys of a file; docs/bandits.md describes them.
struct Settings {
  std::string environment = "wheel";  ///< wheel | mushroom | shuttle | adult
  int trials = 50;
  int steps = 2000;
  int last_steps = 500;
  int seed = 1;
  std::vector<double> delta = {0.5, 0.7, 0.9, 0.95, 0.99};
  double noise_std = 0.01;
  std::string folder;  ///< folder of the tables' files

  /// The keys of an [[agent]].
  struct AgentSettings {
    std::string type;
    std::string name;
    int initial_pulls = -1;  ///< -1: the default of the type
    double prior_shape = 6.0, prior_rate = 6.0, lambda = 0.25;
    double epsilon = 0.1;
    std::vector<int> hidden = {50};
    std::string run;
    bool greedy = false;
    int rounds = 20;
    double growth = 0.05;
    int rows = 1000;
    std::vector<std::string> set;  ///< changes to the run's configuration
  };
  std::vector<AgentSettings> agents;
  std::string text;  ///< the configuration with the overrides in it, as TOML

  /// Reads a file. `overrides` are such as "steps=80000" and "delta=[0.9]". Throws Error that names
  /// file, line and key.
  static Settings load(const std::filesystem::path& file,
                       const std::vector<std::string>& overrides = {});
  static Settings parse(const std::string& text, const std::string& origin,
                        const std::vector<std::string>& overrides = {});
  /// Makes the environments: one wheel per value of delta, or the table.
  std::vector<std::unique_ptr<Environment>> environments() const;
  std::unique_ptr<Agent> agent(const AgentSettings& settings, const std::string& device) const;
};

/// Returns all keys as a Markdown table.
std::string settings_reference();

}  // namespace kshot::bandit
