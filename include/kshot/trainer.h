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

/// What training did since the last report. Losses are means over the steps since then.
struct TrainReport {
  std::uint64_t step = 0;      ///< steps done
  double loss = 0.0;           ///< the meta-objective
  double task_loss = 0.0;      ///< its mean over tasks, without the terms outside that mean
  double learning_rate = 0.0;  ///< of the last step
  double gradient_norm = 0.0;  ///< of the last step, before clipping
  std::uint64_t tasks = 0, diverged = 0;  ///< since the last report: all, and those that diverged
  std::uint64_t guarded = 0;              ///< steps so far that optimizer.nan_guard took over
  double seconds = 0.0;                   ///< training time so far, over all sessions of the run
  double tasks_per_second = 0.0;          ///< since the last report
  /// Figures of the last step. "gradient_snr" is the squared norm of the mean task gradient divided
  /// by the variance of that mean; the others are the algorithm's own (docs/estimators.md).
  std::vector<std::pair<std::string, double>> metrics;
};

/// Result of the validation episodes, which are the same ones every time.
struct ValidationReport {
  std::uint64_t step = 0;      ///< meta-steps done
  std::string metric;          ///< "accuracy", "mse" or "nll": what early stopping looks at
  double value = 0.0;          ///< its mean over episodes
  double half_width = 0.0;     ///< of the 95 % confidence interval
  double nll = 0.0;            ///< nats per row; NaN where the loss is no likelihood
  bool best = false;           ///< better than all before
  std::uint64_t diverged = 0;  ///< episodes that diverged
  double seconds = 0.0;        ///< that this validation took
};
/// Options of a Trainer.
struct TrainerOptions {
  /// Folder for configuration, metrics and checkpoints. It is made. It must hold no run unless
  /// `resume` is set, and no other training. A run that fails in its first step leaves nothing
  /// there. Empty: nothing is written, and the parameters stay with the Trainer.
  std::filesystem::path run_folder = {};
  /// Go on from run_folder's last checkpoint, bit for bit as if never stopped. Throws Error where
  /// the data file is another one than before.
  bool resume = false;
  bool allow_changed_data = false;  ///< resume although the data file is another one
  std::string device = "auto";      ///< auto | cpu | reference | cuda
  int threads = 0;                  ///< 0: all cores
  bool progress = false;            ///< a progress line and messages on standard error
  std::string command = {};         ///< recorded in run.json
  std::function<void(const TrainReport&)> on_report = {};           ///< every train.log_every steps
  std::function<void(const ValidationReport&)> on_validation = {};  ///< after every validation
  /// Asked after every step; true: write a checkpoint and return.
  std::function<bool()> stop = {};
  /// The ranks that train together; null: this process alone. The result does not depend on them.
  /// Every rank calls the same functions with the same configuration. Rank 0 writes the run folder,
  /// which all ranks must see, and the messages. An error of one rank is an error on all.
  std::shared_ptr<Communicator> ranks = {};
};
/// Why a training ended: train.steps, train.patience, train.time_limit, or TrainerOptions::stop.
enum class StopReason { steps, patience, time_limit, asked };
/// What a training came to.
struct TrainResult {
  std::uint64_t step = 0;  ///< steps done, over all sessions of the run
  StopReason reason = StopReason::steps;
  double seconds = 0.0;    ///< training time, over all sessions of the run
  double loss = 0.0;       ///< of the last step of this session; NaN where it made none
  bool validated = false;  ///< whether there was a validation
  ValidationReport best;   ///< the best validation, where there was one
  std::uint64_t tasks = 0, diverged = 0;  ///< over all sessions of the run
  /// Whether the source has episodes of these splits to evaluate on.
  bool has_validation = false, has_test = false;
};
/// Meta-trains a configuration. Not thread-safe.
class Trainer {
 public:
  /// Episodes from the configuration's [data].
  explicit Trainer(const Config& config, TrainerOptions options = {});
  /// Episodes from a source of one's own; [data] is not looked at.
  Trainer(const Config& config, std::shared_ptr<const EpisodeSource> source,
          TrainerOptions options = {});
  ~Trainer();
  Trainer(Trainer&&) noexcept;
  Trainer& operator=(Trainer&&) noexcept;

  /// Trains until train.steps, a limit or `stop`. Throws Error where more than train.max_diverged
  /// of a step's tasks diverge. May be called again after `stop` to go on.
  TrainResult run();

  const Config& config() const;    ///< with all defaults
  const Network& network() const;  ///< which the parameters belong to
  /// What computes, in words: "cpu (...)".
  std::string device() const;
  /// Names of the groups of meta-learned parameters ("theta"; "mu", "log_sigma"; ...), and the
  /// values of one of them. Throws Error for another name.
  std::vector<std::string> groups() const;
  std::vector<double> parameters(const std::string& group) const;  ///< in the network's order

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The configuration with which a run is resumed: that of the run with `overrides`
/// ("train.steps=20000"). Where `config` is not null, it is used instead of the run's. Only
/// [train], [optimizer], [evaluate] and data.path may differ from the run. Throws Error that names
/// the first other key that differs.
Config resumed_config(const std::filesystem::path& run_folder, const Config* config,
                      const std::vector<std::string>& overrides);

}  // namespace kshot
