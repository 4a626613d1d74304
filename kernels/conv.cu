// Convolutions with per-task weights as implicit GEMM (conv.h). Matrices are tiled through shared
// memory. The matrix that im2col would write is gathered element by element instead.
//
// Mathematics    P = positions (row, y, x). A correlation of maps, for every position of `out`:
//
//                  out[m, p] = sum over (s, ty, tx) of weight[m, s, ky, kx] source[s, p shifted]
//
//                forward          source x, depth (s, ky, kx), source y = stride oy - padding + ky
//                input gradient   source g_y; an input position iy is reached only by the taps with
//                                 ky = (iy + padding) mod stride. Positions that share this
//                                 remainder (`phase`) are tiled together, so no product with zero
//                                 is computed: ky = phase + stride ty, source y = origin + jy - ty
//                weight gradient  out[o, (i, ky, kx)] = sum over P of g_y[o, p] x[i, p shifted]
//
// Layout         Features [task][row][C][H][W], kernels [O][I][k][k] at data + task * stride.
// Who does what  A block of 64 threads computes a tile of one task: M x N elements of out (M
//                channels, N positions; for the weight gradient N columns of the kernel matrix). It
//                walks along the depth in steps of 8. The two slices of a step lie in shared
//                memory, depth by element. While one step is multiplied, the next is loaded into
//                registers, so that there is one barrier per step. A thread has (M / 8) x (N / 8)
//                sums, in groups of four neighbours, so that it reads slices 16 bytes at a time: 4
//                reads for 64 multiply-adds with M = N = 64. Tiles of 32 are used where much of a
//                tile of 64 would be empty. If all tasks have one kernel (stride 0), the tiles of a
//                correlation extend across tasks. The order of the depth is fixed and no sum is
//                split, so a result depends neither on the tile nor on the batch.
// Outputs        Overwritten; the weight gradient is accumulated if `accumulate` is set. Rows that
//                are not a task's own are not touched.
// Bytes          Per task, forward: x (rows I H W), kernel (O I k^2) and y (rows O OH OW), once
//                each from memory. L2 serves the kernel again positions / N times, and x O / M
//                times k^2 (the latter mostly from L1). The gradients move the same bytes.
// Operations     2 rows OH OW O I k^2 per product, in all three. conv4-64's second block on 5 rows
//                of 7 x 7 has 18 MFLOP over 0.46 MB: bound by arithmetic (39 FLOP/B; an H200's
//                ridge is 14 in FP32). In the inner loop of a 64 x 64 tile, 57 % of the
//                instructions are multiply-adds, and 70 % in the weight gradient
//                (docs/kernel-table.md). Most of the others are gathers and their indices, where
//                more can be gained. These shares are ceilings of the share of FP32's peak.
#include "kernels/conv.h"

#include <algorithm>
#include <limits>
#include <string>

#include "kernels/tile.h"
#include "kshot/error.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

using namespace tile;

/// The channels and the size of the maps of features.
struct Maps {
  int channels, height, width;
  __host__ __device__ int plane() const { return height * width; }
};

/// Counts through positions (high, mid, low) of sizes (any, mid_size, low_size) without a division.
class Odometer {
 public:
  __device__ Odometer(int mid_size, int low_size, int step)
      : mid_size_(mid_size),
        low_size_(low_size),
        step_high_(step / (mid_size * low_size)),
        step_mid_(step % (mid_size * low_size) / low_size),
        step_low_(step % low_size) {}
  __device__ void set(int position) {
    high = position / (mid_size_ * low_size_);
    mid = position % (mid_size_ * low_size_) / low_size_;
    low = position % low_size_;
  }
  __device__ void advance() {
    high += step_high_;
    mid += step_mid_;
    low += step_low_;
    if (low >= low_size_) {
      low -= low_size_;
      ++mid;
    }
    if (mid >= mid_size_) {
      mid -= mid_size_;
      ++high;
    }
  }
  int high = 0, mid = 0, low = 0;

