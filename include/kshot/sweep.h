// Sweeps: many trainings of one configuration with different values of some keys, which are
// compared by their validation.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "kshot/config.h"

namespace kshot {

/// The values of one key of a configuration.
struct SweepAxis {
  std::string key;  ///< Table and key: "inner.learning_rate".
  /// The values of a list, as TOML. Empty for a range, which only a random search takes.
  std::vector<std::string> values;
  double low = 0.0,    ///< Range: smallest value.
      high = 0.0;      ///< Range: largest value.
  bool log = false;    ///< Range: values are uniform on a logarithmic scale.
  bool whole = false;  ///< Range: only whole numbers are drawn.
};

/// The keys that a sweep varies, and how it searches.
struct SweepSettings {
  std::vector<SweepAxis> axes;  ///< The keys that vary.
  int random = 0;  ///< Number of runs of a random search; 0: every combination of the lists.
  std::uint64_t seed = 1;  ///< Seed of the random search.
  /// Successive halving (Jamieson and Talwalkar 2016): all runs make `first_steps` meta-steps, the
  /// best 1 / `halving` of them make `halving` times as many, and so on up to train.steps. 0: every
  /// run makes all its steps.
  int halving = 0;
  int first_steps = 0;  ///< Meta-steps before the first comparison.

  /// Reads a TOML file with the keys random, seed, halving and first_steps, and a table [set]. The
  /// keys of [set] are those of the configuration, each with a list of values or a range
  /// { low, high, log }. Throws Error that names file and key.
  static SweepSettings load(const std::filesystem::path& file);
  /// Reads the same keys from a text. Messages name `origin` in place of a file.
  static SweepSettings parse(const std::string& text, const std::string& origin);
  /// Adds one axis, from "inner.steps=[1, 2, 5]" or "inner.learning_rate=1e-4:1e-2:log". Throws
  /// Error for a text of another form.
  void add_axis(const std::string& text);
  /// Returns the values of every run, in the order of `axes`: every combination of the lists, with
  /// the last axis fastest, or random draws. Throws Error for a range without a random search, and
  /// for more than 100,000 runs.
  std::vector<std::vector<std::string>> runs() const;
};

/// One run of a sweep.
struct SweepRow {
  int run = 0;                      ///< Number of the run, whose folder is run-NNN.
  std::vector<std::string> values;  ///< Values as TOML, in the order of SweepSettings::axes.
  /// "done", "stopped" (not among the best of a round), "failed", "interrupted", or "waiting" (for
  /// its turn, or for the other runs of a round).
  std::string status = "waiting";
  std::uint64_t step = 0,  ///< Meta-steps done.
      best_step = 0;       ///< Meta-steps at the best validation.
  std::string metric;      ///< ValidationReport::metric; empty before the first validation.
  double value = 0.0,      ///< The metric at the best validation, mean over episodes.
      half_width = 0.0,    ///< Half width of its 95 % confidence interval.
      seconds = 0.0;       ///< Training time, over all sessions of the run.
  std::string message;     ///< The error of a run that failed; else empty.
};

/// Options of run_sweep.
struct SweepOptions {
  std::filesystem::path out;  ///< Folder of the run folders and of sweep.csv.
  int jobs = 0;               ///< Number of runs side by side; 0: as many as there are cores.
  int threads = 1;            ///< Number of CPU threads of each run.
  /// Number of this shard, from 1. This call trains the runs whose number leaves the remainder
  /// shard - 1 when it is divided by `shards`.
  int shard = 1,
      /// Number of shards.
      shards = 1;
  std::string device = "auto";  ///< The device, as TrainerOptions::device.
  bool collect = false;         ///< True: train nothing, and read what the run folders hold.
  /// Called when a run ends, or ends a round of halving.
  std::function<void(const SweepRow&)> on_row = {};
  /// A function that is called before every meta-step of every run. Once it returns true, the sweep
  /// stops. Empty: never.
  std::function<bool()> stop = {};
};

/// Runs the sweep of a configuration file with `overrides` ("table.key=value"). It resumes a sweep
/// that was interrupted: runs continue from their checkpoints, and a run that failed is tried
/// again. After every change the table of this shard is written to sweep.csv, or to
/// sweep-I-of-N.csv. Test tasks are never used. Returns the rows, the best first and rows without a
/// validation last. Before any training it throws Error for a configuration that some run would
/// refuse, for a configuration without validation, and where a run folder holds a run with another
/// configuration.
std::vector<SweepRow> run_sweep(const std::filesystem::path& config,
                                const std::vector<std::string>& overrides,
                                const SweepSettings& settings, const SweepOptions& options);

/// Runs the sweep of a configuration in memory. Messages name `origin` in place of a file.
std::vector<SweepRow> run_sweep(const Config& config, const std::string& origin,
                                const SweepSettings& settings, const SweepOptions& options);

/// Returns the rows as a table for people to read.
std::string sweep_table(const SweepSettings& settings, const std::vector<SweepRow>& rows);
/// Returns the rows as CSV.
std::string sweep_csv(const SweepSettings& settings, const std::vector<SweepRow>& rows);

}  // namespace kshot
