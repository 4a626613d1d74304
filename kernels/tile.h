// Tiles of matrix products (conv.cu, product.cu, relation.cu, factors.cu).
//
// A block of 64 threads computes a tile of M x N sums and walks along the depth in steps of 8. Two
// slices lie in shared memory, depth by element. Each thread has (M / 8) x (N / 8) sums, in groups
// of neighbours, so that it reads slices 16 bytes at a time. The kernel decides how slices are
// filled. The class Sums decides how they are multiplied:
//
//   Plain      Per thread and element of the depth, 4 reads serve 64 multiply-adds with M = N = 64.
//              Sums run in ascending order of the depth.
//   SplitTf32  Floats on tensor cores (tensor_core.h). Per warp and step, 6 reads serve 48
//              products of 16 x 8 x 8. A step is summed on the core, and the sums of steps are
//              added in ascending order.
//
// Neither of them splits the sum of an element. An element therefore has the same bits in every
// tile and at every place in it.
#pragma once

#include <type_traits>

#include "kernels/device.h"
#include "kernels/tensor_core.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace tile {

constexpr int threads = 64;
constexpr int side = 8;        // a tile has side x side threads
constexpr int depth_step = 8;  // depth of a slice

// ---- choice ----

inline int tiles(int extent, int tile) {
  return (extent + tile - 1) / tile;
}

/// Chooses 64, unless tiles of 32 save more than an eighth of the padded extent. Multiply-adds are
/// slower in tiles of 32, because as many reads serve fewer of them.
inline bool small_tile(int extent) {
  return tiles(extent, 32) * 32 * 8 < tiles(extent, 64) * 64 * 7;
}

/// Calls body with integral constants M and N. A thread's registers do not hold its sums of a tile
/// of 64 x 64 doubles, so doubles always take tiles of 32 x 32.
template <class T, class Body>
void with_tile(int m, int n, const Body& body) {
  using Small = std::integral_constant<int, 32>;
  using Large = std::integral_constant<int, 64>;
  if constexpr (std::is_same_v<T, double>) {
    body(Small{}, Small{});
  } else if (small_tile(m)) {
    small_tile(n) ? body(Small{}, Small{}) : body(Small{}, Large{});
  } else {
    small_tile(n) ? body(Large{}, Small{}) : body(Large{}, Large{});
  }
}

struct Plain {};
struct SplitTf32 {};

/// Calls body(SplitTf32{}) for floats with split_tf32, else body(Plain{}).
template <class T, class Body>
void with_arithmetic(Arithmetic arithmetic, const Body& body) {
  if constexpr (std::is_same_v<T, float>) {
    if (arithmetic == Arithmetic::split_tf32) return body(SplitTf32{});
  }
  body(Plain{});
}

#if defined(KSHOT_SIMT) || defined(__CUDACC__)

/// Four neighbouring elements, read in one access.
template <class T>
struct alignas(16) Quad {
  T v[4];
};

/// A slice of a matrix: [depth_step][elements]. Each row is padded by one quad, so that threads
/// that store along the depth use different banks.
template <class T, int elements>
using Slice = Quad<T>[depth_step][elements / 4 + 1];

template <class T, int elements>
__device__ T& at(Slice<T, elements>& slice, int k, int element) {
  return slice[k][element / 4].v[element % 4];
}

/// The elements of a slice that a thread loads. Memory is contiguous along the depth
/// (`along_depth`) or along the elements, and neighbouring threads take neighbours in that
/// direction.
template <int elements, bool along_depth>
struct Loads {
  static constexpr int count = elements * depth_step / threads;
  __device__ static int element(int thread, int i) {
    return along_depth ? thread / depth_step + threads / depth_step * i : thread % elements;
  }
  __device__ static int depth(int thread, int i) {
    return along_depth ? thread % depth_step : thread / elements + threads / elements * i;
  }
  /// Writes the elements that the thread loaded to their places in the slice.
  template <class T>
  __device__ static void store(Slice<T, elements>& slice, int thread, const T (&loaded)[count]) {
#pragma unroll
    for (int i = 0; i < count; ++i) {
      at<T, elements>(slice, depth(thread, i), element(thread, i)) = loaded[i];
    }
  }
};

