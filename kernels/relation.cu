// A perceptron on all ordered pairs of a task's rows (relation.h).
//
// Mathematics    h_ij = relu(left_i + right_j),  y_ij = relu(W h_ij + b),  mean_i = 1/n sum_j y_ij.
//                With o_ij = [y_ij > 0], kept as bits, and g_i the gradient by mean_i:
//                  d_ij = o_ij g_i / n,  e_ij = [h_ij > 0] W^T d_ij,
//                  g_left_i = sum_j e_ij,  g_right_j = sum_i e_ij,
//                  g_W = sum_ij d_ij h_ij^T,  g_b = sum_ij d_ij.
// Layout         Features [task][row][width]; bits [task][i][j][word], outputs in ascending order.
// Who does what  The kernels are products one factor of which is computed while it is loaded
//                (tile.h), by blocks of 64 threads. pair_product (forward and input gradients): a
//                block takes the pairs of a few rows, its owners, with all their partners, and a
//                tile of columns. It computes the tiles of pairs one after another. The results of
//                a tile pass through shared memory, where one thread per column adds an owner's
//                partners in ascending order. g_right is the same with the second row of each pair
//                as owner. This takes one more product, but no sums across blocks. pair_outer
//                (weights): a block takes a tile of W, of one task or of a run of 16 tasks, and
//                goes through the pairs of one task after another. Groups, join_rows: passes by
//                task (passes.h), with rows in ascending order.
// Outputs        Overwritten; pairs_weight_gradient accumulates.
// Bytes          Per task: left, right and mean 3 n H scalars, W from L2, bits n^2 H / 8 bytes
//                (1/32 of the pairs' activations in float). Weight gradients: H^2 scalars read and
//                written per task, or written per run.
// Operations     2 n^2 H^2 forward, 6 n^2 H^2 backward. With H = 128, n = 5 takes 0.8 + 2.5 MFLOP,
//                and n = 25 takes 20 + 61 MFLOP over 0.2 MB: bound by arithmetic. n = 25 fills 50
//                of 64 pairs of a tile, and n = 5 fills 25 of 32. 0.58 to 0.60 (n = 25) and 0.45 to
//                0.52 (n = 5) of the inner loops' instructions are multiply-adds. So at most 0.46
//                and 0.38 of FP32's peak can be reached; 0.35 and 0.25 are expected.
#include "kernels/relation.h"

#include <algorithm>
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

constexpr int bits = 32;  // bits per word

__device__ inline std::size_t row_at(const RowExtent& rows, int task, int row) {
  return static_cast<std::size_t>(task) * static_cast<std::size_t>(rows.rows) +
         static_cast<std::size_t>(row);
}

template <class T>
__device__ const std::uint32_t* open_at(const Pairs<T>& pairs, int task, int i, int j) {
  return pairs.open + (row_at(pairs.rows, task, i) * static_cast<std::size_t>(pairs.rows.rows) +
                       static_cast<std::size_t>(j)) *
                          static_cast<std::size_t>(open_words(pairs.outputs));
}

__device__ inline bool bit_of(const std::uint32_t* words, int i) {
  return (words[i / bits] >> (i % bits) & 1u) != 0;
}

template <class T>
__device__ T relu(T x) {
  return x < T(0) ? T(0) : x;  // NaN is passed on
}

enum class PairPass { forward, left, right };  ///< left and right are gradients

/// out[task, owner, column] = 1/n times the sum over partners of a pair's result.
template <class T>
struct PairProduct {
  Pairs<T> pairs;
  const T* g_mean;  // only for the gradients
  T* out;
  int owners;  // owners per block
};

/// Number of blocks that share a multiprocessor's registers: as many as leave each thread enough
/// registers to avoid spills. (nvcc alone takes one more warp per scheduler, and spills.)
template <class T, int M, int N>
constexpr int blocks_per_multiprocessor() {
  if (M * N > 2048) return 4;
  return M * N > 1024 || sizeof(T) == 8 ? 6 : 10;
}

/// The place of a block in pair_product_kernel, and the phases of its work on a tile of M pairs.
template <class T, PairPass pass, int M, int N>
struct PairBlock {
  static constexpr bool forward = pass == PairPass::forward;
  using LoadsA = Loads<M, true>;
  using LoadsB = Loads<N, forward>;  // W^T in the forward pass, else W
  using TileSums = Sums<T, M, N>;

