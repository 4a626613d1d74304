// A user's own task, from files: support and query rows as the network takes them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "io/preprocessing.h"
#include "kshot/learner.h"

namespace kshot::cli {

struct TaskFiles {
  std::vector<float> support_x, query_x;
  std::vector<std::int32_t> support_labels, query_labels;  ///< classification
  std::vector<float> support_values, query_values;         ///< regression, in the network's units
  bool query_has_targets = false;
  std::vector<std::string> label_names;   ///< by label
  std::vector<std::string> target_names;  ///< by output
  /// Targets in the user's units = value * target_scale + target_shift, by output.
  std::vector<double> target_scale, target_shift;
};

/// Reads both files (CSV, TSV or npz; see `kshot adapt --help`). Throws Error naming file, row and
/// what was expected.
TaskFiles read_task_files(const Learner& learner, const std::filesystem::path& support,
                          const std::filesystem::path& query);

}  // namespace kshot::cli
