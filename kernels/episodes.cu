// Episodes on the device (episodes.h): drawing them, and gathering their inputs from stored rows.
//
// Mathematics    Drawing without replacement is Fisher-Yates, stopped after `count` places: draw i
//                swaps places i and j_i = i + below(n - i). The value that draw i finds at j_i
//                follows from j_0, ..., j_{i-1} alone. Going back from s = i - 1: if j_s is the
//                place in question, it holds what was at place s before. So no list of n places is
//                needed. below(n - i) takes word i of the stream. The exception is a word that must
//                be drawn again (probability n / 2^32), after which all later words are shifted.
//                Sinusoids: base/episode_arithmetic.h, whose operations no compiler may contract.
// Layout         [tasks, rows, ...]; stored_row [tasks, support + query], support rows first.
// Who does what  draw_classes: a block of one warp takes one class of a task. A lane takes one
//                example: one word, and the walk back over the draws before it, which lie in shared
//                memory. The block also draws the task's classes before its own. gather_rows:
//                by_task, a thread takes four elements of one task's rows, and neighbouring threads
//                take neighbouring elements. draw_sinusoids: by_task, a thread takes one point, for
//                which it draws its task's numbers again.
// Outputs        Overwritten.
// Bytes          draw_classes: 8 (12) bytes written per example for label and row. gather_rows:
//                reads a stored element (1 or 4 bytes) and writes it once, or twice if there is a
//                set of all rows. draw_sinusoids: 8 (16) bytes written per point.
// Operations     draw_classes: one Philox (60 integer operations) per example and class.
//                draw_sinusoids: two to five per point, and about 40 operations for the value.
#include "kernels/episodes.h"

#include <algorithm>

#include "kernels/passes.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

/// Calls put(set, index of the row in the set's arrays) for both places of row r of a task.
template <class T, class Put>
__device__ void for_places(const EpisodeArrays<T>& to, int task, int r, const Put& put) {
  const auto row = [task](int rows, int i) {
    return static_cast<std::size_t>(task) * static_cast<std::size_t>(rows) +
           static_cast<std::size_t>(i);
  };
  if (r < to.support) {
    put(to.of_support, row(to.support, r));
  } else {
    put(to.of_query, row(to.query, r - to.support));
  }
  put(to.of_all, row(to.support + to.query, r));
}

template <class T>
__device__ void put_counts(const EpisodeArrays<T>& to, int task) {
  to.of_support.counts[task] = to.support;
  to.of_query.counts[task] = to.query;
  to.of_all.counts[task] = to.support + to.query;
}

// ---- classes ----

/// places[i] = i + below(n - i) for i < count, by all lanes of a warp.
__device__ inline void draw_places(std::uint32_t* places, std::uint32_t n, std::uint32_t count,
                                   const RandomKey& key) {
  const std::uint32_t lane = threadIdx.x;
  int again = 0;
  __syncwarp();  // all lanes have read the places of the last call
  for (std::uint32_t i = lane; i < count; i += warp_lanes) {
    const Below drawn = below_of(stream_word(key, i), n - i);
    if (drawn.again) again = 1;
    places[i] = i + drawn.value;
  }
  __syncwarp();
  if (__any_sync(all_lanes, again) == 0) return;
  if (lane == 0) {
    RandomStream stream(key);
    for (std::uint32_t i = 0; i < count; ++i) places[i] = i + stream.below(n - i);
  }
  __syncwarp();
}

/// The number that draw i finds.
__device__ inline std::uint32_t drawn(const std::uint32_t* places, std::uint32_t i) {
  std::uint32_t place = places[i];
  for (std::uint32_t s = i; s-- > 0;) {
    if (places[s] == place) place = s;
  }
  return place;
}

template <class T>
__global__ void __launch_bounds__(warp_lanes)
    draw_classes_kernel(std::uint32_t* stored_row, EpisodeArrays<T> to, ClassDraw draw,
                        RandomKey key) {
  const int task = static_cast<int>(blockIdx.x) / draw.ways;
  const int n = static_cast<int>(blockIdx.x) - task * draw.ways;
  const int lane = static_cast<int>(threadIdx.x), count = draw.shots + draw.queries;
  DynamicShared shared;
  auto* places = shared.take<std::uint32_t>(static_cast<unsigned>(max(draw.ways, count)));
  key.task += static_cast<std::uint32_t>(task);
  // the class
  key.sample = 0;
  const auto chosen = static_cast<std::uint32_t>(n);
  draw_places(places, draw.group_count, chosen + 1, key);
  const RowGroup group = draw.groups[drawn(places, chosen)];
  // its examples
  key.sample = chosen + 1;
  draw_places(places, group.rows, static_cast<std::uint32_t>(count), key);
  // their rows
  for (int i = lane; i < count; i += warp_lanes) {
    // Query examples are drawn first, but support rows are stored first.
    const int r =
        i < draw.queries ? to.support + n * draw.queries + i : n * draw.shots + i - draw.queries;
    const std::size_t at =
        static_cast<std::size_t>(task) * static_cast<std::size_t>(to.support + to.query) +
        static_cast<std::size_t>(r);
    stored_row[at] = group.first + drawn(places, static_cast<std::uint32_t>(i));
    for_places(to, task, r, [n](const EpisodeSet<T>& set, std::size_t row) {
      if (set.labels) set.labels[row] = n;
    });
  }
  if (n == 0 && lane == 0) put_counts(to, task);
}

