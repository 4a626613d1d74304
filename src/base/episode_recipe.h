// Describes in numbers how the library's own sources draw their tasks, for a backend that draws the
// tasks on its device (Backend::place). Such a backend gives the same bits as EpisodeSource::fill.
// The random streams are those of base/episode_stream.h.
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
/// replacement. Part n + 1 draws shots + queries examples of class n, the query examples first
/// (episodes/sample.h). Rows are sorted by class and labelled 0, ..., ways - 1.
struct ClassRecipe {
  enum class Element {
    u8,  ///< converted by stored_number (base/episode_arithmetic.h)
    f32
  };
  /// Rows [first, first + rows) of `stored`.
  struct Group {
    std::uint64_t first = 0;
    std::uint32_t rows = 0;
  };
  int ways = 0, shots = 0, queries = 0;  ///< shots and queries are per class
  std::size_t features = 0;              ///< per row
  Element element = Element::f32;
  std::span<const std::byte> stored;  ///< [rows, features]; must live as long as the source
  /// Must be called after `stored` was copied. Throws Error where the data were damaged meanwhile.
  std::function<void()> check_stored;
  std::array<std::vector<Group>, 3> groups;  ///< one list per Split
  bool unit_length = false;                  ///< each row is multiplied by unit_length_factor
};

struct EpisodeRecipe {
  TaskShape shape;
  std::variant<SinusoidOptions, ClassRecipe> method;  ///< how the tasks are drawn
};

/// The factor that scales a row to unit length. It is 1 for a row of zeros.
inline float unit_length_factor(std::span<const float> row) {
  double sum = 0.0;
  for (const float x : row) sum += static_cast<double>(x) * static_cast<double>(x);
  return sum == 0.0 ? 1.0f : static_cast<float>(1.0 / std::sqrt(sum));
}

}  // namespace kshot
