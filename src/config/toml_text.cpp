#include "config/toml_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>
#include <vector>

#include "config/characters.h"
#include "io/table.h"
#include "kshot/error.h"

namespace kshot {
namespace {

/// Thrown for a text with a character that must not reach the parser.
struct StrayCharacter : BrokenToml {
  explicit StrayCharacter(std::size_t at) : line(at) {}
  std::size_t line;  ///< from 1
};

/// Returns the line, from 1, at which a text breaks an assertion of the parser. The parser does not
/// name the line, so that this is the last line of the shortest beginning that breaks the
/// assertion.
std::size_t broken_line(std::string_view text) {
  std::vector<std::size_t> ends;  // ends of the lines
  for (std::size_t at = 0; at < text.size();) {
    at = std::min(text.find('\n', at), text.size() - 1) + 1;
    ends.push_back(at);
  }
  const auto breaks = [&](std::size_t lines) {
    try {
      static_cast<void>(toml::parse(text.substr(0, ends[lines - 1])));
      return false;
    } catch (const toml::parse_error&) {
      return false;
    } catch (const BrokenToml&) {
      return true;
    }
  };
  // Bisection: the whole text breaks the assertion, and an empty text does not.
  std::size_t whole = 0, broken = ends.size();
  while (broken - whole > 1) {
    const std::size_t middle = whole + (broken - whole) / 2;
    (breaks(middle) ? broken : whole) = middle;
  }
  return broken;
}

}  // namespace

void refuse_broken_toml() {
  throw BrokenToml();
}

std::string one_line(std::string_view text) {
  std::string result(io::trimmed_view(text));
  std::ranges::replace(result, '\n', ' ');
  return result;
}

toml::table parse_toml(std::string_view text) {
  if (const std::size_t line = line_of_stray_character(text); line > 0) throw StrayCharacter(line);
  return toml::parse(text);
}

toml::table read_toml(const std::string& text, const std::string& origin) {
  try {
    return parse_toml(text);
  } catch (const StrayCharacter& stray) {
    throw Error(
        fmt::format("{}:{}: not TOML: a character outside ASCII stands outside of quotes and "
                    "comments",
                    origin, stray.line));
  } catch (const toml::parse_error& error) {
    throw Error(fmt::format("{}:{}: not TOML: {}", origin, error.source().begin.line,
                            one_line(error.description())));
  } catch (const BrokenToml&) {
    throw Error(fmt::format("{}:{}: not TOML: expected KEY = VALUE, with a complete value", origin,
                            broken_line(text)));
  }
}

std::string read_toml_file(const std::filesystem::path& file) {
  std::error_code code;
  if (std::filesystem::is_directory(file, code)) {
    throw Error(fmt::format("{}: a folder, expected a TOML file", file.string()));
  }
  std::ifstream stream(file, std::ios::binary);
  // The limit is above the length of any configuration. It is needed because a device such as
  // /dev/zero has no end.
  constexpr std::size_t longest = std::size_t{1} << 24;
  std::string text(stream ? longest + 1 : 0, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!stream.eof() && stream.gcount() == static_cast<std::streamsize>(text.size()) &&
      !text.empty()) {
    throw Error(
        fmt::format("{}: more than {} bytes; expected a TOML file", file.string(), longest));
  }
  if (!stream.eof()) {
    throw Error(
        fmt::format("{}: cannot read the configuration: {}", file.string(), std::strerror(errno)));
  }
  text.resize(static_cast<std::size_t>(stream.gcount()));
  return text;
}

}  // namespace kshot
