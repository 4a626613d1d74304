// Handles text from outside (cells, names of files and classes) in messages, logs and documents.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "kshot/count_range.h"

namespace kshot {

/// Length in bytes, 1 to 4, of the UTF-8 character at the start of `text`, or 0 if there is none
/// (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF).
std::size_t utf8_length(std::string_view text);

/// Returns true if all of `text` is UTF-8.
bool is_utf8(std::string_view text);

/// `text` on one line and as UTF-8: line breaks and tabs become "\n", "\r" and "\t", other control
/// characters and bytes that are not UTF-8 become "\x1b" and the like. Everything else stays.
std::string printable(std::string_view text);

/// `text` with the letters A to Z in lower case. All other characters stay, in every locale.
std::string lower_case(std::string_view text);

/// A range of counts as text: "5" or "1 to 10".
std::string count_text(const CountRange& range);

}  // namespace kshot