 private:
  int mid_size_, low_size_;
  int step_high_, step_mid_, step_low_;
};

__device__ bool inside(int y, int x, const Maps& maps) {
  return static_cast<unsigned>(y) < static_cast<unsigned>(maps.height) &&
         static_cast<unsigned>(x) < static_cast<unsigned>(maps.width);
}

constexpr int nowhere = -(1 << 29);  // a shift that leaves every map

// ---- correlations: forward and input gradient ----

/// A correlation of maps, which is either the forward pass or the gradient by the inputs.
template <class T>
struct Correlation {
  T* out;
  ConvProduct<T> products[2];
  TaskTensor<const T> bias;
  RowExtent rows;
  Maps target, source;  // maps of out, and of the features of the products
  int kernel, padding;
  int group;     // tasks with consecutive positions: 1, or those that share a kernel
  int phases;    // number of remainders of positions: 1, or the stride
  int step;      // distance of the sources of neighbouring positions of one phase
  int tap_sign;  // +1 or -1: sources ascend or descend with taps
  int weight_target, weight_source;  // strides of the kernel, by channel

  __host__ __device__ int product_count() const { return products[1].features ? 2 : 1; }
};

/// The positions of one phase along one axis. Position j = 0 ... count - 1 lies at first + phases
/// j. Its tap t reads the source at origin + step j + tap_sign t, and the kernel at index phase +
/// phases t.
struct Axis {
  int first, count, origin, taps;
};

template <class T>
__host__ __device__ Axis axis_of(const Correlation<T>& c, int extent, int phase) {
  Axis axis;
  axis.first = ((phase - c.padding) % c.phases + c.phases) % c.phases;
  axis.count = axis.first < extent ? (extent - 1 - axis.first) / c.phases + 1 : 0;
  axis.origin = c.tap_sign > 0 ? -c.padding : (axis.first + c.padding - phase) / c.phases;
  axis.taps = phase < c.kernel ? (c.kernel - 1 - phase) / c.phases + 1 : 0;
  return axis;
}

/// One index of the depth: the offset of its source from that of a position, and its offset in the
/// kernel.
struct alignas(16) Tap {
  int source, weight;  // weight < 0: beyond the depth
  int dy, dx;
};

/// The place of a block in correlation_kernel: a tile of channels and positions of one phase, in
/// one task or in a group of tasks.
template <class T>
struct CorrelationPlace {
  int first_m, first_n, phase, first_task;
  Axis vertical, horizontal;

  __device__ CorrelationPlace(const Correlation<T>& c, int block, int tiles_m, int tiles_n, int m,
                              int n) {
    first_m = block % tiles_m * m;
    block /= tiles_m;
    first_n = block % tiles_n * n;
    block /= tiles_n;
    phase = block % (c.phases * c.phases);
    first_task = block / (c.phases * c.phases) * c.group;
    vertical = axis_of(c, c.target.height, phase / c.phases);
    horizontal = axis_of(c, c.target.width, phase % c.phases);
  }
  /// Number of steps through the depth of one product.
  __device__ int steps(const Correlation<T>& c) const {
    const int depth = c.source.channels * vertical.taps * horizontal.taps;
    return (depth + depth_step - 1) / depth_step;
  }
};

/// A position of a tile: the corner of its sources in the maps, and the offsets of its sources and
/// of its place in out from the features of the first task. A position that has no row of a task is
/// outside of every map.
struct Position {
  int y = nowhere, x = nowhere, source = 0, place = -1;
};

