// What an import did to a user's raw inputs and targets. It is stored in the data file, travels in
// checkpoints, and turns the rows of a new task into features in exactly the same way.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kshot/episode.h"

namespace kshot::io {

/// A table in memory, column by column: text (from CSV) or numbers (from arrays).
struct Table {
  struct Column {
    std::string name;
    bool numeric = false;
    std::vector<std::string> text;  ///< where not numeric
    std::vector<double> numbers;    ///< where numeric; NaN: missing
  };
  std::string origin;  ///< file, for messages
  std::size_t rows = 0;
  std::vector<Column> columns;
  std::vector<std::size_t> lines;  ///< where each row stands in the file; empty: its own number
  const char* unit = "row";        ///< what `lines` count, for messages

  /// Index of a column, or nothing.
  std::optional<std::size_t> find(std::string_view name) const;
  /// As `find`; throws Error that lists the columns there are.
  std::size_t require(std::string_view name, std::string_view key) const;
  /// "FILE, line 17" or "FILE, row 16".
  std::string where(std::size_t row) const;
  /// A cell as the name of a category, label or task: text without blanks around it, 7.0 as "7".
  std::string cell(std::size_t column, std::size_t row) const;
  /// True for NaN and for text that stands for a missing value.
  bool missing(std::size_t column, std::size_t row) const;
};

/// A number, whatever the locale; nothing where `text` is not one (surrounding blanks are ignored).
std::optional<double> parse_number(std::string_view text);
/// True for "", NA, N/A, NaN, null, none, ? in any case.
bool is_missing(std::string_view text);

enum class MissingRule {
  error,  ///< a missing value is an Error
  mean,   ///< numeric: the training mean (0 once standardised); category: all zeros
  drop,   ///< the row is left out
};

/// What became of the inputs and targets.
struct Preprocessing {
  enum class Kind { none, image, table };

  /// One column of raw input. Numeric: (value - mean) / std. Categorical: one-hot.
  struct Column {
    std::string name;
    std::vector<std::string> categories;  ///< empty: numeric
    double mean = 0.0, std = 1.0;
    int features() const { return categories.empty() ? 1 : static_cast<int>(categories.size()); }
  };
  struct Target {
    std::string name;
    double mean = 0.0, std = 1.0;  ///< stored value = (raw - mean) / std
  };

  Kind kind = Kind::none;
  FeatureShape input;
  bool inverted = false;        ///< image: 1 - grey level
  std::vector<Column> columns;  ///< table, in the order of the features
  MissingRule missing = MissingRule::error;
  std::vector<Target> targets;      ///< regression
  std::string label_column;         ///< classification
  std::vector<std::string> labels;  ///< classification: names by index

  std::string to_json() const;
  /// Throws Error that names `origin`.
  static Preprocessing from_json(std::string_view text, const std::string& origin);
};

/// Rows of a table as features [rows, d] and, where asked for, targets.
struct EncodedTable {
  std::size_t rows = 0;
  std::vector<float> x;
  std::vector<float> values;         ///< [rows, targets], standardised
  std::vector<std::int32_t> labels;  ///< [rows]
  std::vector<std::size_t> source;   ///< row of the table each came from
  std::size_t unseen = 0;            ///< values of a category unknown to `columns`: all zeros
};

/// Columns are found by name. Throws Error for a column that is absent, a value that is not a
/// finite number, a missing value under MissingRule::error, a label that is not known.
EncodedTable encode_table(const Preprocessing& preprocessing, const Table& table,
                          bool with_targets);

/// An image file as a feature row: decoded, brought to the channels and size of
/// `preprocessing.input`, scaled to [0, 1], inverted where the import did so.
std::vector<float> encode_image(const Preprocessing& preprocessing,
                                const std::filesystem::path& file);

const char* missing_rule_name(MissingRule rule);

}  // namespace kshot::io
