// Gradients of shared matrices as factors (factors.h).
//
// Mathematics    G_run = sum over the run's tasks that did not diverge, and over terms p, of
//                scale_p g_pt^T x_pt. The gradient of the bias is the same sum of scale_p g_pt^T 1,
//                over the terms that have a bias.
// Layout         Factors [task][row][width]; sums [run][width of the whole gradient].
// Who does what  keep_factors: a block of 256 threads takes one task, copies its factors and finds
//                their largest magnitudes. sum_factors: a block of 64 threads computes one tile of
//                one run (tile.h). Its depth is the run's 16 x rows rows, term after term, in 2 x
//                rows steps of 8 each. Rows of tasks that diverged or do not exist are read as
//                zero, so that a run always has the same shape. No sum is split, and none depends
//                on the number of runs. clear_columns: one thread per element; merge_diverged: one
//                thread per task.
// Outputs        keep_factors: copies are overwritten, diverged is accumulated. sum_factors:
//                overwritten or accumulated, as asked. clear_columns: overwritten.
// Bytes          keep_factors reads the factors and writes its copies, 0 FLOP per byte. sum_factors
//                reads the factors once from memory, and writes out x in scalars per 16 tasks. L2
//                serves g again to each tile of columns, and x to each tile of rows.
// Operations     2 rows out in FLOP per task and term. LEO on 640 features with L = 64, 5-way
//                1-shot, per task: the decoder's eleven terms are 9.0 MFLOP over 0.3 MB, 28 FLOP/B.
//                They are bound by arithmetic, at the share of the peak of product.cu.
#include "kernels/factors.h"

#include <limits>
#include <string>

#include "kernels/passes.h"
#include "kernels/reduction.h"
#include "kernels/tile.h"
#include "kshot/error.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

using tile::depth_step;
using tile::Loads;
using tile::Quad;
using tile::Sums;
using tile::tiles;

// ---- keeping factors ----

/// Returns the largest value of a block of `threads` (passes.h) to its thread 0. All threads must
/// call it.
template <class T>
__device__ T block_max(T value) {
  KSHOT_SHARED(T, of_warp, [threads / warp_lanes]);
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int lanes = warp_lanes / 2; lanes > 0; lanes /= 2) {
    const T other = __shfl_xor_sync(all_lanes, value, lanes);
    value = other > value ? other : value;
  }
  __syncthreads();  // every thread has read of_warp of the last call
  if (thread % warp_lanes == 0) of_warp[thread / warp_lanes] = value;
  __syncthreads();
  T most = value;
  for (int w = 0; thread == 0 && w < threads / warp_lanes; ++w) {
    most = of_warp[w] > most ? of_warp[w] : most;
  }
  return most;
}

/// Copies one factor of a task, and collects its largest magnitude and whether it has a bad number.
template <class T>
struct MagnitudeScan {
  T most = 0;
  bool bad = false;
  __device__ void take(T* to, const T* from, std::size_t count) {
    for (std::size_t i = threadIdx.x; i < count; i += threads) {
      const T value = from[i];
      if (to) to[i] = value;
      const T magnitude = value < T(0) ? -value : value;
      most = magnitude > most ? magnitude : most;
      // Zero times a number that is not finite is not zero.
      bad = bad || !(value * T(0) == T(0));
    }
  }
};

template <class T>
struct KeepFactors {
  std::int32_t* diverged;
  T* g;
  T* x;
  T largest;
  FactorPair<T> from;
  FactorSize size;
};

template <class T>
__global__ void __launch_bounds__(threads) keep_factors_kernel(KeepFactors<T> p) {
  const auto task = static_cast<std::size_t>(blockIdx.x);
  const auto rows = static_cast<std::size_t>(p.size.rows);
  const std::size_t of_g = rows * static_cast<std::size_t>(p.size.out),
                    of_x = rows * static_cast<std::size_t>(p.size.in);
  // copy, and find the largest magnitudes
  MagnitudeScan<T> g, x;
  g.take(p.g ? p.g + task * of_g : nullptr, p.from.g + task * of_g, of_g);
  x.take(p.x ? p.x + task * of_x : nullptr, p.from.x + task * of_x, of_x);
  const bool any = __syncthreads_or(g.bad || x.bad) != 0;
  const T most_g = block_max(g.most), most_x = block_max(x.most);
  if (threadIdx.x != 0) return;
  // The bound of a term's elements, and of the bias's with x = 1.
  const T scale = p.from.scale < T(0) ? -p.from.scale : p.from.scale;
  const T bound = static_cast<T>(p.size.rows) * scale * most_g * (most_x > T(1) ? most_x : T(1));
  if (any || !(bound < p.largest)) p.diverged[task] = 1;
}