  const PairProduct<T>& p;
  const Pairs<T>& pairs;
  int thread, task, first_owner, first_n;
  int n;                           ///< number of the task's own rows
  const T *left, *right, *g_mean;  ///< those of the task; g_mean is null in the forward pass
  const std::uint32_t* open;

  __device__ PairBlock(const PairProduct<T>& product, int tiles_n, int owner_blocks)
      : p(product), pairs(product.pairs), thread(static_cast<int>(threadIdx.x)) {
    int block = static_cast<int>(blockIdx.x);
    first_n = block % tiles_n * N;
    block /= tiles_n;
    first_owner = block % owner_blocks * p.owners;
    task = block / owner_blocks;
    n = own_row_count(pairs.rows, task);
    const std::size_t first = row_at(pairs.rows, task, 0);
    left = pairs.left + first * static_cast<std::size_t>(pairs.inputs);
    right = pairs.right + first * static_cast<std::size_t>(pairs.inputs);
    g_mean = forward ? nullptr : p.g_mean + first * static_cast<std::size_t>(pairs.outputs);
    open = open_at(pairs, task, 0, 0);
  }
  __device__ int depth() const { return forward ? pairs.inputs : pairs.outputs; }
  __device__ int width() const { return forward ? pairs.outputs : pairs.inputs; }
  /// The column of `out` that this thread sums. sums_up() tells if there is one.
  __device__ int column() const { return first_n + thread; }
  __device__ bool sums_up() const { return thread < N && column() < width(); }
  __device__ T& out(int owner) const {
    return p.out[row_at(pairs.rows, task, owner) * static_cast<std::size_t>(width()) +
                 static_cast<std::size_t>(column())];
  }
  __device__ int last_owner() const { return min(first_owner + p.owners, pairs.rows.rows); }
  /// Number of pairs of the block's owners.
  __device__ int count() const { return (min(last_owner(), n) - first_owner) * n; }

  /// Sets out = 0 for owners beyond the task's own rows.
  __device__ void clear_absent_owners() const {
    for (int owner = max(first_owner, n); owner < last_owner(); ++owner) {
      if (sums_up()) out(owner) = T(0);
    }
  }
  /// Writes the rows of the tile's pairs, which begin with pair `first` of the block. Rows of pairs
  /// that do not exist are -1.
  __device__ void name_rows(int first, int (&row_i)[M], int (&row_j)[M]) const {
    for (int m = thread; m < M; m += tile::threads) {
      const int pair = first + m;
      const int of_owner = first_owner + pair / n, of_partner = pair % n;
      const bool is_real = pair < count();
      row_i[m] = is_real ? (pass == PairPass::right ? of_partner : of_owner) : -1;
      row_j[m] = is_real ? (pass == PairPass::right ? of_owner : of_partner) : -1;
    }
  }
  /// Computes this thread's part of a slice of the pairs' factor.
  __device__ void load_pairs(T (&next)[LoadsA::count], int first_k, const int (&row_i)[M],
                             const int (&row_j)[M]) const {
#pragma unroll
    for (int l = 0; l < LoadsA::count; ++l) {
      const int m = LoadsA::element(thread, l), k = first_k + LoadsA::depth(thread, l);
      const int i = row_i[m], j = row_j[m];
      next[l] = T(0);
      if (i < 0 || k >= depth()) continue;
      if constexpr (forward) {
        next[l] = relu(left[i * depth() + k] + right[j * depth() + k]);
      } else if (bit_of(open + (i * pairs.rows.rows + j) * open_words(pairs.outputs), k)) {
        next[l] = g_mean[i * depth() + k];
      }
    }
  }
  /// Loads this thread's part of a slice of W.
  __device__ void load_weights(T (&next)[LoadsB::count], int first_k) const {
#pragma unroll
    for (int l = 0; l < LoadsB::count; ++l) {
      const int c = first_n + LoadsB::element(thread, l), k = first_k + LoadsB::depth(thread, l);
      next[l] = T(0);
      if (c < width() && k < depth()) {
        next[l] = pairs.weight[forward ? c * depth() + k : k * width() + c];
      }
    }
  }
  /// Writes the sums of a tile to shared memory.
  __device__ void keep_result(T (&result)[M][N + 1], const TileSums& sums) const {
#pragma unroll
    for (int x = 0; x < TileSums::rows; ++x) {
#pragma unroll
      for (int y = 0; y < TileSums::columns; ++y) {
        result[sums.row(x)][sums.column(y)] = sums.v[x][y];
      }
    }
  }
  /// Returns the term that the pair (i, j) adds to its owner's sum in this thread's column.
  __device__ T term(T value, T shift, int i, int j) const {
    if constexpr (forward) return relu(value + shift);
    return left[i * width() + column()] + right[j * width() + column()] > T(0) ? value : T(0);
  }
  /// Writes the bits [y > 0] of the tile's pairs.
  __device__ void keep_open(const T (&result)[M][N + 1], const int (&row_i)[M],
                            const int (&row_j)[M], int in_tile) const {
    for (int w = thread; w < M * (N / bits); w += tile::threads) {
      const int m = w % M, first_c = w / M * bits;
      if (m >= in_tile || first_n + first_c >= width()) continue;
      std::uint32_t word = 0;
      for (int c = 0; c < bits && first_n + first_c + c < width(); ++c) {
        const T b = pairs.bias ? pairs.bias[first_n + first_c + c] : T(0);
        if (result[m][first_c + c] + b > T(0)) word |= 1u << c;
      }
      const std::size_t pair =
          row_at(pairs.rows, task, row_i[m]) * static_cast<std::size_t>(pairs.rows.rows) +
          static_cast<std::size_t>(row_j[m]);
      pairs.open[pair * static_cast<std::size_t>(open_words(pairs.outputs)) +
                 static_cast<std::size_t>((first_n + first_c) / bits)] = word;
    }
  }
};

