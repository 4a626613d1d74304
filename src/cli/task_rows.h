// Reads the rows of one file of a user's task and prepares them as the import prepared the training
// data.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "cli/task_files.h"
#include "data/preprocessing.h"
#include "io/tensor.h"
#include "kshot/learner.h"

namespace kshot::cli {

/// The rows of a file.
struct Rows {
  std::string file;
  std::vector<float> x;  ///< [rows, inputs]
  bool has_targets = false;
  std::vector<std::string> labels;  ///< classification: trimmed labels; empty text: missing
  std::vector<float> values;        ///< regression: [rows, outputs]; NaN: missing
  std::vector<std::size_t> source;  ///< number of each row in the file, from 0
  std::vector<std::size_t> lines;   ///< CSV: line number of each row of the file
  std::string location(std::size_t row) const;  ///< file and row, for messages
};

/// Reads files of tasks for one run.
class RowReader {
 public:
  RowReader(const Learner& learner, TaskFileOptions options);

  const data::Preprocessing& preprocessing() const { return preprocessing_; }
  const io::TextFormat& format() const { return format_; }
  bool classify() const { return classify_; }

  /// Support rows must have targets. Where the columns of a CSV file are matched by their order,
  /// the query file must have the columns of the support file.
  Rows read_support(const std::filesystem::path& file);
  Rows read_query(const std::filesystem::path& file);

 private:
  enum class Role { support, query };

  Rows read(const std::filesystem::path& file, Role role);
  std::string target_hint(const std::filesystem::path& file) const;
  std::string label_column() const;
  /// Rows without a target are an error, or are left out and counted in the log.
  void require_targets(Rows& rows) const;

  Rows read_table(const std::filesystem::path& file, Role role);
  void read_pictures(const io::Table& table, const std::filesystem::path& file, Rows& rows) const;
  void read_columns(io::Table table, Role role, Rows& rows);
  /// Gives the feature columns of a file, in their order, the names of the training features.
  void name_features(io::Table& table, Role role);
  void read_table_targets(const io::Table& table, Rows& rows) const;

  Rows read_arrays(const std::filesystem::path& file) const;
  void read_vectors(const io::Tensor& x, Rows& rows) const;
  void read_images(const io::Tensor& x, Rows& rows) const;
  void read_array_targets(const io::Tensor& y, std::size_t count, Rows& rows) const;

  void encode(const io::Table& table, Rows& rows) const;
  void check_width(std::size_t numbers, std::size_t rows, const std::string& location) const;

  std::size_t inputs_, outputs_;
  bool classify_;
  TaskFileOptions options_;
  data::Preprocessing preprocessing_;
  io::TextFormat format_;
  /// Names of the support file's feature columns, where columns are matched by their order.
  std::vector<std::string> feature_names_;
};

}  // namespace kshot::cli
