// Parses TOML from files and from `--set`, which may be any text. Code that reads TOML includes
// this header and never toml++ itself. The parser has assertions that some texts break ("seed =
// [}"), and such a text is undefined behaviour where assertions are off. With this header the text
// is refused like any other malformed text.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace kshot {
/// Thrown for a text that breaks an assertion of the parser.
struct BrokenToml {};
[[noreturn]] void refuse_broken_toml();
}  // namespace kshot

#undef NDEBUG
#define TOML_ASSERT(expr) ((expr) ? void() : kshot::refuse_broken_toml())
#include <toml++/toml.h>

namespace kshot {

/// Returns the text of a message with blanks in place of line ends.
std::string one_line(std::string_view text);

/// Parses a text. Throws BrokenToml or toml::parse_error for a text that is not TOML.
toml::table parse_toml(std::string_view text);
/// Parses a text. Throws Error, which begins with "origin:line", for a text that is not TOML.
toml::table read_toml(const std::string& text, const std::string& origin);
/// Returns the text of a file. Throws Error for a folder, and for a file that cannot be read or is
/// longer than any configuration.
std::string read_toml_file(const std::filesystem::path& file);

}  // namespace kshot
