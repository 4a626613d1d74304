// A score with its interval as text, for the tables of all kinds of evaluations.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <string>

#include "kshot/evaluator.h"

namespace kshot {

/// "0.0213 [0.0187, 0.0240]", here with 4 digits after the point. Only the value where there is no
/// interval.
inline std::string interval_text(const IntervalScore& s, int digits) {
  return std::isfinite(s.low) && std::isfinite(s.high)
             ? fmt::format("{:.{}f} [{:.{}f}, {:.{}f}]", s.value, digits, s.low, digits, s.high,
                           digits)
             : fmt::format("{:.{}f}", s.value, digits);
}

}  // namespace kshot
