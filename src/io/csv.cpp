#include "io/csv.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/text.h"
#include "io/atomic_file.h"
#include "kshot/error.h"

namespace kshot::io {
namespace {

constexpr std::size_t rows_between_interrupts = 4096;

/// The name that pandas gives to a column without one.
constexpr const char* row_index_name = "Unnamed: 0";

/// Splits text into records and keeps the line on which each record begins.
class Reader {
 public:
  Reader(std::string_view text, const std::string& origin, char delimiter)
      : text_(text), origin_(origin), delimiter_(delimiter) {
    if (text_.starts_with("\xef\xbb\xbf")) text_.remove_prefix(3);  // removes the byte order mark
  }

  /// Reads the next record that is not a blank line. Returns false at the end.
  bool next(std::vector<std::string>* fields) {
    blank_lines_.clear();
    while (at_ < text_.size()) {
      record(fields);
      if (fields->size() > 1 || quoted_ || !trimmed_view(fields->front()).empty()) return true;
      blank_lines_.push_back(record_line_);
    }
    return false;
  }
  /// The blank lines that the last call of `next` skipped.
  const std::vector<std::size_t>& blank_lines() const { return blank_lines_; }
  /// The line on which the last record begins, counted from 1.
  std::size_t line() const { return record_line_; }

 private:
  void record(std::vector<std::string>* fields) {
    fields->clear();
    record_line_ = line_;
    quoted_ = false;
    while (true) {
      fields->push_back(field());
      if (at_ >= text_.size()) return;
      const char c = text_[at_++];
      if (c == delimiter_) continue;
      if (c == '\r' && at_ < text_.size() && text_[at_] == '\n') ++at_;
      ++line_;
      return;
    }
  }

  bool at_line_end() const { return text_[at_] == '\n' || text_[at_] == '\r'; }

  std::string field() {
    std::string out;
    if (at_ < text_.size() && text_[at_] == '"') {
      const std::size_t opened = line_;
      quoted_ = true;
      ++at_;
      while (true) {
        if (at_ >= text_.size()) {
          throw Error(
              fmt::format("{}, line {}: a quote is opened and not closed", origin_, opened));
        }
        const char c = text_[at_++];
        if (c == '"') {
          if (at_ >= text_.size() || text_[at_] != '"') break;
          ++at_;
        } else if (c == '\n') {
          ++line_;
        }
        out += c;
      }
      if (at_ < text_.size() && text_[at_] != delimiter_ && !at_line_end()) {
        throw Error(fmt::format("{}, line {}: text after a closing quote", origin_, line_));
      }
      return out;
    }
    const std::size_t begin = at_;
    while (at_ < text_.size() && text_[at_] != delimiter_ && !at_line_end()) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }

