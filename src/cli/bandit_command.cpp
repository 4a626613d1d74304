// `bandit`: plays agents in bandit environments and writes their regret.
#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "bandit/experiment.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/ranks.h"
#include "io/output_file.h"
#include "kshot/error.h"

namespace kshot::cli {

int run_bandit(const BanditArguments& a) {
  namespace fs = std::filesystem;
  if (a.reference != a.config.empty()) {
    throw Error("bandit: expected a configuration or --reference");
  }
  if (a.reference) {
    std::fputs(bandit::settings_reference().c_str(), stdout);
    return 0;
  }
  const std::shared_ptr<Communicator> ranks = command_ranks();
  const bandit::Settings settings = bandit::Settings::load(a.config, a.set);
  std::optional<io::OutputFile> file, page;
  if (is_rank_zero()) {
    const std::vector<fs::path> inputs = {a.config};
    file.emplace(a.out, io::OutputKind::bandit, inputs);
    page.emplace(fs::path(a.out).replace_extension(".html"), io::OutputKind::page, inputs);
  }
  double seconds = 0.0;
  bandit::ExperimentOptions options;
  options.device = a.machine.device;
  options.threads = a.machine.threads;
  options.ranks = ranks;
  options.on_result = [&](const bandit::Result& result) {
    seconds += result.seconds;
    if (a.quiet || !is_rank_zero()) return;
    log_info(fmt::format("{}: {}, {:.1f} s", result.environment, result.agent, result.seconds));
  };
  const bandit::Results results = bandit::run_experiment(settings, options);
  if (!is_rank_zero()) return 0;
  std::fputs(results.table().c_str(), stdout);
  file->write(results.to_json());
  page->write(results.page());
  if (!a.quiet) {
    log_info(fmt::format("{:.1f} s; written to {} and {}", seconds, file->path().string(),
                         page->path().string()));
  }
  return 0;
}

}  // namespace kshot::cli
