// Sweeps: many trainings of one configuration with other values of some keys,
// judged by their validation tasks.
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
  std::string key;                  ///< "inner.learning_rate"
  std::vector<std::string> values;  ///< TOML texts, for a list
  // For a range, which only a random search takes: `values` is empty.
  double low = 0.0, high = 0.0;
  bool log = false;    ///< drawn uniformly on a logarithmic scale
  bool whole = false;  ///< whole numbers alone
};

struct SweepSettings {
  std::vector<SweepAxis> axes;
  int random = 0;          ///< runs that a random search draws; 0: every combination of the lists
  std::uint64_t seed = 1;  ///< of the random search
  /// Successive halving (Jamieson and Talwalkar 2016): all runs make
  /// `first_steps` meta-steps, the best 1 / `halving` of them make `halving`
  /// times as many, and so on up to train.steps. 0: every run makes all its
  /// steps.
  int halving = 0;
  int first_steps = 0;

  /// From TOML: the keys random, seed, halving and first_steps, and a table
  /// [set] whose keys are those of the configuration, each with a list of
  /// values or { low, high, log }. Throws Error naming file and key.
  static SweepSettings load(const std::filesystem::path& file);
  static SweepSettings parse(const std::string& text, const std::string& origin);
  /// One axis from "inner.steps=[1, 2, 5]" or
  /// "inner.learning_rate=1e-4:1e-2:log". Throws Error.
  void add_axis(const std::string& text);
  /// Values of every run, in the order of `axes`: lists in nested loops, the
  /// last axis fastest; or random draws. Throws Error for a range in a grid,
  /// and for more than 100,000 runs.
  std::vector<std::vector<std::string>> runs() const;
};

/// One run of a sweep.
struct SweepRow {
  int run = 0;                      ///< its folder is run-NNN
  std::vector<std::string> values;  ///< in the order of SweepSettings::axes
  /// "done", "stopped" (not among the best of a round), "failed", "interrupted", or "waiting" (for
  /// its turn, or for the other runs of a round).
  std::string status = "waiting";
  std::uint64_t step = 0, best_step = 0;
  std::string metric;  ///< what validation looks at; empty before the first validation
  double value = 0.0, half_width = 0.0, seconds = 0.0;
  std::string message;  ///< why it failed
};

struct SweepOptions {
  std::filesystem::path out;  ///< folder of the run folders and of sweep.csv
  int jobs = 0;               ///< runs side by side; 0: as many as there are cores
  int threads = 1;            ///< of each run
  int shard = 1,
      shards = 1;  ///< runs whose number leaves shard - 1 when divided by shards
  std::string device = "auto";
  bool collect = false;  ///< train nothing: gather what the run folders hold
  std::function<void(const SweepRow&)> on_row = {};  ///< a run is done with, or done with a round
  std::function<bool()> stop = {};                   ///< asked before every meta-step of every run
};

/// Runs the sweep of a configuration file with `overrides` ("table.key=value"),
/// or goes on with one that was interrupted: runs continue from their
/// checkpoints, a run that failed is tried again. After every change the table
/// of this shard is written to sweep.csv, or sweep-I-of-N.csv. Test tasks are
/// never looked at. Returns the rows, the best first, then those without a
/// validation. Throws Error, before any training, for a configuration that some
/// run would refuse, without validation, and where a run folder holds a run
/// with another configuration.
std::vector<SweepRow> run_sweep(const std::filesystem::path& config,
                                const std::vector<std::string>& overrides,
                                const SweepSettings& settings, const SweepOptions& options);

/// Runs the sweep of a configuration in memory, as above. In messages it is called `origin`, where
/// the name of a file would stand.
std::vector<SweepRow> run_sweep(const Config& config, const std::string& origin,
                                const SweepSettings& settings, const SweepOptions& options);

/// The rows as a table for people, and as CSV.
std::string sweep_table(const SweepSettings& settings, const std::vector<SweepRow>& rows);
std::string sweep_csv(const SweepSettings& settings, const std::vector<SweepRow>& rows);

}  // namespace kshot
