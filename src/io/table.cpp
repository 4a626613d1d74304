#include "io/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>

#include "base/text.h"
#include "kshot/error.h"

namespace kshot::io {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/// Length in bytes of the separator at the start of `text`, or 0 if there is none. The mark " "
/// also matches no-break spaces, plain or narrow, which programs write to avoid a line break within
/// a number.
std::size_t thousands_mark(std::string_view text, std::string_view mark) {
  if (text.starts_with(mark)) return mark.size();
  if (mark != " ") return 0;
  return text.starts_with("\xc2\xa0") ? 2 : text.starts_with("\xe2\x80\xaf") ? 3 : 0;
}

/// Returns the number without its thousands separators. Returns nothing where a group does not have
/// three digits.
std::optional<std::string> without_groups(std::string_view text, const TextFormat& format) {
  std::string out;
  std::size_t at = 0;
  if (at < text.size() && (text[at] == '+' || text[at] == '-')) out += text[at++];
  std::size_t digits = 0;
  bool grouped = false;
  while (at < text.size()) {
    if (is_digit(text[at])) {
      out += text[at++];
      ++digits;
    } else if (const std::size_t mark = thousands_mark(text.substr(at), format.thousands)) {
      if (grouped ? digits != 3 : digits < 1 || digits > 3) return {};
      grouped = true;
      digits = 0;
      at += mark;
    } else {
      break;
    }
  }
  if (grouped && digits != 3) return {};
  return out + std::string(text.substr(at));
}

/// Two digits as a number, or -1.
int two_digits(std::string_view text, std::size_t at) {
  if (at + 2 > text.size() || !is_digit(text[at]) || !is_digit(text[at + 1])) return -1;
  return (text[at] - '0') * 10 + (text[at + 1] - '0');
}

/// Parses "Z" or "+hh:mm" to minutes east of UTC. Empty text means UTC. Returns nothing for other
/// text.
std::optional<int> parse_offset(std::string_view text) {
  if (text.empty() || text == "Z" || text == "z") return 0;
  if (text[0] != '+' && text[0] != '-') return {};
  const int hours = two_digits(text, 1);
  const bool colon = text.size() > 3 && text[3] == ':';
  const std::size_t minutes_at = colon ? 4 : 3;
  const int minutes = text.size() == 3 ? 0 : two_digits(text, minutes_at);
  if (hours < 0 || hours > 23 || minutes < 0 || minutes > 59) return {};
  if (text.size() != 3 && text.size() != minutes_at + 2) return {};
  return (text[0] == '-' ? -1 : 1) * (hours * 60 + minutes);
}

}  // namespace

char parse_decimal_mark(const std::string& text) {
  if (text != "." && text != ",") {
    throw Error(fmt::format("--decimal {}: expected . or ,", text));
  }
  return text.front();
}

std::string parse_thousands_mark(const std::string& text) {
  if (text == "space") return " ";
  const bool one = !text.empty() && utf8_length(text) == text.size();
  if (!one || is_digit(text.front()) || text == "+" || text == "-" || text == "\"") {
    throw Error(
        fmt::format("--thousands {}: expected one character such as , or ., or space", text));
  }
  return text;
}

std::vector<std::string> parse_missing_marks(const std::string& text) {
  if (!is_utf8(text)) throw Error("--missing-marks: expected UTF-8 text");
  std::vector<std::string> out;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    const std::string_view mark = trimmed_view(std::string_view(text).substr(at, end - at));
    if (!mark.empty()) out.emplace_back(mark);
    at = end + 1;
  }
  return out;
}

char parse_delimiter(const std::string& text) {
  if (text == "tab" || text == "\\t") return '\t';
  if (text.size() != 1 || text == "\"" || text == "\n" || text == "\r" ||
      static_cast<unsigned char>(text.front()) >= 0x80) {
    throw Error(fmt::format("--delimiter {}: expected one character, or tab", text));
  }
  return text.front();
}

const char* reading_name(Reading reading) {
  switch (reading) {
    case Reading::number:
      return "number";
    case Reading::percent:
      return "percent";
    case Reading::date:
      return "date";
    case Reading::category:
      return "category";
  }
  return "?";
}