/// Walks through slices: load(step) reads one slice into registers while add(step - 1) multiplies
/// the slice before it, and store(step) writes it to the shared slices step % 2. All threads must
/// call it.
template <class Load, class Store, class Add>
__device__ void walk(int steps, const Load& load, const Store& store, const Add& add) {
  if (steps > 0) {
    load(0);
    store(0);
  }
  __syncthreads();
  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps) load(step + 1);
    add(step);
    if (step + 1 < steps) store(step + 1);
    __syncthreads();
  }
}

/// A thread's part of a tile: v[i][j] is the tile's element (row(i), column(j)).
template <class T, int M, int N, class How = Plain>
class Sums {
 public:
  static constexpr int rows = M / side, columns = N / side;
  T v[rows][columns] = {};

  __device__ explicit Sums(int thread) : place_m_(thread / side), place_n_(thread % side) {}
  __device__ int row(int i) const { return own(place_m_, i); }
  __device__ int column(int j) const { return own(place_n_, j); }

  /// v += a^T b for slices a and b, and adds the row sums of `a` if `row_sums` is set. All threads
  /// must call it.
  template <bool row_sums>
  __device__ void add(const Slice<T, M>& a, const Slice<T, N>& b) {
#pragma unroll
    for (int k = 0; k < depth_step; ++k) {
      T am[rows], bn[columns];
#pragma unroll
      for (int h = 0; h < rows / 4; ++h) {
        const Quad<T> quad = a[k][place_m_ + side * h];
#pragma unroll
        for (int i = 0; i < 4; ++i) am[4 * h + i] = quad.v[i];
      }
#pragma unroll
      for (int h = 0; h < columns / 4; ++h) {
        const Quad<T> quad = b[k][place_n_ + side * h];
#pragma unroll
        for (int i = 0; i < 4; ++i) bn[4 * h + i] = quad.v[i];
      }
#pragma unroll
      for (int i = 0; i < rows; ++i) {
#pragma unroll
        for (int j = 0; j < columns; ++j) v[i][j] += am[i] * bn[j];
      }
      if constexpr (row_sums) {
#pragma unroll
        for (int i = 0; i < rows; ++i) row_sum_[i] += am[i];
      }
    }
  }

  /// Completes the row sums. All threads must call it. It returns true to the threads that have row
  /// sums; exactly one thread has the sum of each row.
  __device__ bool finish_row_sums() {
    return place_n_ == 0;
  }
  __device__ T row_sum(int i) const {
    return row_sum_[i];
  }

 private:
  __device__ static constexpr int own(int place, int i) {
    return (place + side * (i / 4)) * 4 + i % 4;
  }
  int place_m_, place_n_;
  T row_sum_[rows] = {};
};

/// A warp computes 32 rows and `width` columns: 2 x width / 8 of the tensor core's tiles. The
/// assignment of the tile's rows to rows of fragments is free, and so is the order of the depth
/// within a step. They are chosen such that a lane's numbers are neighbours, read 16 bytes at a
/// time, and that lanes use different banks. With g = lane / 4, t = lane % 4:
///
///   depth 2 t, 2 t + 1               is depth t, t + 4 of the fragments
///   row 4 g + 2 h + i                is row g + 8 i of fragment h
///   column 32 q + 4 c + first + r    is column c of fragment (q, r); a lane has c = g in the
///                                    fragments of b, and c = 2 t, 2 t + 1 in those of the sums
template <int M, int N>
class Sums<float, M, N, SplitTf32> {
  static constexpr int warps_m = M / 32, warps_n = threads / warp_lanes / warps_m;
  static constexpr int width = N / warps_n;  // columns of a warp
  // a warp of 16 columns uses half of the fragments
  static constexpr int r_count = width < 32 ? 2 : 4;
  static constexpr int q_count = width < 32 ? 1 : width / 32;

