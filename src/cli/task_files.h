// Reads a user's own task from files: support and query rows in the form that the network takes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "cli/text_options.h"
#include "data/preprocessing.h"
#include "kshot/learner.h"

namespace kshot::cli {

/// How the files of a task are read.
struct TaskFileOptions {
  TextOptions text;
  /// Rule for missing values. Absent: the rule of the training table, but `error` where that rule
  /// is `drop`.
  std::optional<data::MissingRule> missing;
  data::ArrayLayout layout = data::ArrayLayout::automatic;
};

/// Reads the options of `adapt`.
TaskFileOptions task_file_options(const TextOptions& text, const std::string& missing,
                                  const std::string& layout);

/// The rows of a task.
struct TaskFiles {
  std::vector<float> support_x, query_x;     ///< [rows, inputs]
  std::vector<std::int32_t> support_labels;  ///< classification: the network's output of each row
  std::vector<std::int32_t> query_labels;    ///< indices into label_names; -1: not given
  std::vector<float> support_values;  ///< regression: [rows, outputs], in the network's units
  std::vector<float> query_values;    ///< regression: [rows, outputs], in its units; NaN: not given
  bool query_has_targets = false;
  std::vector<std::size_t> query_rows;     ///< number of each row in its file, from 0
  std::vector<std::string> label_names;    ///< the classes that are predicted, in output order
  std::vector<std::size_t> label_outputs;  ///< the network's output for each of label_names
  std::vector<std::string> target_names;   ///< regression: name of each output
  /// Regression, one number per output: target in the user's units = value * target_scale +
  /// target_shift.
  std::vector<double> target_scale, target_shift;
};

/// Reads both files (CSV, TSV or npz; see `kshot adapt --help`) and logs its choices where a file
/// can be read in several ways. Without a support file, for algorithms with a prior, the classes
/// are those of the training data where labels keep their meaning between tasks, else data.ways
/// classes without names. Throws Error that names file, row and what was expected.
TaskFiles read_task_files(const Learner& learner,
                          const std::optional<std::filesystem::path>& support,
                          const std::filesystem::path& query, const TaskFileOptions& options = {});

}  // namespace kshot::cli