std::string_view trimmed_view(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

std::optional<double> parse_number(std::string_view text) {
  text = trimmed_view(text);
  if (text.size() > 1 && text.front() == '+' && text[1] != '-') text.remove_prefix(1);
  double value = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return {};
  if (std::isnan(value)) return {};
  return value;
}

std::optional<double> parse_number(std::string_view text, const TextFormat& format) {
  text = trimmed_view(text);
  if (format.decimal == '.' && format.thousands.empty()) return parse_number(text);
  std::string plain(text);
  if (!format.thousands.empty()) {
    const auto joined = without_groups(text, format);
    if (!joined) return {};
    plain = *joined;
  }
  if (format.decimal != '.') {
    if (plain.find('.') != std::string::npos) return {};
    std::ranges::replace(plain, format.decimal, '.');
  }
  return parse_number(plain);
}

std::optional<double> parse_date(std::string_view text) {
  text = trimmed_view(text);
  if (text.size() < 10 || text[4] != '-' || text[7] != '-') return {};
  const int century = two_digits(text, 0), year = two_digits(text, 2);
  const int month = two_digits(text, 5), day = two_digits(text, 8);
  if (century < 0 || year < 0 || month < 0 || day < 0) return {};
  const std::chrono::year_month_day date(std::chrono::year(century * 100 + year),
                                         std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day)));
  if (!date.ok()) return {};
  const auto days = static_cast<double>(std::chrono::sys_days(date).time_since_epoch().count());
  if (text.size() == 10) return days;
  if (text[10] != 'T' && text[10] != 't' && text[10] != ' ') return {};
  const int hour = two_digits(text, 11), minute = two_digits(text, 14);
  if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || text[13] != ':') return {};
  std::size_t at = 16;
  double seconds = 0.0;
  if (at < text.size() && text[at] == ':') {
    const int whole = two_digits(text, at + 1);
    if (whole < 0 || whole > 60) return {};
    seconds = whole;
    at += 3;
    if (at < text.size() && text[at] == '.') {
      double unit = 0.1;
      for (++at; at < text.size() && is_digit(text[at]); ++at, unit *= 0.1) {
        seconds += unit * (text[at] - '0');
      }
    }
  }
  const auto offset = parse_offset(trimmed_view(text.substr(at)));
  if (!offset) return {};
  return days + (hour * 3600.0 + (minute - *offset) * 60.0 + seconds) / 86400.0;
}

std::optional<double> parse_cell(std::string_view text, Reading reading, const TextFormat& format) {
  text = trimmed_view(text);
  if (reading == Reading::date) return parse_date(text);
  if (reading == Reading::percent) {
    if (!text.ends_with('%')) return {};
    text.remove_suffix(1);
  }
  return parse_number(text, format);
}

bool is_missing(std::string_view text, const TextFormat& format) {
  text = trimmed_view(text);
  if (text.empty()) return true;
  if (format.missing_marks) {
    return std::ranges::find(*format.missing_marks, text) != format.missing_marks->end();
  }
  if (text.size() > 4) return false;
  const std::string mark = lower_case(text);
  return mark == "na" || mark == "n/a" || mark == "nan" || mark == "null" || mark == "none" ||
         mark == "?";
}

namespace {

/// Returns true for text such as "0x1f".
bool is_hexadecimal(std::string_view text) {
  return text.size() > 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X') &&
         text.find_first_not_of("0123456789abcdefABCDEF", 2) == std::string_view::npos;
}

/// Returns true for text such as "e5" or "E-03".
bool is_exponent(std::string_view text) {
  if (text.front() != 'e' && text.front() != 'E') return false;
  text.remove_prefix(1);
  if (!text.empty() && (text.front() == '+' || text.front() == '-')) text.remove_prefix(1);
  return !text.empty() && text.size() <= 4 && std::ranges::all_of(text, is_digit);
}

/// Returns true for text that contains digits and the name of a month (whole or its first three
/// letters), and no words that a date does not have: "31 May 2024", "Fri, Oct 3rd 10:30 am".
bool names_month(std::string_view text) {
  static constexpr std::array<std::string_view, 12> months = {
      "january", "february", "march",     "april",   "may",      "june",
      "july",    "august",   "september", "october", "november", "december"};
  static constexpr std::array<std::string_view, 17> others = {
      "st",  "nd",  "rd",  "th",  "of",  "at",  "am",  "pm", "utc",
      "mon", "tue", "wed", "thu", "fri", "sat", "sun", "z"};
  const std::string folded = lower_case(text);
  bool digits = false, month = false;
  for (std::size_t at = 0; at < folded.size();) {
    std::size_t end = at;
    while (end < folded.size() && folded[end] >= 'a' && folded[end] <= 'z') ++end;
    if (end == at) {
      const char c = folded[at++];
      if ((c & 0x80) != 0) return false;
      digits = digits || is_digit(c);
      continue;
    }
    const std::string_view word = std::string_view(folded).substr(at, end - at);
    at = end;
    const bool named = word.size() >= 3 && std::ranges::any_of(months, [&](std::string_view name) {
                         return name == word || name.substr(0, 3) == word;
                       });
    month = month || named;
    if (!named && std::ranges::find(others, word) == others.end()) return false;
  }
  return month && digits;
}

}  // namespace