template <class T>
__device__ Position position_of(const Correlation<T>& c, const CorrelationPlace<T>& at, int index) {
  Position p;
  const int positions = at.vertical.count * at.horizontal.count;
  const int rows = min(c.group, c.rows.tasks - at.first_task) * c.rows.rows;
  if (index >= rows * positions) return p;
  const int row = index / positions, j = index % positions;
  const int task = row / c.rows.rows, row_of_task = row % c.rows.rows;
  if (row_of_task >= own_row_count(c.rows, at.first_task + task)) return p;
  const int jy = j / at.horizontal.count, jx = j % at.horizontal.count;
  p.y = at.vertical.origin + c.step * jy;
  p.x = at.horizontal.origin + c.step * jx;
  p.source = row * c.source.channels * c.source.plane() + p.y * c.source.width + p.x;
  p.place = row * c.target.channels * c.target.plane() +
            (at.vertical.first + c.phases * jy) * c.target.width + at.horizontal.first +
            c.phases * jx;
  return p;
}

/// Writes the entry of the table of taps for the depth index of `tap`, which is (channel, ty, tx).
template <class T>
__device__ void write_tap(Tap& entry, const Correlation<T>& c, int phase, const Odometer& tap) {
  const int ky = phase / c.phases + c.phases * tap.mid, kx = phase % c.phases + c.phases * tap.low;
  const int dy = c.tap_sign * tap.mid, dx = c.tap_sign * tap.low;
  const bool is_real = tap.high < c.source.channels;
  entry.source = tap.high * c.source.plane() + dy * c.source.width + dx;
  entry.weight = is_real ? tap.high * c.weight_source + ky * c.kernel + kx : -1;
  entry.dy = is_real ? dy : nowhere;
  entry.dx = dx;
}

/// Writes the sums of a tile, plus the bias if it is given, to out.
template <class T, int M, int N, class How>
__device__ void write_tile(const Correlation<T>& c, const CorrelationPlace<T>& at,
                           const Sums<T, M, N, How>& sums, const int (&place)[N]) {
  T* out = c.out + static_cast<std::size_t>(at.first_task) * static_cast<std::size_t>(c.rows.rows) *
                       static_cast<std::size_t>(c.target.channels * c.target.plane());
  const T* bias =
      c.bias.data ? c.bias.data + static_cast<std::size_t>(at.first_task) * c.bias.stride : nullptr;
#pragma unroll
  for (int i = 0; i < Sums<T, M, N, How>::rows; ++i) {
    const int m = at.first_m + sums.row(i);
    if (m >= c.target.channels) continue;
    const T shift = bias ? bias[m] : T(0);
#pragma unroll
    for (int j = 0; j < Sums<T, M, N, How>::columns; ++j) {
      const int p = place[sums.column(j)];
      if (p >= 0) out[p + m * c.target.plane()] = sums.v[i][j] + shift;
    }
  }
}

