#include "io/csv.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "io/atomic_file.h"
#include "kshot/error.h"

namespace kshot::io {
namespace {

/// Splits text into records, keeping the line each began on.
class Reader {
 public:
  Reader(std::string_view text, const std::string& origin, char delimiter)
      : text_(text), origin_(origin), delimiter_(delimiter) {
    if (text_.starts_with("\xef\xbb\xbf")) text_.remove_prefix(3);  // byte order mark
  }

  /// The next record that is not an empty line; false at the end.
  bool next(std::vector<std::string>* fields) {
    do {
      if (at_ >= text_.size()) return false;
      record(fields);
    } while (fields->size() == 1 && fields->front().empty());
    return true;
  }
  /// Line the last record began on, from 1.
  std::size_t line() const { return record_line_; }

 private:
  void record(std::vector<std::string>* fields) {
    fields->clear();
    record_line_ = line_;
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
};

}  // namespace

Table parse_csv(std::string_view text, const std::string& origin, char delimiter) {
  Table table;
  table.origin = origin;
  table.unit = "line";
  if (text.find('\0') != std::string_view::npos) {
    throw Error(fmt::format("{}: expected a text table, found binary data", origin));
  }
  Reader reader(text, origin, delimiter);
  std::vector<std::string> fields;
  if (!reader.next(&fields)) {
    throw Error(fmt::format("{}: empty; expected a line of column names and rows", origin));
  }
  std::set<std::string> seen;
  for (std::string& name : fields) {
    const auto first = name.find_first_not_of(" \t");
    name = first == std::string::npos
               ? std::string()
               : name.substr(first, name.find_last_not_of(" \t") - first + 1);
    if (name.empty()) {
      throw Error(fmt::format("{}, line {}: column {} has no name", origin, reader.line(),
                              table.columns.size() + 1));
    }
    if (!seen.insert(name).second) {
      throw Error(
          fmt::format("{}, line {}: two columns are named '{}'", origin, reader.line(), name));
    }
    table.columns.push_back({.name = name, .numeric = false, .text = {}, .numbers = {}});
  }
  while (reader.next(&fields)) {
    if (fields.size() != table.columns.size()) {
      throw Error(fmt::format("{}, line {}: {} fields; expected {}, one for each column", origin,
                              reader.line(), fields.size(), table.columns.size()));
    }
    for (std::size_t c = 0; c < fields.size(); ++c) {
      table.columns[c].text.push_back(std::move(fields[c]));
    }
    table.lines.push_back(reader.line());
  }
  table.rows = table.lines.size();
  if (table.rows == 0) {
    throw Error(fmt::format("{}: no rows below the column names", origin));
  }
  return table;
}

Table read_csv(const std::filesystem::path& path, char delimiter) {
  if (delimiter == 0) delimiter = path.extension() == ".tsv" ? '\t' : ',';
  return parse_csv(read_file(path), path.string(), delimiter);
}

}  // namespace kshot::io
