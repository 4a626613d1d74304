// Characters of a TOML text that its parser must not see.
#pragma once

#include <cstddef>
#include <string_view>

namespace kshot {

/// The line, from 1, of the first byte outside ASCII that stands outside of strings and comments; 0
/// where there is none. TOML 1.0 has no use for such characters there, and toml++ 3 takes some of
/// them (U+00A1 to U+0499) for impossible, which is undefined behaviour. A byte order mark at the
/// beginning is allowed. Where a string does not end, what follows is left to the parser, which
/// refuses the text at that place.
std::size_t line_of_stray_character(std::string_view text);

}  // namespace kshot
