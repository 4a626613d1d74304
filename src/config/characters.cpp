#include "config/characters.h"

#include <algorithm>
#include <string>

namespace kshot {
namespace {

/// Returns the position after the last quote of the string that begins at `at`; npos for a string
/// without an end.
std::size_t end_of_string(std::string_view text, std::size_t at) {
  const char quote = text[at];
  const std::string three(3, quote);
  const bool lines = text.substr(at, 3) == three;
  for (at += lines ? 3 : 1; at < text.size(); ++at) {
    if (quote == '"' && text[at] == '\\') {
      ++at;
    } else if (!lines && text[at] == '\n') {
      return std::string_view::npos;
    } else if (lines && text.substr(at, 3) == three) {
      // The string may itself end in one or two quotes.
      at += 3;
      for (int more = 0; more < 2 && at < text.size() && text[at] == quote; ++more) ++at;
      return at;
    } else if (!lines && text[at] == quote) {
      return at + 1;
    }
  }
  return std::string_view::npos;
}

}  // namespace

std::size_t line_of_stray_character(std::string_view text) {
  constexpr std::string_view mark = "\xEF\xBB\xBF";
  std::size_t at = text.starts_with(mark) ? mark.size() : 0;
  while (at < text.size()) {
    const char c = text[at];
    if (static_cast<unsigned char>(c) >= 0x80) {
      const auto before = text.substr(0, at);
      return 1 + static_cast<std::size_t>(std::ranges::count(before, '\n'));
    }
    if (c == '#') {
      at = std::min(text.find('\n', at), text.size());
    } else if (c == '"' || c == '\'') {
      at = end_of_string(text, at);
      if (at == std::string_view::npos) return 0;
    } else {
      ++at;
    }
  }
  return 0;
}

}  // namespace kshot
