#include "data/column_reading.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>
#include <unordered_set>

#include "base/text.h"
#include "kshot/error.h"

namespace kshot::data {
namespace {

/// The kinds of cells in a text column.
struct Scan {
  std::size_t values = 0, numbers = 0, percents = 0;
  std::optional<std::size_t> number, percent, text;  ///< first row of each kind
  std::optional<std::size_t> resembling;  ///< row of the first text like a number or date
  std::unordered_set<std::string> texts;
  std::optional<std::string> unit;  ///< text behind the number if equal in all texts: "kg"
};

/// Returns the text behind the number at the start of a cell. Empty if the cell does not start with
/// a number.
std::string unit_of(std::string_view cell) {
  cell = io::trimmed_view(cell);
  const std::size_t end = cell.find_first_not_of("+-.,0123456789");
  const bool number =
      end != std::string_view::npos && end > 0 &&
      (io::resembles_number(cell.substr(0, end)) || io::parse_number(cell.substr(0, end)));
  if (!number) return {};
  const std::string_view rest = io::trimmed_view(cell.substr(end));
  return rest.find_first_of("0123456789") == std::string_view::npos ? std::string(rest)
                                                                    : std::string();
}

Scan scan_column(const io::Table& table, std::size_t c) {
  Scan out;
  const io::Table::Column& column = table.columns[c];
  for (std::size_t row = 0; row < table.rows; ++row) {
    if (table.missing(c, row)) continue;
    ++out.values;
    const std::string& cell = column.text[row];
    if (io::parse_cell(cell, io::Reading::number, table.format)) {
      ++out.numbers;
      if (!out.number) out.number = row;
    } else if (io::parse_cell(cell, io::Reading::percent, table.format)) {
      ++out.percents;
      if (!out.percent) out.percent = row;
    } else {
      const std::string unit = unit_of(cell);
      if (!out.text) out.unit = unit;
      if (out.unit != unit) out.unit = std::string();
      if (!out.text) out.text = row;
      if (!out.resembling && (io::resembles_number(cell) || io::resembles_date(cell)))
        out.resembling = row;
      out.texts.emplace(io::trimmed_view(cell));
    }
  }
  if (out.values == 0) {
    throw Error(fmt::format("{}: column '{}' has no values; expected at least one, or --ignore {}",
                            table.origin, column.name, column.name));
  }
  return out;
}

/// Throws Error for digits that double precision would round: they are an identifier, not a
/// quantity.
void check_digits(const io::Table& table, std::size_t c) {
  const io::Table::Column& column = table.columns[c];
  for (std::size_t row = 0; row < table.rows; ++row) {
    const std::string_view cell = io::trimmed_view(column.text[row]);
    const bool digits =
        cell.size() > 15 && cell.find_first_not_of("+-0123456789") == std::string_view::npos;
    const auto value = digits ? io::parse_number(cell) : std::nullopt;
    if (value && std::abs(*value) >= 0x1p53) {
      throw Error(
          fmt::format("{}: column '{}' holds {}, a whole number beyond 2^53 that double "
                      "precision rounds; expected --ignore {} or --categorical {}",
                      table.location(row), column.name, cell, column.name, column.name));
    }
  }
}

io::Reading numeric_reading(const io::Table& table, std::size_t c, const Scan& scan) {
  const std::string& name = table.columns[c].name;
  if (scan.number && scan.percent) {
    throw Error(
        fmt::format("{}: column '{}' holds '{}', but numbers without a percent sign "
                    "elsewhere ({} of {} values); expected one notation, or "
                    "--categorical {}",
                    table.location(*scan.percent), name, table.cell(c, *scan.percent), scan.numbers,
                    scan.values, name));
  }
  check_digits(table, c);
  return scan.percent ? io::Reading::percent : io::Reading::number;
}

}  // namespace

io::Reading choose_reading(const io::Table& table, std::size_t c) {
  const io::Table::Column& column = table.columns[c];
  if (column.numeric) return io::Reading::number;
  const Scan scan = scan_column(table, c);
  if (!scan.text) return numeric_reading(table, c, scan);
  if (scan.numbers + scan.percents > 0) {
    throw Error(fmt::format(
        "{}: column '{}' holds '{}', but numbers elsewhere ({} of {} values); expected a number, "
        "or {}",
        table.location(*scan.text), column.name, table.cell(c, *scan.text),
        scan.numbers + scan.percents, scan.values,
        io::advice_for(column.text[*scan.text], column.name)));
  }
  if (scan.resembling) {
    const std::string& cell = column.text[*scan.resembling];
    throw Error(fmt::format(
        "{}: column '{}' holds '{}', which looks like a {} but is not read as "
        "one; expected {}",
        table.location(*scan.resembling), column.name, table.cell(c, *scan.resembling),
        io::resembles_date(cell) ? "date or time" : "number", io::advice_for(cell, column.name)));
  }
  if (scan.unit && !scan.unit->empty() && scan.texts.size() > 1) {
    throw Error(fmt::format(
        "{}: column '{}' holds '{}', and a number before '{}' in all other rows; expected numbers "
        "without a unit, --categorical {} or --ignore {}",
        table.location(*scan.text), column.name, table.cell(c, *scan.text), *scan.unit, column.name,
        column.name));
  }
  const double share = static_cast<double>(scan.texts.size()) / static_cast<double>(scan.values);
  if (scan.texts.size() > few_categories && share > largest_distinct_share) {
    throw Error(fmt::format(
        "{}: column '{}' has {} distinct values in {} rows ('{}', ...): more than {:g} % are "
        "distinct, so that they are probably not categories; expected --ignore {} or --categorical "
        "{}",
        table.origin, column.name, scan.texts.size(), scan.values, table.cell(c, *scan.text),
        100.0 * largest_distinct_share, column.name, column.name));
  }
  return io::Reading::category;
}

io::Reading choose_target_reading(const io::Table& table, std::size_t c) {
  const io::Table::Column& column = table.columns[c];
  if (column.numeric) return io::Reading::number;
  const Scan scan = scan_column(table, c);
  if (scan.text) {
    const std::string& cell = column.text[*scan.text];
    throw Error(fmt::format("{}: target column '{}' holds '{}'; expected a number ({})",
                            table.location(*scan.text), column.name, table.cell(c, *scan.text),
                            io::resembles_number(cell) ? "--decimal , or --thousands , for another "
                                                         "notation"
                                                       : "--classification for labels, "
                                                         "--missing-marks for marks of missing "
                                                         "values"));
  }
  return numeric_reading(table, c, scan);
}

void check_labels(const io::Table& table, std::size_t c, const std::vector<std::string>& names) {
  const std::string& column = table.columns[c].name;
  std::size_t values = 0;
  for (std::size_t row = 0; row < table.rows; ++row) values += table.missing(c, row) ? 0 : 1;
  if (names.size() < 2 || names.size() > most_categories) {
    const std::string missing = missing_text(table, c);
    throw Error(
        fmt::format("{}: target column '{}' has {} labels{}; expected 2 to {}{}", table.origin,
                    column, names.size(), missing, most_categories,
                    missing.empty() ? "" : " (--missing-marks says what counts as missing)"));
  }
  if (names.size() > few_categories &&
      static_cast<double>(names.size()) > largest_distinct_share * static_cast<double>(values)) {
    throw Error(
        fmt::format("{}: target column '{}' has {} labels in {} rows; expected labels that "
                    "occur more than once or twice (numbers: leave out --classification)",
                    table.origin, column, names.size(), values));
  }
}

std::string missing_text(const io::Table& table, std::size_t c) {
  std::size_t missing = 0;
  std::vector<std::string> marks;
  for (std::size_t row = 0; row < table.rows; ++row) {
    if (!table.missing(c, row)) continue;
    ++missing;
    const std::string mark = table.columns[c].numeric ? "" : table.cell(c, row);
    if (!mark.empty() && marks.size() < 3 && std::ranges::find(marks, mark) == marks.end()) {
      marks.push_back(mark);
    }
  }
  if (missing == 0) return {};
  std::string text = fmt::format(", {} of {} values missing", missing, table.rows);
  for (std::size_t i = 0; i < marks.size(); ++i) {
    text += fmt::format("{}'{}'", i == 0 ? " (marked " : ", ", marks[i]);
  }
  return marks.empty() ? text : text + ")";
}

namespace {

/// Returns true for dates without separators, such as 20240531.
bool is_compact_date(double value) {
  if (value < 19000101 || value > 21001231 || std::trunc(value) != value) return false;
  const auto digits = static_cast<int>(value);
  const int month = digits / 100 % 100, day = digits % 100;
  return month >= 1 && month <= 12 && day >= 1 && day <= 31;
}

}  // namespace

std::string number_text(const io::Table& table, std::size_t c, io::Reading reading) {
  const io::Table::Column& column = table.columns[c];
  std::string text = reading == io::Reading::percent ? "percentages (12% is 12)"
                     : reading == io::Reading::date  ? "dates, as days since 1970-01-01"
                                                     : "numeric";
  bool counts = reading == io::Reading::number && table.rows > few_categories;
  bool dates = reading == io::Reading::number;
  std::optional<double> last;
  std::string zeros;
  for (std::size_t row = 0; row < table.rows; ++row) {
    if (table.missing(c, row)) continue;
    const auto value = table.value(c, row, reading);
    counts = counts && value && (last ? *value == *last + 1.0 : *value == 0.0 || *value == 1.0);
    last = value;
    dates = dates && value && is_compact_date(*value);
    if (column.numeric || reading != io::Reading::number || !zeros.empty()) continue;
    const std::string_view cell = io::trimmed_view(column.text[row]);
    if (cell.size() > 1 && cell[0] == '0' && cell[1] >= '0' && cell[1] <= '9') zeros = cell;
  }
  if (counts) text += fmt::format(", counts the rows (--ignore {} leaves it out)", column.name);
  if (dates && last) {
    text +=
        fmt::format(", though all look like dates without separators (--ignore {} leaves them out)",
                    column.name);
  }
  if (!zeros.empty()) {
    text += fmt::format(", though '{}' has leading zeros (--categorical {} keeps names)", zeros,
                        column.name);
  }
  return text;
}

std::optional<std::pair<std::string, std::string>> same_but_for_case(
    const std::vector<std::string>& names) {
  std::unordered_map<std::string, std::string> seen;
  for (const std::string& name : names) {
    const std::string folded = lower_case(name);
    const auto [first, fresh] = seen.emplace(folded, name);
    if (!fresh && first->second != name) return std::pair{first->second, name};
  }
  return {};
}

std::string names_text(const std::vector<std::string>& names, const char* what) {
  std::string text = fmt::format("{} {}: ", names.size(), what);
  const std::size_t shown = names.size() <= 8 ? names.size() : 6;
  for (std::size_t i = 0; i < shown; ++i) text += (i == 0 ? "" : ", ") + names[i];
  return shown < names.size() ? text + ", ..." : text;
}

std::vector<std::string> reading_lines(
    const std::vector<std::pair<std::string, std::string>>& all) {
  constexpr std::size_t many = 40;
  std::vector<std::string> out;
  for (std::size_t i = 0; i < all.size();) {
    std::size_t end = i + 1;
    while (all.size() > many && end < all.size() && all[end].second == all[i].second) ++end;
    if (end - i > 2) {
      out.push_back(fmt::format("{} to {} ({} columns): {}", all[i].first, all[end - 1].first,
                                end - i, all[i].second));
    } else {
      end = i + 1;
      out.push_back(fmt::format("{}: {}", all[i].first, all[i].second));
    }
    i = end;
  }
  return out;
}

}  // namespace kshot::data
