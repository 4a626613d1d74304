// Checks the rows of a classification for all measures.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "kshot/error.h"

namespace kshot::metrics {

/// Throws Error unless the probabilities are [rows, classes] and the labels of all rows are in
/// [0, classes). The caller checks the values of the probabilities.
inline void check_labelled_rows(std::span<const double> probabilities,
                                std::span<const std::int32_t> labels, std::size_t classes) {
  if (classes == 0 || probabilities.size() != labels.size() * classes) {
    throw Error("classification metrics: " + std::to_string(probabilities.size()) +
                " probabilities, expected " + std::to_string(labels.size()) + " rows of " +
                std::to_string(classes));
  }
  for (const std::int32_t label : labels) {
    if (label < 0 || static_cast<std::size_t>(label) >= classes) {
      throw Error("classification metrics: label " + std::to_string(label) + ", expected 0 to " +
                  std::to_string(classes - 1));
    }
  }
}

}  // namespace kshot::metrics