bool resembles_number(std::string_view text) {
  text = trimmed_view(text);
  for (const std::string_view sign : {"$", "€", "£", "¥"}) {
    if (text.starts_with(sign)) text = trimmed_view(text.substr(sign.size()));
    if (text.ends_with(sign)) text = trimmed_view(text.substr(0, text.size() - sign.size()));
  }
  if (text.ends_with('%')) text = trimmed_view(text.substr(0, text.size() - 1));
  for (const std::string_view sign : {"+", "-", "\xe2\x88\x92", "\xe2\x80\x93"}) {  // minus, dash
    if (!text.starts_with(sign)) continue;
    text.remove_prefix(sign.size());
    break;
  }
  if (is_hexadecimal(text)) return true;
  if (text.empty() || (!is_digit(text.front()) && text.front() != ',' && text.front() != '.')) {
    return false;
  }
  bool digits = false;
  while (!text.empty()) {
    if (is_digit(text.front())) {
      digits = true;
    } else if (digits && is_exponent(text)) {
      return true;
    } else if (text.starts_with("\xc2\xa0")) {  // no-break space
      text.remove_prefix(1);
    } else if (text.starts_with("\xe2\x80\xaf")) {  // narrow no-break space
      text.remove_prefix(2);
    } else if (std::string_view(".,' ").find(text.front()) == std::string_view::npos) {
      return false;
    }
    text.remove_prefix(1);
  }
  return digits;
}

bool resembles_date(std::string_view text) {
  text = trimmed_view(text);
  if (text.size() > 40) return false;
  if (names_month(text)) return true;
  // A date has three runs of digits with equal separators, one of them a year. A time has hours and
  // minutes.
  std::vector<std::size_t> runs;
  char separator = 0;
  std::size_t at = 0;
  while (at < text.size() && runs.size() < 3) {
    std::size_t digits = 0;
    while (at < text.size() && is_digit(text[at])) ++digits, ++at;
    if (digits == 0 || digits > 4) return false;
    runs.push_back(digits);
    if (at == text.size() || runs.size() == 3) break;
    if (std::string_view("-/.:").find(text[at]) == std::string_view::npos) break;
    if (separator != 0 && text[at] != separator) break;
    separator = text[at++];
  }
  // A year and a month may stand in either order: "2024-05", "5/2024".
  if (at == text.size() && runs.size() == 2 && (separator == '-' || separator == '/')) {
    return (runs[0] == 4 && runs[1] == 2) || (runs[0] <= 2 && runs[1] == 4);
  }
  if (separator == ':') return runs.size() >= 2 && runs[0] <= 2 && runs[1] == 2;
  return runs.size() == 3 && runs[1] <= 2 &&
         ((runs[0] == 4 && runs[2] <= 2) ||
          (runs[0] <= 2 && (runs[2] == 4 || (runs[2] == 2 && separator != '.'))));
}

std::string advice_for(std::string_view cell, std::string_view name) {
  if (resembles_date(cell)) {
    return fmt::format("--date {0} (dates such as 2024-05-31), --categorical {0} or --ignore {0}",
                       name);
  }
  if (resembles_number(cell)) {
    return fmt::format(
        "--decimal , or --thousands , for another notation, --categorical {0} or "
        "--ignore {0}",
        name);
  }
  return fmt::format(
      "--categorical {0} or --ignore {0}, or --missing-marks where this means "
      "that a value is missing",
      name);
}

namespace {

/// Returns one text per number. -0 and 0 have the same text.
std::string number_key(double number) {
  return fmt::format("{}", number + 0.0);
}

}  // namespace

