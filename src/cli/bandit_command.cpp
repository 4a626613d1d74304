#include <fmt/format.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <set>
#include <utility>

#include "bandit/results.h"
#include "bandit/settings.h"
#include "cli/commands.h"
#include "io/log.h"
#include "io/output_file.h"
#include "kshot/error.h"

namespace kshot::cli {
namespace {

double mean(const std::vector<double>& values) {
  double sum = 0.0;
  for (const double v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

/// The agents of a configuration. Throws Error where two have one name.
std::vector<std::unique_ptr<bandit::Agent>> make_agents(const bandit::Settings& settings,
                                                        const std::string& device) {
  std::vector<std::unique_ptr<bandit::Agent>> agents;
  std::set<std::string> names;
  for (const bandit::Settings::AgentSettings& own : settings.agents) {
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

int run_bandit(const BanditArguments& a) {
  namespace fs = std::filesystem;
  if (a.reference != a.config.empty()) {
    throw Error("bandit: expected a configuration or --reference");
  }
  if (a.reference) {
    std::fputs(bandit::settings_reference().c_str(), stdout);
    return 0;
  }
  const bandit::Settings settings = bandit::Settings::load(a.config, a.set);
  io::OutputFile file(a.out, io::OutputKind::bandit, {a.config});
  io::OutputFile page(fs::path(a.out).replace_extension(".html"), io::OutputKind::page, {a.config});
  const auto environments = settings.environments();
  const auto agents = make_agents(settings, a.machine.device);
  const bandit::PlayOptions options{settings.trials, static_cast<std::uint64_t>(settings.steps),
                                    static_cast<std::uint64_t>(settings.seed),
                                    static_cast<std::uint64_t>(settings.last_steps),
                                    a.machine.threads};
  bandit::Results results{settings.trials, options.steps,    options.last_steps,
                          options.seed,    a.machine.device, {}};
  double seconds = 0.0;
  for (const auto& environment : environments) {
    // The scale of all percentages, whether or not the configuration lists the uniform agent.
    const auto uniform = bandit::make_uniform();
    const bandit::Result base = bandit::play(*environment, *uniform, options);
    for (const auto& agent : agents) {
      bandit::Result result = bandit::play(*environment, *agent, options);
      seconds += result.seconds;
      if (!a.quiet) {
        io::log_info(
            fmt::format("{}: {}, {:.1f} s", result.environment, result.agent, result.seconds));
      }
      results.entries.push_back({std::move(result), mean(base.cumulative), mean(base.simple)});
    }
  }
  std::fputs(results.table().c_str(), stdout);
  file.write(results.to_json());
  page.write(results.page());
  if (!a.quiet) {
    io::log_info(fmt::format("{:.1f} s; written to {} and {}", seconds, file.path().string(),
                             page.path().string()));
  }
  return 0;
}

}  // namespace kshot::cli