template <class T, int M, int N, class How>
__global__ void __launch_bounds__(threads)
    correlation_kernel(Correlation<T> c, int tiles_m, int tiles_n) {
  using LoadsA = Loads<M, true>;
  using LoadsB = Loads<N, false>;
  KSHOT_SHARED(Quad<T>, slice_a, [2][depth_step][M / 4 + 1]);
  KSHOT_SHARED(Quad<T>, slice_b, [2][depth_step][N / 4 + 1]);
  KSHOT_SHARED(Tap, taps, [2][depth_step]);
  KSHOT_SHARED(int, place, [N]);  // places of the tile's positions in out; -1: none
  const int thread = static_cast<int>(threadIdx.x);
  const CorrelationPlace<T> tile(c, static_cast<int>(blockIdx.x), tiles_m, tiles_n, M, N);

  const std::size_t first_row =
      static_cast<std::size_t>(tile.first_task) * static_cast<std::size_t>(c.rows.rows);
  // the position whose sources this thread gathers
  const Position position = position_of(c, tile, tile.first_n + LoadsB::element(thread, 0));
  if (thread < N) place[thread] = position.place;
  if (!__syncthreads_or(position.place >= 0)) return;  // the whole block returns

  // The threads below depth_step maintain the table of taps. The odometers of the others do not
  // move.
  const int steps = tile.steps(c), all_steps = steps * c.product_count();
  Odometer tap(max(tile.vertical.taps, 1), max(tile.horizontal.taps, 1), depth_step);
  const auto next_tap = [&](int step) {
    if (thread >= depth_step || step >= all_steps) return;
    if (step % steps == 0) {
      tap.set(thread);
    } else {
      tap.advance();
    }
    write_tap(taps[step % 2][thread], c, tile.phase, tap);
  };

  T next_a[LoadsA::count], next_b[LoadsB::count];
  // These pointers are kept, because computing them again would cost more than the loads.
  const T *weight = nullptr, *source = nullptr;
  const auto load = [&](int step) {
    if (step == 0 || step == steps) {
      const ConvProduct<T>& product = c.products[step == 0 ? 0 : 1];
      weight =
          product.weight.data + static_cast<std::size_t>(tile.first_task) * product.weight.stride;
      source = product.features +
               first_row * static_cast<std::size_t>(c.source.channels * c.source.plane());
    }
    const int weight_offset = taps[step % 2][LoadsA::depth(thread, 0)].weight;
#pragma unroll
    for (int i = 0; i < LoadsA::count; ++i) {
      const int m = tile.first_m + LoadsA::element(thread, i);
      next_a[i] = weight_offset >= 0 && m < c.target.channels
                      ? weight[weight_offset + m * c.weight_target]
                      : T(0);
    }
#pragma unroll
    for (int i = 0; i < LoadsB::count; ++i) {
      const Tap entry = taps[step % 2][LoadsB::depth(thread, i)];
      next_b[i] = inside(position.y + entry.dy, position.x + entry.dx, c.source)
                      ? source[position.source + entry.source]
                      : T(0);
    }
  };
  const auto store = [&](int step) {
    LoadsA::store(slice_a[step % 2], thread, next_a);
    LoadsB::store(slice_b[step % 2], thread, next_b);
  };
  Sums<T, M, N, How> sums(thread);
  next_tap(0);
  __syncthreads();
  if (all_steps > 0) {
    load(0);
    store(0);
  }
  next_tap(1);
  __syncthreads();
  for (int step = 0; step < all_steps; ++step) {
    if (step + 1 < all_steps) load(step + 1);
    sums.template add<false>(slice_a[step % 2], slice_b[step % 2]);
    if (step + 1 < all_steps) store(step + 1);
    next_tap(step + 2);
    __syncthreads();
  }
  write_tile(c, tile, sums, place);
}

// ---- weight gradient ----

/// The gradient by the kernels and the biases.
template <class T>
struct WeightGradient {
  TaskTensor<T> g_weight, g_bias;
  ConvOuterProduct<T> products[2];
  bool accumulate;
  RowExtent rows;
  Maps in, out;
  int kernel, stride, padding;

  __host__ __device__ int product_count() const { return products[1].g_y ? 2 : 1; }
  __host__ __device__ int columns() const { return in.channels * kernel * kernel; }
};

/// One column of the kernel matrix: the offset of its inputs from the first input of a position.
struct alignas(16) Column {
  int source, dy, dx;
};

/// Returns column n of the kernel matrix. n counts (channel, ky, kx).
template <class T>
__device__ Column column_at(const WeightGradient<T>& g, int n) {
  const int taps = g.kernel * g.kernel;
  const int i = n / taps, ky = n % taps / g.kernel, kx = n % g.kernel;
  return {i * g.in.plane() + ky * g.in.width + kx, n < g.columns() ? ky : nowhere, kx};
}

/// Writes the sums of a tile to the gradient, or adds them with `accumulate`.
template <class T, int M, int N, class How>
__device__ void write_gradient(const WeightGradient<T>& g, int task, int first_m, int first_n,
                               const Sums<T, M, N, How>& sums, bool has_bias) {
  T* g_weight = g.g_weight.data + static_cast<std::size_t>(task) * g.g_weight.stride;
#pragma unroll
  for (int i = 0; i < Sums<T, M, N, How>::rows; ++i) {
    const int m = first_m + sums.row(i);
    if (m >= g.out.channels) continue;
    if (has_bias) {
      T& to =
          g.g_bias
              .data[static_cast<std::size_t>(task) * g.g_bias.stride + static_cast<std::size_t>(m)];
      to = g.accumulate ? to + sums.row_sum(i) : sums.row_sum(i);
    }
#pragma unroll
    for (int j = 0; j < Sums<T, M, N, How>::columns; ++j) {
      const int n = first_n + sums.column(j);
      if (n >= g.columns()) continue;
      T& to = g_weight[m * g.columns() + n];
      to = g.accumulate ? to + sums.v[i][j] : sums.v[i][j];
    }
  }
}