template <class T, PairPass pass, int M, int N>
__global__ void __launch_bounds__(tile::threads, (blocks_per_multiprocessor<T, M, N>()))
    pair_product_kernel(PairProduct<T> p, int tiles_n, int owner_blocks) {
  using Block = PairBlock<T, pass, M, N>;
  KSHOT_SHARED(Quad<T>, slice_a, [2][depth_step][M / 4 + 1]);
  KSHOT_SHARED(Quad<T>, slice_b, [2][depth_step][N / 4 + 1]);
  KSHOT_SHARED(T, result, [M][N + 1]);
  KSHOT_SHARED(int, row_i, [M]);  // the rows of the tile's pairs; -1: none
  KSHOT_SHARED(int, row_j, [M]);
  const Block block(p, tiles_n, owner_blocks);
  block.clear_absent_owners();
  if (block.first_owner >= block.n) return;  // the whole block returns
  const int count = block.count();
  const int steps = (block.depth() + depth_step - 1) / depth_step;
  const bool sums_up = block.sums_up();
  const T shift = Block::forward && sums_up && p.pairs.bias ? p.pairs.bias[block.column()] : T(0);
  int owner = block.first_owner, partner = 0;
  T sum = T(0);

  for (int first = 0; first < count; first += M) {
    block.name_rows(first, row_i, row_j);
    __syncthreads();
    // the products
    T next_a[Block::LoadsA::count], next_b[Block::LoadsB::count];
    const auto load = [&](int step) {
      block.load_pairs(next_a, step * depth_step, row_i, row_j);
      block.load_weights(next_b, step * depth_step);
    };
    const auto store = [&](int step) {
      Block::LoadsA::store(slice_a[step % 2], block.thread, next_a);
      Block::LoadsB::store(slice_b[step % 2], block.thread, next_b);
    };
    typename Block::TileSums sums(block.thread);
    tile::walk(steps, load, store,
               [&](int step) { sums.template add<false>(slice_a[step % 2], slice_b[step % 2]); });
    block.keep_result(result, sums);
    __syncthreads();
    // the sums over partners, in ascending order
    const int in_tile = min(M, count - first);
    for (int m = 0; sums_up && m < in_tile; ++m) {
      sum += block.term(result[m][block.thread], shift, row_i[m], row_j[m]);
      if (++partner < block.n) continue;
      block.out(owner) = sum / static_cast<T>(block.n);
      sum = T(0);
      partner = 0;
      ++owner;
    }
    if constexpr (Block::forward) block.keep_open(result, row_i, row_j, in_tile);
    __syncthreads();  // the tile's shared memory has been read
  }
}

