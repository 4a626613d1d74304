// TOML from files and from `--set`, which may hold anything. Whoever reads TOML includes this
// header and never toml++ itself: the parser asserts what some texts break ("seed = [}"), and where
// assertions are off it assumes it instead, so that such a text would be undefined behaviour. Here
// it is refused like any other malformed text.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace kshot {
/// A text that breaks an assertion of the parser.
struct BrokenToml {};
[[noreturn]] void refuse_broken_toml();
}  // namespace kshot

#undef NDEBUG
#define TOML_ASSERT(expr) ((expr) ? void() : kshot::refuse_broken_toml())
#include <toml++/toml.h>

namespace kshot {

/// The text of a message with blanks for line ends.
std::string one_line(std::string_view text);

/// Throws BrokenToml or toml::parse_error for what is not TOML.
toml::table parse_toml(std::string_view text);
/// Parses as parse_toml does. Throws Error, which begins with "origin:line", for what is not TOML.
toml::table read_toml(const std::string& text, const std::string& origin);
/// The text of a file. Throws Error for a folder and for a file that cannot be read or is longer
/// than any configuration.
std::string read_toml_file(const std::filesystem::path& file);

}  // namespace kshot