template <class T, int M, int N, class How>
__global__ void __launch_bounds__(threads)
    weight_gradient_kernel(WeightGradient<T> g, int tiles_m, int tiles_n) {
  using LoadsA = Loads<M, true>;  // both along the depth, which counts positions
  using LoadsB = Loads<N, true>;
  KSHOT_SHARED(Quad<T>, slice_a, [2][depth_step][M / 4 + 1]);
  KSHOT_SHARED(Quad<T>, slice_b, [2][depth_step][N / 4 + 1]);
  KSHOT_SHARED(Column, column_of, [N]);
  const int thread = static_cast<int>(threadIdx.x);
  int block = static_cast<int>(blockIdx.x);
  const int first_m = block % tiles_m * M;
  block /= tiles_m;
  const int first_n = block % tiles_n * N, task = block / tiles_n;

  if (thread < N) column_of[thread] = column_at(g, first_n + thread);
  const int count = own_row_count(g.rows, task), depth = count * g.out.plane();
  const int steps = (depth + depth_step - 1) / depth_step, all_steps = steps * g.product_count();

  const std::size_t first_row =
      static_cast<std::size_t>(task) * static_cast<std::size_t>(g.rows.rows);
  Odometer position(g.out.height, g.out.width, depth_step);  // row, y, x of this thread's next load
  T next_a[LoadsA::count], next_b[LoadsB::count];
  const T *g_y = nullptr, *source = nullptr;  // kept from step to step
  const auto load = [&](int step) {
    if (step == 0 || step == steps) {
      position.set(LoadsA::depth(thread, 0));
      const ConvOuterProduct<T>& product = g.products[step == 0 ? 0 : 1];
      g_y = product.g_y + first_row * static_cast<std::size_t>(g.out.channels * g.out.plane());
      source = product.x + first_row * static_cast<std::size_t>(g.in.channels * g.in.plane());
    } else {
      position.advance();
    }
    const bool is_real = position.high < count;
    const int y = is_real ? position.mid * g.stride - g.padding : nowhere;
    const int x = position.low * g.stride - g.padding;
    const int at_y =
        position.high * g.out.channels * g.out.plane() + position.mid * g.out.width + position.low;
    const int at_x =
        position.high * g.in.channels * g.in.plane() + (is_real ? y : 0) * g.in.width + x;
#pragma unroll
    for (int i = 0; i < LoadsA::count; ++i) {
      const int m = first_m + LoadsA::element(thread, i);
      next_a[i] = is_real && m < g.out.channels ? g_y[at_y + m * g.out.plane()] : T(0);
    }
#pragma unroll
    for (int i = 0; i < LoadsB::count; ++i) {
      const Column column = column_of[LoadsB::element(thread, i)];
      next_b[i] = inside(y + column.dy, x + column.dx, g.in) ? source[at_x + column.source] : T(0);
    }
  };
  const auto store = [&](int step) {
    LoadsA::store(slice_a[step % 2], thread, next_a);
    LoadsB::store(slice_b[step % 2], thread, next_b);
  };
  const bool with_bias = g.g_bias.data && first_n == 0;
  Sums<T, M, N, How> sums(thread);
  __syncthreads();
  walk(all_steps, load, store, [&](int step) {
    if (with_bias && step < steps) {
      sums.template add<true>(slice_a[step % 2], slice_b[step % 2]);
    } else {
      sums.template add<false>(slice_a[step % 2], slice_b[step % 2]);
    }
  });
  const bool has_bias = with_bias && sums.finish_row_sums();
  write_gradient(g, task, first_m, first_n, sums, has_bias);
}

