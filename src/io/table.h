// A table in memory and how its cells are read: numbers, percentages, dates, missing values.
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
  std::string thousands;  ///< separator of groups of three digits, one UTF-8 character; empty: none
  /// What counts as missing beside an empty cell, exactly as written. Nothing: NA, N/A, NaN, null,
  /// none and ? in any case.
  std::optional<std::vector<std::string>> missing_marks;

  bool operator==(const TextFormat&) const = default;
};

/// Throws Error unless `text` is "." or ",".
char parse_decimal_mark(const std::string& text);
/// One UTF-8 character, or the word "space". Throws Error for a digit, sign or anything longer.
std::string parse_thousands_mark(const std::string& text);
/// A comma-separated list; blanks around each mark are dropped.
std::vector<std::string> parse_missing_marks(const std::string& text);
/// One character, or "tab". Throws Error for anything else, for quotes and for line ends.
char parse_delimiter(const std::string& text);

/// What a column's cells stand for.
enum class Reading {
  number,
  percent,   ///< "12%" is 12
  date,      ///< ISO 8601 date or time; days since 1970-01-01, UTC where no offset is given
  category,  ///< a name
};
const char* reading_name(Reading reading);

/// `text` without blanks around it.
std::string_view trimmed_view(std::string_view text);
/// A number, whatever the locale; nothing where `text` is not one, or is NaN. Blanks around it are
/// ignored.
std::optional<double> parse_number(std::string_view text);
std::optional<double> parse_number(std::string_view text, const TextFormat& format);
/// A cell by its reading (not a category); nothing where it does not fit.
std::optional<double> parse_cell(std::string_view text, Reading reading, const TextFormat& format);
/// Days since 1970-01-01 of "2024-05-31", optionally followed by "T" or a blank, "hh:mm", ":ss",
/// ".fff", and "Z" or an offset "+hh:mm".
std::optional<double> parse_date(std::string_view text);
/// True for an empty cell and for a missing-value mark.
bool is_missing(std::string_view text, const TextFormat& format = {});

/// True for text that is probably a number in another notation: "1,5", "1,027", "12%", "$ 3".
bool resembles_number(std::string_view text);
/// True for text that is probably a date or a time of day.
bool resembles_date(std::string_view text);
/// Which options could make sense of the text `cell` of column `name`, for an error message.
std::string advice_for(std::string_view cell, std::string_view name);

/// Names with their indices. Where all of them are numbers, names of the same number are the same
/// name: "01", "1" and "1.0".
class NameIndex {
 public:
  explicit NameIndex(const std::vector<std::string>& names);
  std::optional<std::size_t> find(std::string_view name, const TextFormat& format = {}) const;
  bool numeric() const { return numeric_; }

 private:
  bool numeric_;
  std::unordered_map<std::string, std::size_t> index_;
};

/// Distinct names, each in its first spelling: sorted by value where all are numbers, else by name.
/// `merged` gets one pair of spellings of the same number, if there is one.
std::vector<std::string> distinct_names(
    const std::vector<std::string>& cells, const TextFormat& format = {},
    std::optional<std::pair<std::string, std::string>>* merged = nullptr);

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
  TextFormat format;
  std::optional<std::size_t> row_index;  ///< a first column without a name, as pandas writes it
  std::vector<std::string> notes;        ///< what the reader had to guess

  /// Index of a column, or nothing.
  std::optional<std::size_t> find(std::string_view name) const;
  /// As `find`; throws Error that lists the columns there are.
  std::size_t require(std::string_view name, std::string_view key) const;
  /// "a, b, c", cut short after 200 characters.
  std::string column_names() const;
  /// "FILE, line 17" or "FILE, row 16".
  std::string where(std::size_t row) const;
  /// A cell as the name of a category, label or task: text without blanks around it, 7.0 as "7".
  std::string cell(std::size_t column, std::size_t row) const;
  /// True for NaN and for text that stands for a missing value.
  bool missing(std::size_t column, std::size_t row) const;
  /// A cell that is not missing as a number, or nothing where it does not fit `reading`.
  std::optional<double> value(std::size_t column, std::size_t row, Reading reading) const;
  /// As `value`, finite and within the range of float32; throws Error that names line and column.
  double number(std::size_t column, std::size_t row, Reading reading) const;
};

}  // namespace kshot::io