struct MergeDiverged {
  std::int32_t* diverged;
  const std::int32_t* also;
  __device__ void operator()(std::size_t task) const {
    if (also[task] != 0) diverged[task] = 1;
  }
};

// ---- sums over runs ----

/// Divides numbers below 16 * rows by rows without a division instruction (exact for rows < 2^18).
struct DivideByRows {
  static constexpr int shift = 40;
  std::uint64_t reciprocal;
  explicit DivideByRows(int rows)
      : reciprocal((std::uint64_t{1} << shift) / static_cast<std::uint64_t>(rows) + 1) {}
  __device__ unsigned operator()(int k) const {
    return static_cast<unsigned>((static_cast<std::uint64_t>(k) * reciprocal) >> shift);
  }
};

template <class T, int M, int N>
__global__ void __launch_bounds__(tile::threads)
    sum_factors_kernel(FactorSums<T> p, DivideByRows task_of, int tiles_m, int tiles_n) {
  KSHOT_SHARED(Quad<T>, slice_a, [2][depth_step][M / 4 + 1]);
  KSHOT_SHARED(Quad<T>, slice_b, [2][depth_step][N / 4 + 1]);
  using LoadsA = Loads<M, false>;
  using LoadsB = Loads<N, false>;
  const int thread = static_cast<int>(threadIdx.x);
  int block = static_cast<int>(blockIdx.x);
  const int first_n = block % tiles_n * N;
  block /= tiles_n;
  const int first_m = block % tiles_m * M, run = block / tiles_m;

  // tasks that count
  unsigned counted = 0;  // one bit per task of the run
  for (int t = 0; t < run_tasks; ++t) {
    const int task = run * run_tasks + t;
    if (task < p.size.tasks && p.diverged[task] == 0) counted |= 1u << t;
  }
  const int out = p.size.out, in = p.size.in, depth = run_tasks * p.size.rows;
  const auto first_row = static_cast<std::size_t>(run) * static_cast<std::size_t>(depth);
  // loads of g and x, term after term
  const int steps_of_pair = depth / depth_step;
  int pair = 0, first_k = 0;  // place of the next load
  T next_a[LoadsA::count], next_b[LoadsB::count];
  const auto load = [&](int) {
    const T scale = p.pairs[pair].scale;
    const T* g = p.pairs[pair].g + first_row * static_cast<std::size_t>(out);
    const T* x = p.pairs[pair].x + first_row * static_cast<std::size_t>(in);
#pragma unroll
    for (int l = 0; l < LoadsA::count; ++l) {
      const int m = first_m + LoadsA::element(thread, l), k = first_k + LoadsA::depth(thread, l);
      const bool is_read = m < out && (counted >> task_of(k) & 1u) != 0;
      next_a[l] = is_read ? scale * g[static_cast<std::size_t>(k) * static_cast<std::size_t>(out) +
                                      static_cast<std::size_t>(m)]
                          : T(0);
    }
#pragma unroll
    for (int l = 0; l < LoadsB::count; ++l) {
      const int n = first_n + LoadsB::element(thread, l), k = first_k + LoadsB::depth(thread, l);
      const bool is_read = n < in && (counted >> task_of(k) & 1u) != 0;
      next_b[l] = is_read ? x[static_cast<std::size_t>(k) * static_cast<std::size_t>(in) +
                              static_cast<std::size_t>(n)]
                          : T(0);
    }
    first_k += depth_step;
    if (first_k == depth) {
      first_k = 0;
      ++pair;
    }
  };
  const auto store = [&](int step) {
    LoadsA::store(slice_a[step % 2], thread, next_a);
    LoadsB::store(slice_b[step % 2], thread, next_b);
  };

  // multiply
  const bool with_bias = p.bias_sums && first_n == 0;
  Sums<T, M, N> sums(thread);
  tile::walk(p.count * steps_of_pair, load, store, [&](int step) {
    if (with_bias && p.pairs[step / steps_of_pair].to_bias) {
      sums.template add<true>(slice_a[step % 2], slice_b[step % 2]);
    } else {
      sums.template add<false>(slice_a[step % 2], slice_b[step % 2]);
    }
  });

  // write the tile
  const bool has_bias = with_bias && sums.finish_row_sums();
  const std::size_t of_run = static_cast<std::size_t>(run) * p.stride;
#pragma unroll
  for (int i = 0; i < Sums<T, M, N>::rows; ++i) {
    const int m = first_m + sums.row(i);
    if (m >= out) continue;
    if (has_bias) {
      T& to = p.bias_sums[of_run + static_cast<std::size_t>(m)];
      to = p.accumulate ? to + sums.row_sum(i) : sums.row_sum(i);
    }
#pragma unroll
    for (int j = 0; j < Sums<T, M, N>::columns; ++j) {
      const int n = first_n + sums.column(j);
      if (n >= in) continue;
      T& to = p.sums[of_run + static_cast<std::size_t>(m) * p.row + static_cast<std::size_t>(n)];
      to = p.accumulate ? to + sums.v[i][j] : sums.v[i][j];
    }
  }
}

