// Finds characters of a TOML text that must not reach the parser.
#pragma once

#include <cstddef>
#include <string_view>

namespace kshot {

/// Returns the line, from 1, of the first byte outside ASCII that stands outside of strings and
/// comments; 0 where there is none. TOML 1.0 does not allow such characters there. toml++ 3 assumes
/// that some of them (U+00A1 to U+0499) cannot occur, so that they are undefined behaviour. A byte
/// order mark at the beginning is allowed. The search stops at a string without an end, because the
/// parser refuses the text at that place.
std::size_t line_of_stray_character(std::string_view text);

}  // namespace kshot
