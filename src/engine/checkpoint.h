// A checkpoint: all that a resumed run, an evaluation or an adaptation needs. It is one safetensors
// file with the meta-learned parameters as "theta.layers.0.weight", the optimiser's state as
// "optimizer.m.theta..." and "optimizer.v.theta...", and the rest in the metadata.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "algorithms/algorithm.h"
#include "backend/backend.h"
#include "io/tensor.h"
#include "kshot/config.h"
#include "kshot/episode.h"
#include "kshot/trainer.h"

namespace kshot {

/// Sums since the last training report, so that the reports of a resumed run are the same.
struct ReportWindow {
  std::uint64_t steps = 0, tasks = 0, diverged = 0;
  double loss = 0.0, task_loss = 0.0;
};

/// The progress of a run.
struct RunState {
  std::uint64_t step = 0;
  double seconds = 0.0;
  std::uint64_t tasks = 0, diverged = 0;
  std::uint64_t guarded = 0;  ///< steps that optimizer.nan_guard took over
  bool validated = false;
  ValidationReport best;
  int validations_since_best = 0;
  ReportWindow window;
  // For runs with a task store:
  std::string run_id;   ///< the run's name in the store
  int store_ranks = 1;  ///< ranks that the store is divided among
};

/// The data file that a run was trained on. It is recorded so that another file is noticed.
struct DataFile {
  std::string path;      ///< absolute
  std::string checksum;  ///< "crc32:1a2b3c4d", of the whole file, its split included
  std::string split;     ///< "64 train, 16 validation, 20 test classes"
};

/// A description of the training data, for readers of the checkpoint who do not have the data.
struct SourceInfo {
  std::string description;
  TaskShape shape;
  std::string preprocessing;          ///< JSON; empty where the source has none
  std::optional<DataFile> data = {};  ///< none: no data file, or a checkpoint of kshot 0.1.0
};

/// The content of one checkpoint file.
struct Checkpoint {
  std::filesystem::path path;
  Config config;
  RunState state;
  SourceInfo source;
  std::map<std::string, io::Tensor> tensors;

  /// Throws Error for a file that is missing, damaged or no checkpoint.
  static Checkpoint read(const std::filesystem::path& path);
  /// Writes the file atomically.
  void write(const std::filesystem::path& file) const;

  /// Adds a group's values under `prefix` + group name + tensor name, in the given precision.
  void store(const std::string& prefix, const ParameterGroup& group,
             const backend::SharedVector& values, backend::Precision precision);
  void store(const std::string& prefix, const ParameterGroup& group,
             const std::vector<double>& values, backend::Precision precision);
  /// Reads what store() has added. Throws Error where a tensor is missing, has another shape, or is
  /// not finite.
  void load(const std::string& prefix, const ParameterGroup& group,
            backend::SharedVector& values) const;
};

/// The checkpoint that `run` names. A file is the checkpoint itself. In a folder it is `which`
/// ("best" or "last"); the last one takes the place of "best" where there never was a validation.
/// Throws Error where there is no checkpoint.
std::filesystem::path find_checkpoint(const std::filesystem::path& run,
                                      const std::string& which = "best");

/// Names in a run folder.
inline constexpr const char* last_checkpoint = "last.safetensors";
inline constexpr const char* best_checkpoint = "best.safetensors";
inline constexpr const char* metrics_file = "metrics.jsonl";
inline constexpr const char* config_file = "config.toml";
inline constexpr const char* run_file = "run.json";
/// The state of the training tasks. With several ranks the files are tasks-RANK-of-RANKS.store.
inline constexpr const char* memory_file = "tasks.store";
bool is_memory_file(std::string_view name);

}  // namespace kshot
