// Parses JSON from files, whose contents are not trusted, and writes numbers that JSON lacks.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

namespace kshot::io {

/// Returns true where lists and objects are nested more than `most` levels deep. Such text must not
/// be parsed, because values are copied and written by recursion.
inline bool nested_deeper(std::string_view text, int most) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > most) return true;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

constexpr int deepest_json = 64;

/// Calls Json::parse for text of at most `deepest_json` levels. Throws Json::exception for deeper
/// and for invalid text.
template <typename Json = nlohmann::json>
Json parse_json(std::string_view text) {
  if (nested_deeper(text, deepest_json)) {
    throw nlohmann::json::out_of_range::create(
        408, "more than " + std::to_string(deepest_json) + " levels of lists and objects", nullptr);
  }
  return Json::parse(text);
}

/// Returns the number, or null where it is not finite, because JSON has only finite numbers.
inline nlohmann::ordered_json number_json(double value) {
  return std::isfinite(value) ? nlohmann::ordered_json(value) : nullptr;
}
/// Returns the number that number_json wrote, and `otherwise` for null. Throws json::exception for
/// any other value.
inline double number_or(const nlohmann::json& value, double otherwise) {
  return value.is_null() ? otherwise : value.get<double>();
}
inline double number_or_nan(const nlohmann::json& value) {
  return number_or(value, std::numeric_limits<double>::quiet_NaN());
}

/// Returns a whole number within the range of T, where get<T>() would truncate other numbers
/// silently. Throws json::exception for any other value.
template <typename T>
T whole_number(const nlohmann::json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<std::uint64_t>();
    if (std::in_range<T>(number)) return static_cast<T>(number);
  } else if (value.is_number_integer()) {
    const auto number = value.get<std::int64_t>();
    if (std::in_range<T>(number)) return static_cast<T>(number);
  }
  throw nlohmann::json::out_of_range::create(
      406,
      "expected a whole number from " + std::to_string(std::numeric_limits<T>::min()) + " to " +
          std::to_string(std::numeric_limits<T>::max()) + ", found " + value.dump(),
      nullptr);
}

}  // namespace kshot::io
