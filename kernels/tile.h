// Tiles of matrix products (conv.cu, product.cu, relation.cu).
//
// A block of 64 threads takes a tile of M x N sums and walks the depth in steps of 8: two slices
// lie in shared memory, depth by element, and each thread owns (M / 8) x (N / 8) sums, in groups of
// four neighbours, so that it reads slices 16 bytes at a time: 4 reads for 64 multiply-adds with M
// = N = 64. Sums run in ascending order of the depth and are never split: an element has the same
// bits in every tile. How slices are filled is the kernel's own business.
#pragma once

#include <type_traits>

#include "kernels/device.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace tile {

constexpr int threads = 64;
constexpr int side = 8;        // threads are side x side over a tile
constexpr int depth_step = 8;  // of the sum, a slice

// ---- choice ----

inline int tiles(int extent, int tile) {
  return (extent + tile - 1) / tile;
}

/// 64, unless tiles of 32 save more than an eighth of the padded extent: theirs are the slower
/// multiply-adds, with as many reads for fewer of them.
inline bool small_tile(int extent) {
  return tiles(extent, 32) * 32 * 8 < tiles(extent, 64) * 64 * 7;
}

/// Calls body(integral constants M, N). Sums of 64 x 64 doubles do not fit a thread's registers.
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

#if defined(KSHOT_SIMT) || defined(__CUDACC__)

/// Four neighbours, read at once.
template <class T>
struct alignas(16) Quad {
  T v[4];
};

/// A slice of a matrix: [depth_step][elements], padded by one quad so that threads that store along
/// the depth meet different banks.
template <class T, int elements>
using Slice = Quad<T>[depth_step][elements / 4 + 1];

template <class T, int elements>
__device__ T& at(Slice<T, elements>& slice, int k, int element) {
  return slice[k][element / 4].v[element % 4];
}

/// Element `i` of a thread's own, within the tile.
__device__ constexpr int own(int place, int i) {
  return (place + side * (i / 4)) * 4 + i % 4;
}

/// What a thread loads of a slice, for whom memory is contiguous along the depth or along the
/// elements: neighbouring threads take neighbours there.
template <int elements, bool along_depth>
struct Loads {
  static constexpr int count = elements * depth_step / threads;
  __device__ static int element(int thread, int i) {
    return along_depth ? thread / depth_step + threads / depth_step * i : thread % elements;
  }
  __device__ static int depth(int thread, int i) {
    return along_depth ? thread % depth_step : thread / elements + threads / elements * i;
  }
};

/// Goes through slices: load(step) reads one into registers while add(step) multiplies the one
/// before, store(step) writes it to the shared slices step % 2. All threads call it.
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

template <class T, int M, int N>
struct Sums {
  static constexpr int rows = M / side, columns = N / side;
  T v[rows][columns] = {};

  /// v += a slice of `a`, transposed, times one of `b`; also the row sums of `a`, where wanted.
  template <bool row_sums>
  __device__ void add(const Slice<T, M>& a, const Slice<T, N>& b, int place_m, int place_n,
                      T (&sum)[rows]) {
#pragma unroll
    for (int k = 0; k < depth_step; ++k) {
      T am[rows], bn[columns];
#pragma unroll
      for (int h = 0; h < rows / 4; ++h) {
        const Quad<T> quad = a[k][place_m + side * h];
#pragma unroll
        for (int i = 0; i < 4; ++i) am[4 * h + i] = quad.v[i];
      }
#pragma unroll
      for (int h = 0; h < columns / 4; ++h) {
        const Quad<T> quad = b[k][place_n + side * h];
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
        for (int i = 0; i < rows; ++i) sum[i] += am[i];
      }
    }
  }
};

#endif

}  // namespace tile
}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