  std::string_view text_;
  const std::string& origin_;
  char delimiter_;
  std::size_t at_ = 0;
  std::size_t line_ = 1;
  std::size_t record_line_ = 1;
  bool quoted_ = false;  ///< the last record has a quoted field
  std::vector<std::size_t> blank_lines_;
};

std::string delimiter_name(char delimiter) {
  return delimiter == '\t' ? "tab" : fmt::format("'{}'", delimiter);
}

/// Returns the number of fields into which `delimiter` cuts the header, if it cuts the first rows
/// into equally many. Returns 0 otherwise.
std::size_t consistent_fields(std::string_view text, const std::string& origin, char delimiter) {
  constexpr int records = 50;
  std::vector<std::string> fields;
  try {
    Reader reader(text, origin, delimiter);
    if (!reader.next(&fields)) return 0;
    const std::size_t count = fields.size();
    for (int i = 0; i < records && reader.next(&fields); ++i) {
      if (fields.size() != count) return 0;
    }
    return count;
  } catch (const Error&) {
    return 0;  // the quotes are closed only with another delimiter
  }
}

char detect_delimiter(std::string_view text, const std::string& origin, char usual, bool ask,
                      Table* table) {
  std::vector<char> fitting;
  for (const char delimiter : {',', ';', '\t', '|'}) {
    if (consistent_fields(text, origin, delimiter) > 1) fitting.push_back(delimiter);
  }
  if (fitting.empty()) return usual;
  if (fitting.size() > 1 && !ask && std::ranges::find(fitting, usual) != fitting.end())
    return usual;
  if (fitting.size() > 1) {
    throw Error(fmt::format("{}: the fields may be separated by {} or by {}; expected --delimiter",
                            origin, delimiter_name(fitting[0]), delimiter_name(fitting[1])));
  }
  if (fitting.front() != usual) {
    table->notes.push_back(
        fmt::format("{}: fields are separated by {}", origin, delimiter_name(fitting.front())));
  }
  return fitting.front();
}

void check_utf8(const std::string& field, const Table& table, std::size_t line) {
  if (is_utf8(field)) return;
  throw Error(
      fmt::format("{}, line {}: a field is not UTF-8 text; expected a table in UTF-8 "
                  "(iconv -f latin1 -t utf-8 converts the usual other encoding)",
                  table.origin, line));
}

/// Makes columns from the fields of the first line.
void read_header(std::vector<std::string> fields, std::size_t line, Table* table) {
  std::set<std::string> seen;
  for (std::string& field : fields) {
    check_utf8(field, *table, line);
    std::string name(trimmed_view(field));
    const std::size_t index = table->columns.size();
    if (index == 0 && fields.size() > 1 && (name.empty() || name == row_index_name)) {
      name = row_index_name;
      table->row_index = 0;
    }
    if (fields.size() <= 2 && name.size() <= 5 && name.starts_with("sep=")) {
      throw Error(
          fmt::format("{}, line {}: '{}' is a line for Excel that names the separator; expected "
                      "the column names: remove the line",
                      table->origin, line, name));
    }
    if (name.empty()) {
      throw Error(
          fmt::format("{}, line {}: column {} has no name", table->origin, line, index + 1));
    }
    if (!seen.insert(name).second) {
      throw Error(
          fmt::format("{}, line {}: two columns are named '{}'", table->origin, line, name));
    }
    table->columns.push_back(
        {.name = std::move(name), .numeric = false, .text = {}, .numbers = {}});
  }
}

}  // namespace

Table parse_csv(std::string_view text, const std::string& origin, char delimiter,
                const TextFormat& format, char usual_delimiter, bool ask_delimiter,
                const std::function<void()>& interrupt) {
  Table table;
  table.origin = origin;
  table.unit = "line";
  table.format = format;
  if (text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff")) {
    throw Error(fmt::format("{}: expected a text table in UTF-8, found UTF-16", origin));
  }
  if (text.find('\0') != std::string_view::npos) {
    throw Error(fmt::format("{}: expected a text table, found binary data", origin));
  }
  if (delimiter == 0)
    delimiter = detect_delimiter(text, origin, usual_delimiter, ask_delimiter, &table);
  Reader reader(text, origin, delimiter);
  std::vector<std::string> fields;
  if (!reader.next(&fields)) {
    throw Error(fmt::format("{}: empty; expected a line of column names and rows", origin));
  }
  read_header(std::move(fields), reader.line(), &table);
  const auto add = [&](std::vector<std::string> row, std::size_t line) {
    for (std::size_t c = 0; c < row.size(); ++c) {
      check_utf8(row[c], table, line);
      table.columns[c].text.push_back(std::move(row[c]));
    }
    table.lines.push_back(line);
  };
  while (reader.next(&fields)) {
    // In a table of one column, a blank line between other lines is a row without a value.
    if (table.columns.size() == 1) {
      for (const std::size_t line : reader.blank_lines()) add({std::string()}, line);
    }
    if (fields.size() != table.columns.size()) {
      throw Error(fmt::format(
          "{}, line {}: {} fields; expected {}, one for each column (fields "
          "separated by {})",
          origin, reader.line(), fields.size(), table.columns.size(), delimiter_name(delimiter)));
    }
    add(std::move(fields), reader.line());
    if (interrupt && table.lines.size() % rows_between_interrupts == 0) interrupt();
  }
  table.rows = table.lines.size();
  if (table.rows == 0) {
    throw Error(fmt::format("{}: no rows below the column names", origin));
  }
  return table;
}

namespace {

char usual_delimiter_of(const std::filesystem::path& path) {
  const std::string extension = lower_case(path.extension().string());
  return extension == ".tsv" ? '\t' : ',';
}

}  // namespace

Table read_csv(const std::filesystem::path& path, char delimiter, const TextFormat& format,
               const std::function<void()>& interrupt) {
  return parse_csv(read_file(path), path.string(), delimiter, format, usual_delimiter_of(path),
                   true, interrupt);
}

Table read_name_table(const std::filesystem::path& path) {
  return parse_csv(read_file(path), path.string(), 0, {}, usual_delimiter_of(path), false);
}

}  // namespace kshot::io