/// The sum of a group of tasks, without diverged ones, by tiles of W.
template <class T>
struct PairOuter {
  Pairs<T> pairs;
  const T* g_mean;
  TaskTensor<T> g_weight, g_bias;          ///< group g's is at data + g * stride
  int group = 1;                           ///< tasks per group
  const std::int32_t* diverged = nullptr;  ///< [tasks]; null: no task is left out
  bool accumulate = true;
};

template <class T, int M, int N>
__global__ void __launch_bounds__(tile::threads)
    pair_outer_kernel(PairOuter<T> p, int tiles_m, int tiles_n) {
  KSHOT_SHARED(Quad<T>, slice_a, [2][depth_step][M / 4 + 1]);
  KSHOT_SHARED(Quad<T>, slice_b, [2][depth_step][N / 4 + 1]);
  const int thread = static_cast<int>(threadIdx.x);
  int block = static_cast<int>(blockIdx.x);
  const int first_n = block % tiles_n * N;
  block /= tiles_n;
  const int first_m = block % tiles_m * M, group = block / tiles_m;

  const Pairs<T>& pairs = p.pairs;
  const int end = min((group + 1) * p.group, pairs.rows.tasks);
  const auto steps_of = [&](int task) {
    if (p.diverged && p.diverged[task] != 0) return 0;
    const int n = own_row_count(pairs.rows, task);
    return (n * n + depth_step - 1) / depth_step;
  };
  int steps = 0;
  for (int task = group * p.group; task < end; ++task) steps += steps_of(task);
  // The place of the next load.
  int task = group * p.group, first_pair = 0;
  while (task < end && steps_of(task) == 0) ++task;

  using LoadsA = Loads<M, false>;
  using LoadsB = Loads<N, false>;
  T next_a[LoadsA::count], next_b[LoadsB::count];
  const auto load = [&](int) {
    const int n = own_row_count(pairs.rows, task), count = n * n;
    const T* left = pairs.left + row_at(pairs.rows, task, 0) * pairs.inputs;
    const T* right = pairs.right + row_at(pairs.rows, task, 0) * pairs.inputs;
    const T* g_mean = p.g_mean + row_at(pairs.rows, task, 0) * pairs.outputs;
    const T share = T(1) / static_cast<T>(n);
#pragma unroll
    for (int l = 0; l < LoadsA::count; ++l) {
      const int o = first_m + LoadsA::element(thread, l);
      const int pair = first_pair + LoadsA::depth(thread, l);
      next_a[l] = T(0);
      if (o >= pairs.outputs || pair >= count) continue;
      const int i = pair / n, j = pair % n;
      if (bit_of(open_at(pairs, task, i, j), o)) next_a[l] = share * g_mean[i * pairs.outputs + o];
    }
#pragma unroll
    for (int l = 0; l < LoadsB::count; ++l) {
      const int h = first_n + LoadsB::element(thread, l);
      const int pair = first_pair + LoadsB::depth(thread, l);
      next_b[l] = T(0);
      if (h >= pairs.inputs || pair >= count) continue;
      const int i = pair / n, j = pair % n;
      next_b[l] = relu(left[i * pairs.inputs + h] + right[j * pairs.inputs + h]);
    }
    first_pair += depth_step;
    if (first_pair < count) return;
    first_pair = 0;
    do {
      ++task;
    } while (task < end && steps_of(task) == 0);
  };
  const auto store = [&](int step) {
    LoadsA::store(slice_a[step % 2], thread, next_a);
    LoadsB::store(slice_b[step % 2], thread, next_b);
  };
  const bool with_bias = p.g_bias.data && first_n == 0;
  Sums<T, M, N> sums(thread);
  tile::walk(steps, load, store, [&](int step) {
    if (with_bias) {
      sums.template add<true>(slice_a[step % 2], slice_b[step % 2]);
    } else {
      sums.template add<false>(slice_a[step % 2], slice_b[step % 2]);
    }
  });
  const bool has_bias = with_bias && sums.finish_row_sums();
  const auto of_group = static_cast<std::size_t>(group);
  T* g_weight = p.g_weight.data + of_group * p.g_weight.stride;
  const auto put = [&](T& to, T value) { to = p.accumulate ? to + value : value; };
#pragma unroll
  for (int x = 0; x < Sums<T, M, N>::rows; ++x) {
    const int o = first_m + sums.row(x);
    if (o >= pairs.outputs) continue;
    if (has_bias) {
      put(p.g_bias.data[of_group * p.g_bias.stride + static_cast<std::size_t>(o)], sums.row_sum(x));
    }
#pragma unroll
    for (int y = 0; y < Sums<T, M, N>::columns; ++y) {
      const int h = first_n + sums.column(y);
      if (h < pairs.inputs) put(g_weight[o * pairs.inputs + h], sums.v[x][y]);
    }
  }
}

