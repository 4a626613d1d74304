// Checks of the values of command-line options, with messages that a user can read.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <string>

namespace kshot::cli {

/// Refuses a value that is not a number of at least `least` (greater than `least` where `above` is
/// set). CLI11's own checks would name a range up to the largest double in their messages.
inline CLI::Validator number_from(double least, bool above = false) {
  const auto check = [least, above](std::string& text) {
    double value = 0.0;
    const bool number = CLI::detail::lexical_cast(text, value);
    if (number && (above ? value > least : value >= least)) return std::string();
    return fmt::format("expected a number {} {}, got {}", above ? "above" : "of at least", least,
                       text);
  };
  return CLI::Validator(check, "");
}

/// Refuses a value that is not a number above 0 and below 1.
inline CLI::Validator share() {
  const auto check = [](std::string& text) {
    double value = 0.0;
    if (CLI::detail::lexical_cast(text, value) && value > 0.0 && value < 1.0) return std::string();
    return fmt::format("expected a number above 0 and below 1, got {}", text);
  };
  return CLI::Validator(check, "");
}

}  // namespace kshot::cli
