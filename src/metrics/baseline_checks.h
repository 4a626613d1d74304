// Checks the arguments of the baselines.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "kshot/error.h"

namespace kshot::metrics {

/// Returns the number of rows of `x`. Throws Error where the sizes do not fit or a number is not
/// finite.
inline std::size_t check_rows(std::span<const float> x, std::size_t dim, const char* what) {
  if (dim == 0 || x.empty() || x.size() % dim != 0) {
    throw Error(std::string("baseline: ") + what + " of " + std::to_string(x.size()) +
                " numbers, expected rows of " + std::to_string(dim));
  }
  for (float value : x) {
    if (!std::isfinite(value)) {
      throw Error(std::string("baseline: ") + what + " has a number that is not finite");
    }
  }
  return x.size() / dim;
}

inline void check_labels(std::span<const std::int32_t> labels, std::size_t rows,
                         std::size_t classes) {
  if (labels.size() != rows) {
    throw Error("baseline: " + std::to_string(labels.size()) + " labels, expected " +
                std::to_string(rows));
  }
  for (std::int32_t label : labels) {
    if (label < 0 || static_cast<std::size_t>(label) >= classes) {
      throw Error("baseline: label " + std::to_string(label) + ", expected 0 to " +
                  std::to_string(static_cast<long long>(classes) - 1));
    }
  }
}

}  // namespace kshot::metrics