 public:
  static constexpr int rows = 4, columns = 2 * r_count * q_count;
  float v[rows][columns] = {};

  __device__ explicit Sums(int thread)
      : g_(thread % warp_lanes / 4),
        t_(thread % 4),
        first_row_(thread / warp_lanes % warps_m * 32),
        first_column_(thread / warp_lanes / warps_m * (width < 32 ? r_count : width)) {}
  __device__ int row(int i) const { return first_row_ + 4 * g_ + i; }
  __device__ int column(int j) const {
    const int q = j / (2 * r_count), odd = j / r_count % 2, r = j % r_count;
    return first_column_ + 32 * q + 4 * (2 * t_ + odd) + r;
  }

  template <bool row_sums>
  __device__ void add(const Slice<float, M>& a, const Slice<float, N>& b) {
    const Quad<float> even = a[2 * t_][first_row_ / 4 + g_];
    const Quad<float> odd = a[2 * t_ + 1][first_row_ / 4 + g_];
    Tf32 a_hi[2][4], a_lo[2][4];
#pragma unroll
    for (int i = 0; i < rows; ++i) {
      const int h = i / 2, half = i % 2;
      split_tf32(even.v[i], a_hi[h][half], a_lo[h][half]);
      split_tf32(odd.v[i], a_hi[h][2 + half], a_lo[h][2 + half]);
      if constexpr (row_sums) row_sum_[i] += even.v[i] + odd.v[i];
    }
#pragma unroll
    for (int q = 0; q < q_count; ++q) {
      Tf32 b_hi[r_count][2], b_lo[r_count][2];
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        float from[r_count];
        read(from, b[2 * t_ + k], first_column_ + 32 * q + 4 * g_);
#pragma unroll
        for (int r = 0; r < r_count; ++r) split_tf32(from[r], b_hi[r][k], b_lo[r][k]);
      }
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        // The small products come first. Neighbouring instructions do not wait for each other.
        float sum[r_count][4] = {};
        multiply(sum, a_lo[h], b_hi);
        multiply(sum, a_hi[h], b_lo);
        multiply(sum, a_hi[h], b_hi);
#pragma unroll
        for (int r = 0; r < r_count; ++r) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            v[2 * h + i / 2][(2 * q + i % 2) * r_count + r] += sum[r][i];
          }
        }
      }
    }
  }

  __device__ bool finish_row_sums() {
#pragma unroll
    for (int i = 0; i < rows; ++i) {
      row_sum_[i] += __shfl_xor_sync(all_lanes, row_sum_[i], 1);
      row_sum_[i] += __shfl_xor_sync(all_lanes, row_sum_[i], 2);
    }
    return t_ == 0 && first_column_ == 0;
  }
  __device__ float row_sum(int i) const {
    return row_sum_[i];
  }

 private:
  __device__ static void read(float (&to)[4], const Quad<float> (&from)[N / 4 + 1], int column) {
    const Quad<float> quad = from[column / 4];
#pragma unroll
    for (int r = 0; r < 4; ++r) to[r] = quad.v[r];
  }
  __device__ static void read(float (&to)[2], const Quad<float> (&from)[N / 4 + 1], int column) {
    to[0] = from[column / 4].v[column % 4];
    to[1] = from[column / 4].v[column % 4 + 1];
  }
  __device__ static void multiply(float (&sum)[r_count][4], const Tf32 (&a)[4],
                                  const Tf32 (&b)[r_count][2]) {
#pragma unroll
    for (int r = 0; r < r_count; ++r) multiply_tf32(sum[r], a, b[r], sum[r]);
  }

  int g_, t_, first_row_, first_column_;
  float row_sum_[rows] = {};
};

#endif

}  // namespace tile
}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