// ---- launches ----

unsigned grid_of(long long tasks, long long blocks_per_task) {
  const long long blocks = tasks * blocks_per_task;
  if (blocks > std::numeric_limits<int>::max()) {
    throw Error("convolution of " + std::to_string(tasks) +
                " tasks at once: " + std::to_string(blocks) + " blocks, expected fewer than 2^31");
  }
  return static_cast<unsigned>(blocks);
}

// Checks sizes: indices within a task are int.
void check(const ConvShape& s, const RowExtent& rows) {
  const auto fits = [&](int in, int out) {
    return in + 2 * s.padding >= s.kernel && out == (in + 2 * s.padding - s.kernel) / s.stride + 1;
  };
  if (s.in_channels < 1 || s.out_channels < 1 || s.kernel < 1 || s.stride < 1 || s.padding < 0 ||
      !fits(s.in_height, s.out_height) || !fits(s.in_width, s.out_width)) {
    throw Error("convolution of " + std::to_string(s.in_height) + " x " +
                std::to_string(s.in_width) + " to " + std::to_string(s.out_height) + " x " +
                std::to_string(s.out_width) + ": does not fit kernel " + std::to_string(s.kernel) +
                ", stride " + std::to_string(s.stride) + ", padding " + std::to_string(s.padding));
  }
  const auto elements = [&](int channels, int height, int width) {
    return static_cast<double>(rows.rows) * channels * height * width;
  };
  constexpr double limit = 1 << 30;
  if (elements(s.in_channels, s.in_height, s.in_width) > limit ||
      elements(s.out_channels, s.out_height, s.out_width) > limit ||
      static_cast<double>(s.in_channels) * s.out_channels * s.kernel * s.kernel > limit) {
    throw Error("convolution: one task's features or weights have more than 2^30 elements");
  }
}

/// Number of tasks in a group: 1, or all tasks if they share the kernel, limited so that an int can
/// number the features of a group.
template <class T>
int tasks_of_group(const Correlation<T>& c) {
  const bool own_second = c.products[1].features && c.products[1].weight.stride != 0;
  if (c.products[0].weight.stride != 0 || own_second || (c.bias.data && c.bias.stride != 0)) {
    return 1;
  }
  const int largest = c.rows.rows * std::max(c.source.channels * c.source.plane(),
                                             c.target.channels * c.target.plane());
  return std::clamp((1 << 30) / largest, 1, c.rows.tasks);
}

template <class T>
void correlate(Correlation<T> c, Arithmetic arithmetic, cudaStream_t stream) {
  if (c.rows.tasks == 0 || c.rows.rows == 0) return;
  c.group = tasks_of_group(c);
  const auto longest = [&](int extent) { return (extent - 1) / c.phases + 1; };
  const int positions = c.group * c.rows.rows * longest(c.target.height) * longest(c.target.width);
  with_tile<T>(c.target.channels, positions, [&](auto m, auto n) {
    constexpr int M = decltype(m)::value, N = decltype(n)::value;
    const int tiles_m = tiles(c.target.channels, M), tiles_n = tiles(positions, N);
    const unsigned grid =
        grid_of(tiles(c.rows.tasks, c.group), 1LL * tiles_m * tiles_n * c.phases * c.phases);
    with_arithmetic<T>(arithmetic, [&](auto how) {
      launch<correlation_kernel<T, M, N, decltype(how)>>(
          {.grid = grid, .block = threads, .stream = stream}, c, tiles_m, tiles_n);
    });
  });
}