template <class T>
struct ClearColumns {
  T* sums;
  std::size_t stride, first;
  __device__ void operator()(int run, int i, std::size_t) const {
    sums[static_cast<std::size_t>(run) * stride + first + static_cast<std::size_t>(i)] = T(0);
  }
};

}  // namespace

template <class T>
void keep_factors(std::int32_t* diverged, T* g, T* x, const FactorPair<T>& from,
                  const FactorSize& size, cudaStream_t stream) {
  if (size.tasks == 0) return;
  launch<keep_factors_kernel<T>>(
      {.grid = static_cast<unsigned>(size.tasks), .block = threads, .stream = stream},
      KeepFactors<T>{diverged, g, x, std::numeric_limits<T>::max() / T(65536), from, size});
}

void merge_diverged(std::int32_t* diverged, const std::int32_t* also, int tasks,
                    cudaStream_t stream) {
  flat(MergeDiverged{diverged, also}, static_cast<std::size_t>(tasks), stream);
}

template <class T>
void sum_factors(const FactorSums<T>& p, cudaStream_t stream) {
  const int runs = (p.size.tasks + run_tasks - 1) / run_tasks;
  if (runs == 0 || p.size.out == 0 || p.size.in == 0) return;
  if (p.size.rows >= 1 << 18) {
    throw Error("gradient of " + std::to_string(p.size.rows) + " rows, expected fewer than 2^18");
  }
  FactorSums<T> checked = p;
  if (p.size.rows == 0) checked.count = 0;
  tile::with_tile<T>(p.size.out, p.size.in, [&](auto m, auto n) {
    constexpr int M = decltype(m)::value, N = decltype(n)::value;
    const int tiles_m = tiles(p.size.out, M), tiles_n = tiles(p.size.in, N);
    const long long blocks = 1LL * runs * tiles_m * tiles_n;
    if (blocks > std::numeric_limits<int>::max()) {
      throw Error("gradient of " + std::to_string(blocks) + " tiles, expected fewer than 2^31");
    }
    launch<sum_factors_kernel<T, M, N>>(
        {.grid = static_cast<unsigned>(blocks), .block = tile::threads, .stream = stream}, checked,
        DivideByRows(p.size.rows > 0 ? p.size.rows : 1), tiles_m, tiles_n);
  });
}

template <class T>
void clear_columns(T* sums, std::size_t stride, int runs, std::size_t first, std::size_t end,
                   cudaStream_t stream) {
  by_task(ClearColumns<T>{sums, stride, first}, {runs, static_cast<int>(end - first)}, stream);
}

#define KSHOT_INSTANTIATE(T)                                                                 \
  template void keep_factors(std::int32_t*, T*, T*, const FactorPair<T>&, const FactorSize&, \
                             cudaStream_t);                                                  \
  template void sum_factors(const FactorSums<T>&, cudaStream_t);                             \
  template void clear_columns(T*, std::size_t, int, std::size_t, std::size_t, cudaStream_t)
KSHOT_INSTANTIATE(float);
KSHOT_INSTANTIATE(double);
#undef KSHOT_INSTANTIATE

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