unsigned grid_of(long long tasks, long long blocks_of_task) {
  const long long blocks = tasks * blocks_of_task;
  if (blocks > std::numeric_limits<int>::max()) {
    throw Error("pairs of " + std::to_string(tasks) + " tasks: " + std::to_string(blocks) +
                " blocks, expected fewer than 2^31");
  }
  return static_cast<unsigned>(blocks);
}

template <class T, PairPass pass>
void run(T* out, const T* g_mean, const Pairs<T>& pairs, cudaStream_t stream) {
  const int rows = pairs.rows.rows;
  if (pairs.rows.tasks == 0 || rows == 0) return;
  const int width = pass == PairPass::forward ? pairs.outputs : pairs.inputs;
  tile::with_tile<T>(rows * rows, width, [&](auto m, auto n) {
    constexpr int M = decltype(m)::value, N = decltype(n)::value;
    const int owners = std::clamp(M / rows, 1, rows);
    const int tiles_n = tiles(width, N), owner_blocks = tiles(rows, owners);
    const unsigned grid = grid_of(pairs.rows.tasks, 1LL * tiles_n * owner_blocks);
    launch<pair_product_kernel<T, pass, M, N>>(
        {.grid = grid, .block = tile::threads, .stream = stream},
        PairProduct<T>{pairs, g_mean, out, owners}, tiles_n, owner_blocks);
  });
}

template <class T>
void outer(const PairOuter<T>& p, cudaStream_t stream) {
  const Pairs<T>& pairs = p.pairs;
  if (pairs.rows.tasks == 0) return;
  const int groups = (pairs.rows.tasks + p.group - 1) / p.group;
  tile::with_tile<T>(pairs.outputs, pairs.inputs, [&](auto m, auto n) {
    constexpr int M = decltype(m)::value, N = decltype(n)::value;
    const int tiles_m = tiles(pairs.outputs, M), tiles_n = tiles(pairs.inputs, N);
    launch<pair_outer_kernel<T, M, N>>({.grid = grid_of(groups, 1LL * tiles_m * tiles_n),
                                        .block = tile::threads,
                                        .stream = stream},
                                       p, tiles_m, tiles_n);
  });
}

// ---- groups ----

struct CountMembers {
  std::int32_t* members;
  Grouping grouping;
  __device__ void operator()(int task, int group, std::size_t at) const {
    const int n = own_row_count(grouping.rows, task);
    int count = grouping.labels ? 0 : n;
    for (int row = 0; grouping.labels && row < n; ++row) {
      if (grouping.labels[row_at(grouping.rows, task, row)] == group) ++count;
    }
    members[at] = count;
  }
};

template <class T>
struct GroupMean {
  T* mean;
  const T* x;
  Grouping grouping;
  int width;
  __device__ void operator()(int task, int i, std::size_t at) const {
    const int group = i / width, feature = i - group * width;
    const int n = own_row_count(grouping.rows, task);
    T sum = T(0);
    for (int row = 0; row < n; ++row) {
      const std::size_t from = row_at(grouping.rows, task, row);
      if (grouping.labels && grouping.labels[from] != group) continue;
      sum += x[from * static_cast<std::size_t>(width) + static_cast<std::size_t>(feature)];
    }
    const std::size_t member =
        static_cast<std::size_t>(task) * static_cast<std::size_t>(grouping.groups) +
        static_cast<std::size_t>(group);
    mean[at] = sum / static_cast<T>(grouping.members[member]);
  }
};

template <class T>
struct GroupMeanPullback {
  T* g_x;
  const T* g_mean;
  Grouping grouping;
  int width;
  __device__ void operator()(int task, int i, std::size_t at) const {
    const int row = i / width, feature = i - row * width;
    if (row >= own_row_count(grouping.rows, task)) {
      g_x[at] = T(0);
      return;
    }
    const int group = grouping.labels ? grouping.labels[row_at(grouping.rows, task, row)] : 0;
    const std::size_t member =
        static_cast<std::size_t>(task) * static_cast<std::size_t>(grouping.groups) +
        static_cast<std::size_t>(group);
    g_x[at] = g_mean[member * static_cast<std::size_t>(width) + static_cast<std::size_t>(feature)] /
              static_cast<T>(grouping.members[member]);
  }
};

