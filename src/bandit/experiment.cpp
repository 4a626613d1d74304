#include "bandit/experiment.h"

#include <fmt/format.h>

#include <memory>
#include <set>
#include <utility>

#include "backend/backend.h"
#include "engine/calibration.h"
#include "engine/checkpoint.h"
#include "engine/rank_checks.h"
#include "io/crc32c.h"
#include "kshot/error.h"
#include "kshot/version.h"

namespace kshot::bandit {
namespace {

double mean(const std::vector<double>& values) {
  double sum = 0.0;
  for (const double v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

/// Makes the agents of a configuration. Throws Error where two have the same name.
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

std::string text_checksum(const std::string& text) {
  return fmt::format("crc32c:{:08x}", io::crc32c(text));
}

/// Returns a checksum of the contexts and rewards of the first trial's first rounds. The checksums
/// of ranks that read different tables differ.
std::string checksum(const Environment& environment, const Settings& settings) {
  constexpr std::uint64_t rounds = 1000;
  std::vector<float> context(static_cast<std::size_t>(environment.context_size()));
  std::vector<double> rewards(static_cast<std::size_t>(environment.arms())), means(rewards.size());
  std::string bytes;
  for (std::uint64_t step = 0; step < rounds; ++step) {
    environment.round(static_cast<std::uint64_t>(settings.seed), 0, step,
                      {context, rewards, means});
    bytes.append(reinterpret_cast<const char*>(context.data()), context.size() * sizeof(float));
    bytes.append(reinterpret_cast<const char*>(rewards.data()), rewards.size() * sizeof(double));
  }
  return text_checksum(bytes);
}

/// Throws Error where the ranks do not play the same environments and agents.
void check_ranks(const Settings& settings, const std::vector<std::unique_ptr<Environment>>& all,
                 const std::string& device, Communicator& ranks) {
  std::vector<RankFact> facts = {
      {"the version of kshot", std::string(version())},
      {"the checksum of the configuration", text_checksum(settings.text)}};
  for (const auto& environment : all) {
    facts.push_back(
        {fmt::format("the checksum of {}", environment->name()), checksum(*environment, settings)});
  }
  bool computes = false;
  for (const Settings::AgentSettings& agent : settings.agents) {
    if (agent.type != "run") continue;
    computes = true;
    facts.push_back(
        {fmt::format("the checksum of {}", agent.run), file_checksum(find_checkpoint(agent.run))});
  }
  if (computes) {
    const auto backend = backend::make_backend(device, 1);
    for (RankFact& fact : backend_facts(*backend)) facts.push_back(std::move(fact));
  }
  check_same(&ranks, facts);
}

Results run(const Settings& settings, const ExperimentOptions& options) {
  const std::string device = rank_device(options.device, options.ranks.get());
  const auto environments = settings.environments();
  const auto agents = make_agents(settings, device);
  if (options.ranks) check_ranks(settings, environments, device, *options.ranks);
  const PlayOptions play_options{settings.trials,
                                 static_cast<std::uint64_t>(settings.steps),
                                 static_cast<std::uint64_t>(settings.seed),
                                 static_cast<std::uint64_t>(settings.last_steps),
                                 options.threads,
                                 options.stop,
                                 options.ranks};
  Results results{settings.trials,   play_options.steps, play_options.last_steps,
                  play_options.seed, options.device,     {}};
  for (const auto& environment : environments) {
    // The uniform agent gives the scale of all percentages, also where the configuration does not
    // list this agent.
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

}  // namespace

Results run_experiment(const Settings& settings, const ExperimentOptions& options) {
  return run_and_report_failure(options.ranks.get(), [&] { return run(settings, options); });
}

}  // namespace kshot::bandit
