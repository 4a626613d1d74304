#include "bandit/experiment.h"

#include <fmt/format.h>

#include <memory>
#include <set>
#include <utility>

#include "kshot/error.h"

namespace kshot::bandit {
namespace {

double mean(const std::vector<double>& values) {
  double sum = 0.0;
  for (const double v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

/// The agents of a configuration. Throws Error where two have one name.
std::vector<std::unique_ptr<Agent>> make_agents(const Settings& settings,
                                                const std::string& device) {
  std::vector<std::unique_ptr<Agent>> agents;
  std::set<std::string> names;
  for (const Settings::AgentSettings& own : settings.agents) {
    agents.push_back(settings.agent(own, device));
    const std::string name = agents.back()->name();
    if (!names.insert(name).second) {
      throw Error(
          fmt::format("agent.name: two agents are called \"{}\"; expected different names", name));
    }
  }
  return agents;
}

}  // namespace

Results run_experiment(const Settings& settings, const ExperimentOptions& options) {
  const auto environments = settings.environments();
  const auto agents = make_agents(settings, options.device);
  const PlayOptions play_options{settings.trials,
                                 static_cast<std::uint64_t>(settings.steps),
                                 static_cast<std::uint64_t>(settings.seed),
                                 static_cast<std::uint64_t>(settings.last_steps),
                                 options.threads,
                                 options.stop};
  Results results{settings.trials,   play_options.steps, play_options.last_steps,
                  play_options.seed, options.device,     {}};
  for (const auto& environment : environments) {
    // The scale of all percentages, whether or not the configuration lists the uniform agent.
    const auto uniform = make_uniform();
    const Result base = play(*environment, *uniform, play_options);
    for (const auto& agent : agents) {
      Result result = play(*environment, *agent, play_options);
      if (options.on_result) options.on_result(result);
      results.entries.push_back({std::move(result), mean(base.cumulative), mean(base.simple)});
    }
  }
  return results;
}

}  // namespace kshot::bandit