template <class T>
struct JoinRows {
  T* out;
  const T* x;
  const T* y;
  int x_width, y_width;
  RowExtent rows;
  __device__ void operator()(int task, int i, std::size_t at) const {
    const int width = x_width + y_width, row = i / width, feature = i - row * width;
    const std::size_t from = row_at(rows, task, row);
    out[at] = feature < x_width
                  ? x[from * static_cast<std::size_t>(x_width) + static_cast<std::size_t>(feature)]
                  : y[from * static_cast<std::size_t>(y_width) +
                      static_cast<std::size_t>(feature - x_width)];
  }
};

}  // namespace

template <class T>
void pairs_forward(T* mean, const Pairs<T>& pairs, cudaStream_t stream) {
  run<T, PairPass::forward>(mean, nullptr, pairs, stream);
}

template <class T>
void pairs_input_gradient(T* g_left, T* g_right, const T* g_mean, const Pairs<T>& pairs,
                          cudaStream_t stream) {
  run<T, PairPass::left>(g_left, g_mean, pairs, stream);
  run<T, PairPass::right>(g_right, g_mean, pairs, stream);
}

template <class T>
void pairs_weight_gradient(TaskTensor<T> g_weight, TaskTensor<T> g_bias, const T* g_mean,
                           const Pairs<T>& pairs, cudaStream_t stream) {
  outer(PairOuter<T>{pairs, g_mean, g_weight, g_bias}, stream);
}

template <class T>
void pairs_run_gradient(TaskTensor<T> g_weight, TaskTensor<T> g_bias, const T* g_mean,
                        const Pairs<T>& pairs, const std::int32_t* diverged, cudaStream_t stream) {
  outer(PairOuter<T>{pairs, g_mean, g_weight, g_bias, run_tasks, diverged, false}, stream);
}

void count_members(std::int32_t* members, const Grouping& grouping, cudaStream_t stream) {
  by_task(CountMembers{members, grouping}, {grouping.rows.tasks, grouping.groups}, stream);
}

template <class T>
void group_mean(T* mean, const T* x, const Grouping& grouping, int width, cudaStream_t stream) {
  by_task(GroupMean<T>{mean, x, grouping, width}, {grouping.rows.tasks, grouping.groups * width},
          stream);
}

template <class T>
void group_mean_pullback(T* g_x, const T* g_mean, const Grouping& grouping, int width,
                         cudaStream_t stream) {
  by_task(GroupMeanPullback<T>{g_x, g_mean, grouping, width},
          {grouping.rows.tasks, grouping.rows.rows * width}, stream);
}

template <class T>
void join_rows(T* out, const T* x, int x_width, const T* y, int y_width, const RowExtent& rows,
               cudaStream_t stream) {
  by_task(JoinRows<T>{out, x, y, x_width, y_width, rows},
          {rows.tasks, rows.rows * (x_width + y_width)}, stream);
}

#define KSHOT_INSTANTIATE(T)                                                                   \
  template void pairs_forward(T*, const Pairs<T>&, cudaStream_t);                              \
  template void pairs_input_gradient(T*, T*, const T*, const Pairs<T>&, cudaStream_t);         \
  template void pairs_weight_gradient(TaskTensor<T>, TaskTensor<T>, const T*, const Pairs<T>&, \
                                      cudaStream_t);                                           \
  template void pairs_run_gradient(TaskTensor<T>, TaskTensor<T>, const T*, const Pairs<T>&,    \
                                   const std::int32_t*, cudaStream_t);                         \
  template void group_mean(T*, const T*, const Grouping&, int, cudaStream_t);                  \
  template void group_mean_pullback(T*, const T*, const Grouping&, int, cudaStream_t);         \
  template void join_rows(T*, const T*, int, const T*, int, const RowExtent&, cudaStream_t)
KSHOT_INSTANTIATE(float);
KSHOT_INSTANTIATE(double);
#undef KSHOT_INSTANTIATE

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
