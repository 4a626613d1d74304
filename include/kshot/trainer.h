// Meta-training: from a configuration and a source of episodes to a checkpoint.
//
//   kshot::Config config = kshot::Config::load("sinusoid.toml");
//   kshot::Trainer trainer(config, {.run_folder = "runs/first"});
//   kshot::TrainResult result = trainer.run();
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kshot/communicator.h"
#include "kshot/config.h"
#include "kshot/episode.h"

namespace kshot {

/// The progress of a training since the last report. Losses are means over the steps since then.
struct TrainReport {
  std::uint64_t step = 0;  ///< Meta-steps done.
  double loss = 0.0;       ///< The meta-objective.
  /// The part of the meta-objective that is a mean over tasks, without the terms outside this mean.
  double task_loss = 0.0;
  double learning_rate = 0.0;     ///< Learning rate of the last step.
  double gradient_norm = 0.0;     ///< Norm of the last step's meta-gradient, before clipping.
  std::uint64_t tasks = 0,        ///< Number of tasks since the last report.
      diverged = 0;               ///< Number of these tasks that diverged.
  std::uint64_t guarded = 0;      ///< Number of steps so far in which optimizer.nan_guard acted.
  double seconds = 0.0;           ///< Training time so far, over all sessions of the run.
  double tasks_per_second = 0.0;  ///< Speed since the last report.
  /// Statistics of the last step. "gradient_snr" is the squared norm of the mean task gradient
  /// divided by the variance of that mean; the others are the algorithm's own (docs/estimators.md).
  std::vector<std::pair<std::string, double>> metrics;
};

/// The result of a validation. The validation episodes are the same every time.
struct ValidationReport {
  std::uint64_t step = 0;      ///< Meta-steps done.
  std::string metric;          ///< Metric of early stopping: "accuracy", "mse" or "nll".
  double value = 0.0;          ///< The metric, mean over episodes.
  double half_width = 0.0;     ///< Half width of its 95 % confidence interval.
  double nll = 0.0;            ///< Nats per row; NaN where the loss is no likelihood.
  bool best = false;           ///< True if this validation is better than all before.
  std::uint64_t diverged = 0;  ///< Number of episodes that diverged.
  double seconds = 0.0;        ///< Training time so far, over all sessions of the run.
};
/// Options of a Trainer.
struct TrainerOptions {
  /// Folder for configuration, metrics and checkpoints. The trainer creates the folder. It must
  /// hold no run unless `resume` is set, and no other training may use it. A run that fails in its
  /// first step leaves nothing there. Empty: nothing is written, and the parameters stay with the
  /// Trainer.
  std::filesystem::path run_folder = {};
  /// Continue from run_folder's last checkpoint, with the bits of a training that never stopped.
  /// Throws Error where the data file is another one than before.
  bool resume = false;
  bool allow_changed_data = false;  ///< Resume although the data file is another one.
  std::string device = "auto";      ///< "auto" (the CPU), "cpu", "reference", "cuda" or "cuda:N".
  int threads = 0;                  ///< Number of CPU threads; 0: all cores.
  bool progress = false;            ///< Write a progress line and messages to standard error.
  std::string command = {};         ///< Command line that is recorded in run.json.
  /// Called every train.log_every steps. Empty: no call.
  std::function<void(const TrainReport&)> on_report = {};
  /// Called after every validation. Empty: no call.
  std::function<void(const ValidationReport&)> on_validation = {};
  /// A function that is called before every step. Once it returns true, the trainer writes a
  /// checkpoint and returns. Empty: never.
  std::function<bool()> stop = {};
  /// The ranks that train together. Null: this process alone. The result does not depend on the
  /// number of ranks. Every rank calls the same functions with the same configuration. Rank 0
  /// writes the run folder, which all ranks must see, and the messages. An error of one rank is an
  /// error on all ranks.
  std::shared_ptr<Communicator> ranks = {};
};
/// The reason why a training ended.
enum class StopReason {
  steps,       ///< All train.steps are done.
  patience,    ///< train.patience validations brought no better one.
  time_limit,  ///< train.time_limit is over.
  asked        ///< TrainerOptions::stop returned true.
};
/// The result of a training.
struct TrainResult {
  std::uint64_t step = 0;                 ///< Meta-steps done, over all sessions of the run.
  StopReason reason = StopReason::steps;  ///< Why the training ended.
  double seconds = 0.0;                   ///< Training time, over all sessions of the run.
  double loss = 0.0;            ///< Meta-objective of this session's last step; NaN without a step.
  bool validated = false;       ///< True if there was a validation.
  ValidationReport best;        ///< The best validation, if `validated` is true.
  std::uint64_t tasks = 0,      ///< Number of tasks, over all sessions of the run.
      diverged = 0;             ///< Number of these tasks that diverged.
  bool has_validation = false,  ///< True if the source has validation episodes.
      has_test = false;         ///< True if the source has test episodes.
};
/// Meta-trains a configuration. Not thread-safe.
class Trainer {
 public:
  /// Trains on episodes from the configuration's [data].
  explicit Trainer(const Config& config, TrainerOptions options = {});
  /// Trains on episodes from the caller's own source; [data] is not used.
  Trainer(const Config& config, std::shared_ptr<const EpisodeSource> source,
          TrainerOptions options = {});
  ~Trainer();
  Trainer(Trainer&&) noexcept;
  Trainer& operator=(Trainer&&) noexcept;

  /// Trains until train.steps, until a limit, or until `stop` returns true. After that it may be
  /// called again to continue. Throws Error where more than the share train.max_diverged of a
  /// step's tasks diverges.
  TrainResult run();

  const Config& config() const;    ///< The configuration with all defaults.
  const Network& network() const;  ///< The network that the parameters belong to.
  /// The device that computes, in words: "cpu (...)".
  std::string device() const;
  /// Names of the groups of meta-learned parameters ("theta"; "mu", "log_sigma"; ...).
  std::vector<std::string> groups() const;
  /// The values of one group, in the network's order. Throws Error for another name.
  std::vector<double> parameters(const std::string& group) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Returns the configuration with which a run is resumed: the run's configuration, or `*config`
/// where `config` is not null, with `overrides` ("train.steps=20000"). Only [train], [optimizer],
/// [evaluate] and data.path may differ from the run. Throws Error that names the first other key
/// that differs.
Config resumed_config(const std::filesystem::path& run_folder, const Config* config,
                      const std::vector<std::string>& overrides);

}  // namespace kshot
