// How the library's own sources draw their tasks, in plain numbers: for a backend that draws them
// where it computes (Backend::place). What such a backend gives is what EpisodeSource::fill gives,
// bit for bit; the streams are those of base/episode_stream.h.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <variant>
#include <vector>

#include "kshot/episode.h"

namespace kshot {

/// N-way K-shot episodes. Part 0 of a task's stream draws `ways` of a split's groups without
/// replacement, part n + 1 draws shots + queries examples of class n, those of the query set first
/// (episodes/sample.h). Rows stand class by class, labelled 0, ..., ways - 1.
struct ClassRecipe {
  enum class Element {
    u8,  ///< stored_number of each (base/episode_arithmetic.h)
    f32
  };
  /// Rows [first, first + rows) of `stored`.
  struct Group {
    std::uint64_t first = 0;
    std::uint32_t rows = 0;
  };
  int ways = 0, shots = 0, queries = 0;  ///< shots and queries: of a class
  std::size_t features = 0;              ///< of a row
  Element element = Element::f32;
  std::span<const std::byte> stored;  ///< [rows, features]; lives as long as the source
  /// To be called once `stored` was copied: throws Error where it was damaged meanwhile.
  std::function<void()> check_stored;
  std::array<std::vector<Group>, 3> groups;  ///< of each Split
  bool unit_length = false;                  ///< each row times unit_length_factor
};

struct EpisodeRecipe {
  TaskShape shape;
  std::variant<SinusoidOptions, ClassRecipe> how;
};

/// What scales a row to unit length; 1 for zeros.
inline float unit_length_factor(std::span<const float> row) {
  double sum = 0.0;
  for (const float x : row) sum += static_cast<double>(x) * static_cast<double>(x);
  return sum == 0.0 ? 1.0f : static_cast<float>(1.0 / std::sqrt(sum));
}

}  // namespace kshot
