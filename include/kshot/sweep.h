// Sweeps: many trainings of one configuration with different values of some keys, compared by their
// validation.
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
  bool whole = false;  ///< only whole numbers are drawn
};

/// What a sweep varies, and how it searches.
struct SweepSettings {
  std::vector<SweepAxis> axes;  ///< the keys that vary
  int random = 0;          ///< number of runs of a random search; 0: every combination of the lists
  std::uint64_t seed = 1;  ///< of the random search
  /// Successive halving (Jamieson and Talwalkar 2016): all runs make `first_steps` meta-steps, the
  /// best 1 / `halving` of them make `halving` times as many, and so on up to train.steps. 0: every
  /// run makes all its steps.
  int halving = 0;
  int first_steps = 0;  ///< meta-steps before the first comparison

  /// Reads a TOML file with the keys random, seed, halving and first_steps, and a table [set]. The
  /// keys of [set] are those of the configuration, each with a list of values or a range { low,
  /// high, log }. Throws Error naming file and key.
  static SweepSettings load(const std::filesystem::path& file);
  /// Reads the same from a text. Messages call it `origin`.
  static SweepSettings parse(const std::string& text, const std::string& origin);
  /// Adds one axis, from "inner.steps=[1, 2, 5]" or "inner.learning_rate=1e-4:1e-2:log". Throws
  /// Error.
  void add_axis(const std::string& text);
  /// The values of every run, in the order of `axes`: every combination of the lists, with the last
  /// axis fastest, or random draws. Throws Error for a range where every combination is asked for,
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

/// Options of run_sweep.
struct SweepOptions {
  std::filesystem::path out;  ///< folder of the run folders and of sweep.csv
  int jobs = 0;               ///< runs side by side; 0: as many as there are cores
  int threads = 1;            ///< of each run
  /// This call trains the runs whose number leaves the remainder shard - 1 when it is divided by
  /// shards.
  int shard = 1, shards = 1;
  std::string device = "auto";
  bool collect = false;  ///< train nothing: read what the run folders hold
  /// Called when a run ends, or ends a round of halving.
  std::function<void(const SweepRow&)> on_row = {};
  std::function<bool()> stop = {};  ///< asked before every meta-step of every run
};

/// Runs the sweep of a configuration file with `overrides` ("table.key=value"). It resumes a sweep
/// that was interrupted: runs continue from their checkpoints, and a run that failed is tried
/// again. After every change the table of this shard is written to sweep.csv, or to
/// sweep-I-of-N.csv. Test tasks are never used. Returns the rows, the best first and those without
/// a validation last. Throws Error before any training for a configuration that some run would
/// refuse, for one without validation, and where a run folder holds a run with another
/// configuration.
std::vector<SweepRow> run_sweep(const std::filesystem::path& config,
                                const std::vector<std::string>& overrides,
                                const SweepSettings& settings, const SweepOptions& options);

/// Runs the sweep of a configuration in memory, as above. In messages it is called `origin`, where
/// the name of a file would stand.
std::vector<SweepRow> run_sweep(const Config& config, const std::string& origin,
                                const SweepSettings& settings, const SweepOptions& options);

/// The rows as a table for people to read.
std::string sweep_table(const SweepSettings& settings, const std::vector<SweepRow>& rows);
/// The rows as CSV.
std::string sweep_csv(const SweepSettings& settings, const std::vector<SweepRow>& rows);

}  // namespace kshot
