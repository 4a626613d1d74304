// A table in memory, and the functions that read its cells as numbers, percentages, dates or
// missing values.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace kshot::io {

/// How numbers and missing values are written in a text table.
struct TextFormat {
  char decimal = '.';
  std::string thousands;  ///< separator of groups of three digits, one UTF-8 character or empty
  /// The texts that mean a missing value, beside an empty cell, exactly as written. Without a
  /// value, these are NA, N/A, NaN, null, none and ? in any case.
  std::optional<std::vector<std::string>> missing_marks;

  bool operator==(const TextFormat&) const = default;
};

/// Throws Error unless `text` is "." or ",".
char parse_decimal_mark(const std::string& text);
/// Parses one UTF-8 character, or the word "space". Throws Error for a digit, a sign or longer
/// text.
std::string parse_thousands_mark(const std::string& text);
/// Parses a comma-separated list. Blanks around each mark are dropped.
std::vector<std::string> parse_missing_marks(const std::string& text);
/// Parses one character, or "tab". Throws Error for anything else, for quotes and for line ends.
char parse_delimiter(const std::string& text);

/// The meaning of a column's cells.
enum class Reading {
  number,
  percent,   ///< "12%" is 12
  date,      ///< ISO 8601 date or time; days since 1970-01-01, UTC where no offset is given
  category,  ///< a name
};
const char* reading_name(Reading reading);

/// Returns `text` without the blanks around it.
std::string_view trimmed_view(std::string_view text);
/// Parses a number, independent of the locale. Returns nothing for NaN and for text that is no
/// number. Blanks around `text` are ignored.
std::optional<double> parse_number(std::string_view text);
std::optional<double> parse_number(std::string_view text, const TextFormat& format);
/// Parses a cell by its reading (not category). Returns nothing where the cell does not fit.
std::optional<double> parse_cell(std::string_view text, Reading reading, const TextFormat& format);
/// Days since 1970-01-01 of "2024-05-31", optionally followed by "T" or a blank, "hh:mm", ":ss",
/// ".fff", and "Z" or an offset "+hh:mm".
std::optional<double> parse_date(std::string_view text);
/// Returns true for an empty cell and for a missing-value mark.
bool is_missing(std::string_view text, const TextFormat& format = {});

/// Returns true for text that is probably a number in another notation: "1,5", "1,027", "$ 3",
/// "12%".
bool resembles_number(std::string_view text);
/// Returns true for text that is probably a date or a time of day.
bool resembles_date(std::string_view text);
/// Names the options that could make sense of the text `cell` of column `name`, for an error
/// message.
std::string advice_for(std::string_view cell, std::string_view name);

/// Finds the index of a name. Where all names are numbers, spellings of one number are one name:
/// "01", "1" and "1.0".
class NameIndex {
 public:
  explicit NameIndex(const std::vector<std::string>& names);
  std::optional<std::size_t> find(std::string_view name, const TextFormat& format = {}) const;
  bool numeric() const { return numeric_; }

 private:
  bool numeric_;
  std::unordered_map<std::string, std::size_t> index_;
};

/// Returns the distinct names, each in its first spelling. They are sorted by value where all are
/// numbers, else by name. Numbers in another notation than the default are rewritten as plain
/// numbers. `merged` gets one pair of spellings of the same number, if there is one.
std::vector<std::string> distinct_names(
    const std::vector<std::string>& cells, const TextFormat& format = {},
    std::optional<std::pair<std::string, std::string>>* merged = nullptr);

/// A table in memory, column by column: text (from CSV) or numbers (from arrays).
struct Table {
  struct Column {
    std::string name;
    bool numeric = false;
    std::vector<std::string> text;  ///< if not numeric
    std::vector<double> numbers;    ///< if numeric; NaN means missing
  };
  std::string origin;  ///< name of the file, for messages
  std::size_t rows = 0;
  std::vector<Column> columns;
  std::vector<std::size_t> lines;  ///< where each row stands in the file; empty: the row's number
  const char* unit = "row";        ///< the unit of `lines`, for messages
  TextFormat format;
  std::optional<std::size_t> row_index;  ///< a first column without a name, as pandas writes it
  std::vector<std::string> notes;        ///< guesses of the reader, for the user

  /// Returns the index of a column, or nothing.
  std::optional<std::size_t> find(std::string_view name) const;
  /// Returns the index of a column. Throws Error that lists the existing columns where there is
  /// none.
  std::size_t require(std::string_view name, std::string_view key) const;
  /// The column names "a, b, c", cut off after 200 characters.
  std::string column_names() const;
  /// The place of a row, for messages: "FILE, line 17" or "FILE, row 16".
  std::string location(std::size_t row) const;
  /// A cell as the name of a category, label or task: text without the blanks around it, 7.0
  /// as "7".
  std::string cell(std::size_t column, std::size_t row) const;
  /// Returns true for NaN and for text that means a missing value.
  bool missing(std::size_t column, std::size_t row) const;
  /// A cell that is not missing, as a number. Returns nothing where it does not fit `reading`.
  std::optional<double> value(std::size_t column, std::size_t row, Reading reading) const;
  /// A cell as a finite number within the range of float32. Throws Error that names line and
  /// column.
  double number(std::size_t column, std::size_t row, Reading reading) const;
};

}  // namespace kshot::io