template <class T>
void multiply_outer(const WeightGradient<T>& g, Arithmetic arithmetic, cudaStream_t stream) {
  with_tile<T>(g.out.channels, g.columns(), [&](auto m, auto n) {
    constexpr int M = decltype(m)::value, N = decltype(n)::value;
    const int tiles_m = tiles(g.out.channels, M), tiles_n = tiles(g.columns(), N);
    const unsigned grid = grid_of(g.rows.tasks, 1LL * tiles_m * tiles_n);
    with_arithmetic<T>(arithmetic, [&](auto how) {
      launch<weight_gradient_kernel<T, M, N, decltype(how)>>(
          {.grid = grid, .block = threads, .stream = stream}, g, tiles_m, tiles_n);
    });
  });
}

}  // namespace

// ---- launchers ----

template <class T>
void conv_forward(T* y, ConvProduct<T> first, ConvProduct<T> second, TaskTensor<const T> bias,
                  const ConvShape& s, const RowExtent& rows, Arithmetic arithmetic,
                  cudaStream_t stream) {
  check(s, rows);
  const int taps = s.kernel * s.kernel;
  correlate<T>({.out = y,
                .products = {first, second},
                .bias = bias,
                .rows = rows,
                .target = {s.out_channels, s.out_height, s.out_width},
                .source = {s.in_channels, s.in_height, s.in_width},
                .kernel = s.kernel,
                .padding = s.padding,
                .group = 1,
                .phases = 1,
                .step = s.stride,
                .tap_sign = 1,
                .weight_target = s.in_channels * taps,
                .weight_source = taps},
               arithmetic, stream);
}

template <class T>
void conv_input_gradient(T* g_x, ConvProduct<T> first, ConvProduct<T> second, const ConvShape& s,
                         const RowExtent& rows, Arithmetic arithmetic, cudaStream_t stream) {
  check(s, rows);
  const int taps = s.kernel * s.kernel;
  correlate<T>({.out = g_x,
                .products = {first, second},
                .bias = {},
                .rows = rows,
                .target = {s.in_channels, s.in_height, s.in_width},
                .source = {s.out_channels, s.out_height, s.out_width},
                .kernel = s.kernel,
                .padding = s.padding,
                .group = 1,
                .phases = s.stride,
                .step = 1,
                .tap_sign = -1,
                .weight_target = taps,
                .weight_source = s.in_channels * taps},
               arithmetic, stream);
}

template <class T>
void conv_weight_gradient(TaskTensor<T> g_weight, TaskTensor<T> g_bias, ConvOuterProduct<T> first,
                          ConvOuterProduct<T> second, bool accumulate, const ConvShape& s,
                          const RowExtent& rows, Arithmetic arithmetic, cudaStream_t stream) {
  check(s, rows);
  if (rows.tasks > 1 && (g_weight.stride == 0 || (g_bias.data && g_bias.stride == 0))) {
    throw Error("convolution: gradients of several tasks at stride 0, expected one for each task");
  }
  if (rows.tasks == 0) return;
  const WeightGradient<T> g{.g_weight = g_weight,
                            .g_bias = g_bias,
                            .products = {first, second},
                            .accumulate = accumulate,
                            .rows = rows,
                            .in = {s.in_channels, s.in_height, s.in_width},
                            .out = {s.out_channels, s.out_height, s.out_width},
                            .kernel = s.kernel,
                            .stride = s.stride,
                            .padding = s.padding};
  multiply_outer(g, arithmetic, stream);
}

#define KSHOT_INSTANTIATE(T)                                                                \
  template void conv_forward(T*, ConvProduct<T>, ConvProduct<T>, TaskTensor<const T>,       \
                             const ConvShape&, const RowExtent&, Arithmetic, cudaStream_t); \
  template void conv_input_gradient(T*, ConvProduct<T>, ConvProduct<T>, const ConvShape&,   \
                                    const RowExtent&, Arithmetic, cudaStream_t);            \
  template void conv_weight_gradient(TaskTensor<T>, TaskTensor<T>, ConvOuterProduct<T>,     \
                                     ConvOuterProduct<T>, bool, const ConvShape&,           \
                                     const RowExtent&, Arithmetic, cudaStream_t)
KSHOT_INSTANTIATE(float);
KSHOT_INSTANTIATE(double);
#undef KSHOT_INSTANTIATE

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
