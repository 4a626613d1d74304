// Episodes drawn on the device (episodes.cu): the bits that EpisodeSource::fill gives on the host.
// Pointers are device memory; templates are instantiated for float and double.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/episode_arithmetic.h"
#include "kernels/runtime.h"
#include "kshot/random.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// A set's arrays of a wave, [tasks, rows of the set, ...]; null: not wanted.
template <class T>
struct EpisodeSet {
  T* x = nullptr;                  ///< [tasks, rows, features]
  T* values = nullptr;             ///< [tasks, rows]: sinusoids
  std::int32_t* labels = nullptr;  ///< [tasks, rows]: classes
  std::int32_t* counts = nullptr;  ///< [tasks]: own rows, which are all
};

/// Where the tasks of a wave go. `all` holds a task's support rows and then its query rows.
template <class T>
struct EpisodeArrays {
  int tasks = 0, support = 0, query = 0;  ///< rows of a task
  EpisodeSet<T> of_support, of_query, of_all;
};

/// Rows [first, first + rows) of the stored ones.
struct RowGroup {
  std::uint32_t first = 0;
  std::uint32_t rows = 0;
};

/// N-way K-shot episodes (ClassRecipe in src/base/episode_recipe.h).
struct ClassDraw {
  const RowGroup* groups = nullptr;  ///< [group_count], each of shots + queries rows at least
  std::uint32_t group_count = 0;     ///< at least `ways`
  int ways = 0, shots = 0, queries = 0;
};
/// Largest ways, and largest shots + queries, that a block has room for.
constexpr int most_places = 12288;

/// stored_row[t, r] = the stored row that row r of task t is, support rows first; writes the sets'
/// labels and counts. Task t has `key`'s stream with key.task + t, whose parts are key.sample.
template <class T>
void draw_classes(std::uint32_t* stored_row, const EpisodeArrays<T>& to, const ClassDraw& draw,
                  const RandomKey& key, cudaStream_t stream);

/// x of the sets from stored rows [n, features]: U = float, or std::uint8_t (stored_number); times
/// factor[stored row] where there is one.
template <class T, class U>
void gather_rows(const EpisodeArrays<T>& to, const U* stored, const float* factor,
                 const std::uint32_t* stored_row, int features, cudaStream_t stream);

/// Sinusoids and lines: x, values and counts of the sets, by the same key.
template <class T>
void draw_sinusoids(const EpisodeArrays<T>& to, const SinusoidRanges& ranges, const RandomKey& key,
                    cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