template <class T, class U>
struct Gather {
  EpisodeArrays<T> to;
  const U* stored;
  const float* factor;
  const std::uint32_t* stored_row;
  int features;
  __device__ void operator()(int task, int i, std::size_t) const {
    const int r = i / features, f = i - r * features;
    const std::size_t from = stored_row[static_cast<std::size_t>(task) *
                                            static_cast<std::size_t>(to.support + to.query) +
                                        static_cast<std::size_t>(r)];
    const auto width = static_cast<std::size_t>(features), at = static_cast<std::size_t>(f);
    float x = number(stored[from * width + at]);
    if (factor) x *= factor[from];
    for_places(to, task, r, [=](const EpisodeSet<T>& set, std::size_t row) {
      if (set.x) set.x[row * width + at] = static_cast<T>(x);
    });
  }
  __device__ static float number(float x) { return x; }
  __device__ static float number(std::uint8_t x) { return stored_number(x); }
};

// ---- sinusoids ----

template <class T>
struct DrawSinusoid {
  EpisodeArrays<T> to;
  SinusoidRanges ranges;
  RandomKey key;
  __device__ void operator()(int task, int r, std::size_t) const {
    RandomKey of_task = key;
    of_task.task += static_cast<std::uint32_t>(task);
    of_task.sample = sinusoid_task;
    const SinusoidTask drawn = draw_sinusoid(ranges, RandomStream(of_task));
    const bool support = r < to.support;
    const std::uint32_t part = support ? sinusoid_support : sinusoid_query;
    const auto i = static_cast<std::uint32_t>(support ? r : r - to.support);
    of_task.sample = part;
    const float x = product_sum(ranges.x_high - ranges.x_low, uniform_of(stream_word(of_task, i)),
                                ranges.x_low);
    float y = drawn.line ? drawn.line_at(x) : drawn.wave_at(x);
    if (ranges.noise_std > 0.0f) {
      of_task.sample = part + sinusoid_noise;
      y = product_sum(ranges.noise_std, stream_normal(of_task, i), y);
    }
    for_places(to, task, r, [=](const EpisodeSet<T>& set, std::size_t row) {
      if (!set.x) return;
      set.x[row] = static_cast<T>(x);
      set.values[row] = static_cast<T>(y);
    });
    if (r == 0) put_counts(to, task);
  }
};

}  // namespace

template <class T>
void draw_classes(std::uint32_t* stored_row, const EpisodeArrays<T>& to, const ClassDraw& draw,
                  const RandomKey& key, cudaStream_t stream) {
  if (to.tasks == 0) return;
  const auto places = static_cast<std::size_t>(std::max(draw.ways, draw.shots + draw.queries));
  launch<draw_classes_kernel<T>>(
      {.grid = static_cast<unsigned>(to.tasks) * static_cast<unsigned>(draw.ways),
       .block = warp_lanes,
       .shared_bytes = SharedSize().add<std::uint32_t>(places).bytes(),
       .stream = stream},
      stored_row, to, draw, key);
}

template <class T, class U>
void gather_rows(const EpisodeArrays<T>& to, const U* stored, const float* factor,
                 const std::uint32_t* stored_row, int features, cudaStream_t stream) {
  by_task(Gather<T, U>{to, stored, factor, stored_row, features},
          {to.tasks, (to.support + to.query) * features}, stream);
}

template <class T>
void draw_sinusoids(const EpisodeArrays<T>& to, const SinusoidRanges& ranges, const RandomKey& key,
                    cudaStream_t stream) {
  by_task(DrawSinusoid<T>{to, ranges, key}, {to.tasks, to.support + to.query}, stream);
}

#define KSHOT_INSTANTIATE(T)                                                                     \
  template void draw_classes(std::uint32_t*, const EpisodeArrays<T>&, const ClassDraw&,          \
                             const RandomKey&, cudaStream_t);                                    \
  template void gather_rows(const EpisodeArrays<T>&, const float*, const float*,                 \
                            const std::uint32_t*, int, cudaStream_t);                            \
  template void gather_rows(const EpisodeArrays<T>&, const std::uint8_t*, const float*,          \
                            const std::uint32_t*, int, cudaStream_t);                            \
  template void draw_sinusoids(const EpisodeArrays<T>&, const SinusoidRanges&, const RandomKey&, \
                               cudaStream_t)
KSHOT_INSTANTIATE(float);
KSHOT_INSTANTIATE(double);
#undef KSHOT_INSTANTIATE

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
