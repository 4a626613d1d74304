// UTF-8 text: names that are stored in files and printed must be it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace kshot {

/// Bytes of the well-formed character that `text` begins with; 0 where there is none.
std::size_t utf8_length(std::string_view text);
bool is_utf8(std::string_view text);
/// `text` with every byte that is not part of a well-formed character as "\xE9", and control
/// characters as "\x0A", so that it stays on one line.
std::string printable(std::string_view text);

}  // namespace kshot
