// A checkpoint: everything a run goes on from, and everything evaluation and adaptation need. One
// safetensors file: meta-learned parameters as "theta.layers.0.weight", the optimiser's state as
// "optimizer.m.theta..." and "optimizer.v.theta...", the rest in the metadata.
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

/// How far a run has come.
struct RunState {
  std::uint64_t step = 0;
  double seconds = 0.0;
  std::uint64_t tasks = 0, diverged = 0;
  std::uint64_t guarded = 0;  ///< steps that optimizer.nan_guard took over
  bool validated = false;
  ValidationReport best;
  int validations_since_best = 0;
  ReportWindow window;
  // Of runs with a task store:
  std::string run_id;   ///< the store's
  int store_ranks = 1;  ///< ranks that the store is divided among
};

/// Which data file a run was trained on, so that another one is noticed.
struct DataFile {
  std::string path;      ///< absolute
  std::string checksum;  ///< "crc32:1a2b3c4d", of the whole file, its split included
  std::string split;     ///< "64 train, 16 validation, 20 test classes"
};

/// What the training data look like, for whoever reads the checkpoint without them.
struct SourceInfo {
  std::string description;
  TaskShape shape;
  std::string preprocessing;          ///< JSON; empty where the source has none
  std::optional<DataFile> data = {};  ///< none: no data file, or a checkpoint of kshot 0.1.0
};

struct Checkpoint {
  std::filesystem::path path;
  Config config;
  RunState state;
  SourceInfo source;
  std::map<std::string, io::Tensor> tensors;

  /// Throws Error for a file that is missing, damaged or no checkpoint.
  static Checkpoint read(const std::filesystem::path& path);
  /// Atomic.
  void write(const std::filesystem::path& file) const;

  /// Adds a group's values under `prefix` + group name + tensor name, in the given precision.
  void store(const std::string& prefix, const ParameterGroup& group,
             const backend::SharedVector& values, backend::Precision precision);
  void store(const std::string& prefix, const ParameterGroup& group,
             const std::vector<double>& values, backend::Precision precision);
  /// The inverse. Throws Error where a tensor is missing, of another shape, or not finite.
  void load(const std::string& prefix, const ParameterGroup& group,
            backend::SharedVector& values) const;
};

/// The checkpoint that `run` names: a file itself; of a folder `which` ("best" or "last"), and for
/// "best" the last one where there never was a validation. Throws Error where there is none.
std::filesystem::path find_checkpoint(const std::filesystem::path& run,
                                      const std::string& which = "best");

/// Names in a run folder.
inline constexpr const char* last_checkpoint = "last.safetensors";
inline constexpr const char* best_checkpoint = "best.safetensors";
inline constexpr const char* metrics_file = "metrics.jsonl";
inline constexpr const char* config_file = "config.toml";
inline constexpr const char* run_file = "run.json";
/// What the training tasks remember; with several ranks tasks-RANK-of-RANKS.store.
inline constexpr const char* memory_file = "tasks.store";
bool is_memory_file(std::string_view name);

}  // namespace kshot
