// `train`: meta-trains a configuration into a run folder, or resumes a run.
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <optional>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/ranks.h"
#include "cli/signals.h"
#include "engine/run_folder.h"
#include "kshot/error.h"
#include "kshot/trainer.h"
#include "kshot/version.h"

namespace kshot::cli {
namespace {

namespace fs = std::filesystem;

/// Returns the command to run after the training.
std::string next_step(const TrainResult& result, const std::string& folder) {
  if (result.has_test) return fmt::format("next: kshot evaluate {}", folder);
  return fmt::format("next: kshot evaluate {} --split {} (there are no test episodes)", folder,
                     result.has_validation ? "validation" : "train");
}

std::string value_text(const ValidationReport& v) {
  return v.metric == "accuracy"
             ? fmt::format("accuracy {:.2f} ± {:.2f} %", 100.0 * v.value, 100.0 * v.half_width)
             : fmt::format("{} {:.4g} ± {:.2g}", v.metric, v.value, v.half_width);
}

const char* reason_text(StopReason reason) {
  switch (reason) {
    case StopReason::steps:
      return "all steps done";
    case StopReason::patience:
      return "no improvement within train.patience validations";
    case StopReason::time_limit:
      return "train.time_limit reached";
    case StopReason::asked:
      return "stopped by a signal";
  }
  return "";
}

}  // namespace

int run_train(const TrainArguments& arguments) {
  const std::shared_ptr<Communicator> ranks = command_ranks();
  const bool quiet = arguments.quiet || !is_rank_zero();
  const bool resume = !arguments.resume.empty();
  if (arguments.config.empty() && !resume) {
    throw Error("train: expected a configuration, or --resume RUN");
  }
  if (resume && !arguments.out.empty()) {
    throw Error("train: --resume goes on in the run's own folder; expected no --out");
  }
  std::optional<Config> given;
  if (!arguments.config.empty()) given = Config::load(arguments.config, arguments.set);
  const Config config = resume ? resumed_config(arguments.resume, given ? &*given : nullptr,
                                                given ? std::vector<std::string>{} : arguments.set)
                               : *given;
  TrainerOptions options;
  options.resume = resume;
  options.allow_changed_data = arguments.allow_changed_data;
  std::optional<DefaultRunFolder> made;
  if (resume || !arguments.out.empty()) {
    options.run_folder = resume ? arguments.resume : arguments.out;
  } else {
    if (is_rank_zero()) made.emplace(fs::path(arguments.config).stem());
    options.run_folder = rank_zero_text(made ? made->path().string() : "");
  }
  options.device = arguments.machine.device;
  options.threads = arguments.machine.threads;
  options.progress = !quiet;
  options.ranks = ranks;
  options.command = arguments.command;
  options.stop = [] { return caught_signal() != 0; };
  const std::string folder = options.run_folder.string();
  const SignalScope signals;
  Trainer trainer(config, options);
  if (!quiet) {
    log_info(fmt::format("kshot {}: {} parameters of the network, device {}{}", version(),
                         trainer.network().size(), trainer.device(),
                         ranks ? ", " + ranks->describe() : ""));
    log_info(fmt::format("run folder {}", folder));
  }
  const TrainResult result = trainer.run();
  if (!quiet) {
    log_info(fmt::format(
        "{} after {} steps, {:.1f} s of training, {} tasks{}", reason_text(result.reason),
        result.step, result.seconds, result.tasks,
        result.diverged > 0 ? fmt::format(", {} of them diverged", result.diverged) : ""));
    if (result.validated) {
      log_info(
          fmt::format("best validation: {} at step {}", value_text(result.best), result.best.step));
    }
  }
  if (result.reason == StopReason::asked) {
    if (!quiet) log_info(fmt::format("go on with: kshot train --resume {}", folder));
    // Another rank may have got the signal. Then this one does not know which signal it was.
    return 128 + (caught_signal() != 0 ? caught_signal() : SIGTERM);
  }
  if (!quiet) log_info(next_step(result, folder));
  return 0;
}

}  // namespace kshot::cli
