// Episodes drawn on the device (episodes.cu). They have the bits that EpisodeSource::fill gives on
// the host. Pointers are device memory. Templates are instantiated for float and double.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/episode_arithmetic.h"
#include "kernels/runtime.h"
#include "kshot/random.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// The arrays of one set of a wave, [tasks, rows of the set, ...]. Arrays that are null are not
/// written.
template <class T>
struct EpisodeSet {
  T* x = nullptr;                  ///< [tasks, rows, features]
  T* values = nullptr;             ///< [tasks, rows]; only sinusoids
  std::int32_t* labels = nullptr;  ///< [tasks, rows]; only classes
  std::int32_t* counts = nullptr;  ///< [tasks]: number of own rows, here always all
};

/// The arrays that receive the tasks of a wave. `of_all` holds a task's support rows and then its
/// query rows.
template <class T>
struct EpisodeArrays {
  int tasks = 0, support = 0, query = 0;  ///< support and query are numbers of rows per task
  EpisodeSet<T> of_support, of_query, of_all;
};

/// The stored rows [first, first + rows).
struct RowGroup {
  std::uint32_t first = 0;
  std::uint32_t rows = 0;
};

/// N-way K-shot episodes (ClassRecipe in src/base/episode_recipe.h).
struct ClassDraw {
  const RowGroup* groups = nullptr;  ///< [group_count], each with at least shots + queries rows
  std::uint32_t group_count = 0;     ///< at least `ways`
  int ways = 0, shots = 0, queries = 0;
};
/// The largest number of ways, and the largest shots + queries, that fit into a block's memory.
constexpr int most_places = 12288;

/// stored_row[t, r] = the stored row that becomes row r of task t, support rows first. Also writes
/// the labels and counts of the sets. Task t reads the streams of `key` with key.task + t. In them,
/// key.sample is 0 for the choice of classes and c + 1 for the examples of class c.
template <class T>
void draw_classes(std::uint32_t* stored_row, const EpisodeArrays<T>& to, const ClassDraw& draw,
                  const RandomKey& key, cudaStream_t stream);

/// Writes x of the sets from the stored rows [n, features]. U is float, or std::uint8_t, which
/// stored_number converts. If `factor` is given, a row is multiplied by factor[stored row].
template <class T, class U>
void gather_rows(const EpisodeArrays<T>& to, const U* stored, const float* factor,
                 const std::uint32_t* stored_row, int features, cudaStream_t stream);

/// Draws sinusoids and lines: writes x, values and counts of the sets, from the streams of `key`
/// with key.task + t.
template <class T>
void draw_sinusoids(const EpisodeArrays<T>& to, const SinusoidRanges& ranges, const RandomKey& key,
                    cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