NameIndex::NameIndex(const std::vector<std::string>& names)
    : numeric_(!names.empty() && std::ranges::all_of(names, [](const std::string& name) {
        return parse_number(name).has_value();
      })) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    index_.emplace(numeric_ ? number_key(*parse_number(names[i])) : names[i], i);
  }
}

std::optional<std::size_t> NameIndex::find(std::string_view name, const TextFormat& format) const {
  std::string key(trimmed_view(name));
  if (numeric_) {
    auto number = parse_number(key, format);
    if (!number) number = parse_number(key);
    if (number) key = number_key(*number);
  }
  const auto found = index_.find(key);
  if (found == index_.end()) return {};
  return found->second;
}

std::vector<std::string> distinct_names(
    const std::vector<std::string>& cells, const TextFormat& format,
    std::optional<std::pair<std::string, std::string>>* merged) {
  std::vector<std::string> names;
  std::unordered_map<std::string, std::size_t> seen;
  bool numeric = true;
  for (const std::string& cell : cells) {
    if (!seen.emplace(cell, names.size()).second) continue;
    names.push_back(cell);
    numeric = numeric && parse_number(cell, format).has_value();
  }
  if (!numeric) {
    std::ranges::sort(names);
    return names;
  }
  const auto value = [&](const std::string& name) { return *parse_number(name, format); };
  std::ranges::stable_sort(names, {}, value);
  std::vector<std::string> out;
  for (std::string& name : names) {
    if (!out.empty() && value(out.back()) == value(name)) {
      if (merged != nullptr && !*merged) *merged = {out.back(), name};
      continue;
    }
    out.push_back(std::move(name));
  }
  // Stored names are plain numbers, so that they can be read without the table's notation.
  if (format.decimal != '.' || !format.thousands.empty()) {
    for (std::string& name : out) name = fmt::format("{}", value(name));
  }
  return out;
}

std::optional<std::size_t> Table::find(std::string_view name) const {
  for (std::size_t c = 0; c < columns.size(); ++c) {
    if (columns[c].name == name) return c;
  }
  return {};
}

std::string Table::column_names() const {
  std::string names;
  for (const Column& column : columns) {
    if (names.size() > 200) return names + ", ...";
    names += (names.empty() ? "" : ", ") + column.name;
  }
  return names;
}

std::size_t Table::require(std::string_view name, std::string_view key) const {
  if (const auto index = find(name)) return *index;
  throw Error(fmt::format("{}: no column '{}' ({}); its columns are: {}", origin, name, key,
                          column_names()));
}

std::string Table::location(std::size_t row) const {
  return fmt::format("{}, {} {}", origin, unit, lines.empty() ? row : lines[row]);
}

std::string Table::cell(std::size_t column, std::size_t row) const {
  const Column& cells = columns[column];
  return cells.numeric ? fmt::format("{}", cells.numbers[row])
                       : std::string(trimmed_view(cells.text[row]));
}

bool Table::missing(std::size_t column, std::size_t row) const {
  const Column& cells = columns[column];
  return cells.numeric ? std::isnan(cells.numbers[row]) : is_missing(cells.text[row], format);
}

std::optional<double> Table::value(std::size_t column, std::size_t row, Reading reading) const {
  const Column& cells = columns[column];
  if (cells.numeric) return cells.numbers[row];
  return parse_cell(cells.text[row], reading, format);
}

double Table::number(std::size_t column, std::size_t row, Reading reading) const {
  const Column& cells = columns[column];
  const std::optional<double> parsed = value(column, row, reading);
  if (!parsed) {
    throw Error(fmt::format(
        "{}: column '{}' holds '{}'; expected {}{}", location(row), cells.name, cell(column, row),
        reading == Reading::percent ? "a percentage such as 12%"
        : reading == Reading::date  ? "a date such as 2024-05-31 or 2024-05-31T12:00:00"
        : format.decimal == '.'     ? "a number"
                                    : "a number with a decimal comma",
        reading == Reading::number && resembles_number(cells.text[row])
            ? " (--decimal and --thousands read another notation)"
            : ""));
  }
  if (!std::isfinite(*parsed) || std::abs(*parsed) > std::numeric_limits<float>::max()) {
    throw Error(fmt::format("{}: column '{}' holds {}; expected a finite number", location(row),
                            cells.name, *parsed));
  }
  return *parsed;
}

}  // namespace kshot::io
