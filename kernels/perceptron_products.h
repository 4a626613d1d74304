// Products of small matrices in a block's shared memory, by teams of whole warps. The pass of a
// small perceptron is made of them (perceptron_task.h).
//
// Who does what  A warp computes 10 rows by 40 features of a layer's outputs or input gradients. A
//                lane computes five by five of them over half of the depth, 16 bytes of the depth
//                at a time; lanes 16 apart then add their sums. A tangent is a product of its own,
//                with two pairs of operands. A tile of a weight gradient is 40 by 40, of which a
//                lane computes five by ten. With one input or one output, sums stay in registers,
//                and a lane takes four columns of every other row, or half of a row. Other narrow
//                products take one thread per element. Sums have a fixed order: rows ascending;
//                depth ascending in two halves; with one input or one output, rows in two halves.
//                All teams of a block pass the same barriers.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "kernels/passes.h"
#include "kernels/perceptron.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace perceptron {

/// The rows and columns of a warp's tile, and a lane's part of them.
constexpr int tile_rows = 10, tile_columns = 40, lane_rows = 5, lane_columns = 5;
/// The row of a lane that both halves of a warp keep, and the first row that a half gives away.
constexpr int middle_row = lane_rows / 2, given_row = middle_row + 1;
/// A tile of a weight gradient has 40 outputs by 40 inputs, of which a lane computes this part.
constexpr int tile_weights = 40, lane_outputs = 5, lane_inputs = 10;
constexpr int overrun = tile_columns;
/// The number of features that perceptrons in the literature have, and the distance between rows of
/// as many weights. Loops over them are also compiled with these sizes known.
constexpr int usual_width = 40, usual_stride = 44;

#if defined(KSHOT_SIMT) || defined(__CUDACC__)

/// Two and four neighbouring scalars, read and written in one access.
template <class T>
struct alignas(2 * sizeof(T)) Pair {
  T v[2];
};
template <class T>
struct alignas(16) Quad {
  T v[4];
};
/// The part of a tile's operands that a lane reads in one access: 16 bytes of floats. Doubles are
/// read one by one, so that their sums stay in registers.
template <class T>
struct alignas(sizeof(T) == 4 ? 16 : sizeof(T)) Several {
  T v[sizeof(T) == 4 ? 4 : 1];
};
template <class T>
constexpr int several = sizeof(Several<T>) / sizeof(T);

/// The threads that compute a task's pass together: whole warps.
struct Team {
  int thread;  ///< index in 0 .. threads - 1
  int threads;
};

__device__ inline int lesser(int a, int b) {
  return a < b ? a : b;
}

// ---- products of a block's matrices ----

/// The terms of c[i][j] = sum_d a[i][d] b[j][d] and of its derivative along (a', b') that a product
/// computes.
enum Terms : unsigned { values = 1, first_dot = 2, second_dot = 4 };
constexpr unsigned both_dots = first_dot | second_dot;
constexpr unsigned all_terms = values | both_dots;

/// A matrix in the block's memory. Element (i, d) is at i * stride + d, or at d * stride + i.
template <class T>
struct Matrix {
  const T* value;
  const T* dot;
  int stride;
};

/// The sizes of a product.
struct ProductSize {
  int rows, columns, depth;
};

/// An element of a product, and its derivative.
template <class T>
struct Element {
  T value, dot;
};

/// Says whether the values of an operand are needed, and whether its derivatives are.
template <unsigned terms, bool first, class T>
struct Fragment {
  static constexpr bool plain = (terms & (values | (first ? second_dot : first_dot))) != 0;
  static constexpr bool dotted = (terms & (first ? first_dot : second_dot)) != 0;
};

template <unsigned terms, class T>
__device__ __forceinline__ void multiply_add(Element<T>& sum, T a, T a_dot, T b, T b_dot) {
  if constexpr ((terms & values) != 0) sum.value += a * b;
  if constexpr ((terms & first_dot) != 0) sum.dot += a_dot * b;
  if constexpr ((terms & second_dot) != 0) sum.dot += a * b_dot;
}

template <class T>
__device__ __forceinline__ Pair<T> pair_at(const T* address) {
  return *reinterpret_cast<const Pair<T>*>(address);
}
template <class T>
__device__ __forceinline__ Quad<T> quad_at(const T* address) {
  return *reinterpret_cast<const Quad<T>*>(address);
}
template <class T>
__device__ __forceinline__ void put_quad(T* address, const Quad<T>& quad) {
  *reinterpret_cast<Quad<T>*>(address) = quad;
}
template <class T>
__device__ __forceinline__ Several<T> several_at(const T* address) {
  return *reinterpret_cast<const Several<T>*>(address);
}

/// The part of a tile that a lane computes: five rows by five columns, over half of the depth.
template <bool along>
struct TilePlace {
  // Neighbouring lanes read the same of b, and lanes two apart the same of a. A wide load then
  // takes two passes over the banks instead of four. The order of the columns puts the fours of
  // features that eight lanes store at the same time into different banks.
  int group, half;  ///< which row of every two rows; which half of the warp
  int column;       ///< the lane's place among the columns
  int top, left;    ///< the lane's first row, the tile's first column

  __device__ explicit TilePlace(int lane)
      : group(lane & 1),
        half(lane >> 4),
        column(((lane >> 1) & 1) + (lane & 4) + ((lane >> 2) & 2)) {}
  /// The order of the halves' rows is such that the rows that one half gives away are those that
  /// the other half keeps.
  __device__ int row_at(int i) const {
    const int shift = half != 0 ? 2 * given_row : 0;
    return top + 2 * i + (i < middle_row ? shift : i > middle_row ? -shift : 0);
  }
  __device__ int column_at(int j) const {
    if (along) return left + column + 8 * j;
    return left + (j < 4 ? 4 * column + j : 32 + column);
  }
};

/// The addresses at which a lane reads its operands. In full tiles only three of a's rows and the
/// first of b's have an address of their own. The others follow at distances that the compiler may
/// know.
template <unsigned terms, bool along, bool full, class T>
struct TileOperands {
  using A = Fragment<terms, true, T>;
  using B = Fragment<terms, false, T>;
  using Place = TilePlace<along>;
  const T *a_value[lane_rows], *a_dot[lane_rows], *b_value[lane_columns], *b_dot[lane_columns];
  int a_stride, b_stride;

  __device__ __forceinline__ TileOperands(const Matrix<T>& a, const Matrix<T>& b,
                                          const ProductSize& size, const Place& place, int begin)
      : a_stride(a.stride), b_stride(b.stride) {
#pragma unroll
    for (int i = 0; i < lane_rows; ++i) {
      const int row = full ? place.row_at(leader(i)) : lesser(place.row_at(i), size.rows - 1);
      a_value[i] = a.value + row * a.stride + begin;
      a_dot[i] = a.dot + row * a.stride + begin;
    }
#pragma unroll
    for (int j = 0; j < lane_columns; ++j) {
      const int column = full ? place.column_at(0) : lesser(place.column_at(j), size.columns - 1);
      const int at = along ? column * b.stride + begin : place.column_at(j) + begin * b.stride;
      b_value[j] = b.value + at;
      b_dot[j] = b.dot + at;
    }
  }
  /// The row whose address row i is computed from.
  __device__ static constexpr int leader(int i) {
    return i < middle_row ? 0 : i == middle_row ? middle_row : given_row;
  }
  __device__ __forceinline__ const T* of_a(const T* const (&of)[lane_rows], int i) const {
    return full ? of[leader(i)] + 2 * (i - leader(i)) * a_stride : of[i];
  }
  __device__ __forceinline__ const T* of_b(const T* const (&of)[lane_columns], int j) const {
    return full ? of[0] + 8 * j * b_stride : of[j];
  }
  /// Reads the next 16 bytes of the depth of every row of a, and of every column of b.
  __device__ __forceinline__ void read(Several<T> (&x)[lane_rows], Several<T> (&x_dot)[lane_rows],
                                       Several<T> (&w)[lane_columns],
                                       Several<T> (&w_dot)[lane_columns]) const {
#pragma unroll
    for (int i = 0; i < lane_rows; ++i) {
      if constexpr (A::plain) x[i] = several_at(of_a(a_value, i));
      if constexpr (A::dotted) x_dot[i] = several_at(of_a(a_dot, i));
    }
    if constexpr (along) {
#pragma unroll
      for (int j = 0; j < lane_columns; ++j) {
        if constexpr (B::plain) w[j] = several_at(of_b(b_value, j));
        if constexpr (B::dotted) w_dot[j] = several_at(of_b(b_dot, j));
      }
    } else {
#pragma unroll
      for (int e = 0; e < several<T>; ++e) {
        Quad<T> four = {}, four_dot = {};
        if constexpr (B::plain) {
          four = quad_at(b_value[0] + e * b_stride);
          w[4].v[e] = b_value[4][e * b_stride];
        }
        if constexpr (B::dotted) {
          four_dot = quad_at(b_dot[0] + e * b_stride);
          w_dot[4].v[e] = b_dot[4][e * b_stride];
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) w[j].v[e] = four.v[j], w_dot[j].v[e] = four_dot.v[j];
      }
    }
  }
  /// Moves the addresses by one turn of both halves of the warp.
  __device__ __forceinline__ void advance() {
    constexpr int turns = 2 * several<T>;
#pragma unroll
    for (int i = 0; i < lane_rows; ++i) a_value[i] += turns, a_dot[i] += turns;
#pragma unroll
    for (int j = 0; j < lane_columns; ++j) {
      const int next = turns * (along ? 1 : b_stride);
      b_value[j] += next;
      b_dot[j] += next;
    }
  }
};

/// A lane's sums of a tile.
template <class T>
using TileSums = Element<T>[lane_rows][lane_columns];

/// Adds the products of a lane's five rows with one element of column j.
template <unsigned terms, class T>
__device__ __forceinline__ void multiply_column(TileSums<T>& sum, int j, const T (&x)[lane_rows],
                                                const T (&x_dot)[lane_rows], T w, T w_dot) {
#pragma unroll
  for (int i = 0; i < lane_rows; ++i) multiply_add<terms>(sum[i][j], x[i], x_dot[i], w, w_dot);
}

/// Adds the rest of the depth after whole turns, element by element.
template <unsigned terms, bool along, class T>
__device__ __forceinline__ void multiply_rest(TileSums<T>& sum, const Matrix<T>& a,
                                              const Matrix<T>& b, const ProductSize& size,
                                              const TilePlace<along>& place, int first) {
  using A = Fragment<terms, true, T>;
  using B = Fragment<terms, false, T>;
#pragma unroll 1
  for (int d = first + place.half; d < size.depth; d += 2) {
    T x[lane_rows] = {}, x_dot[lane_rows] = {};
#pragma unroll
    for (int i = 0; i < lane_rows; ++i) {
      const int at = lesser(place.row_at(i), size.rows - 1) * a.stride + d;
      if constexpr (A::plain) x[i] = a.value[at];
      if constexpr (A::dotted) x_dot[i] = a.dot[at];
    }
#pragma unroll
    for (int j = 0; j < lane_columns; ++j) {
      const int inside = lesser(place.column_at(j), size.columns - 1);
      const int at = along ? inside * b.stride + d : inside + d * b.stride;
      T w = 0, w_dot = 0;
      if constexpr (B::plain) w = b.value[at];
      if constexpr (B::dotted) w_dot = b.dot[at];
      multiply_column<terms>(sum, j, x, x_dot, w, w_dot);
    }
  }
}

/// Adds the sums of the two halves of the warp. Each half gives two rows to the other and keeps
/// two, and both have the middle row.
template <unsigned terms, class T>
__device__ __forceinline__ void add_halves(TileSums<T>& sum) {
  constexpr int other_half = 16;
  const auto take = [](Element<T>& to, const Element<T>& from) {
    if constexpr ((terms & values) != 0) {
      to.value += __shfl_xor_sync(all_lanes, from.value, other_half);
    }
    if constexpr ((terms & both_dots) != 0) {
      to.dot += __shfl_xor_sync(all_lanes, from.dot, other_half);
    }
  };
#pragma unroll
  for (int j = 0; j < lane_columns; ++j) {
#pragma unroll
    for (int i = 0; i < middle_row; ++i) take(sum[i][j], sum[i + given_row][j]);
    take(sum[middle_row][j], sum[middle_row][j]);
  }
}

/// Stores the rows that the lane's half keeps.
template <bool along, bool full, class T, class Store>
__device__ __forceinline__ void store_tile(const TileSums<T>& sum, const ProductSize& size,
                                           const TilePlace<along>& place, const Store& store) {
#pragma unroll
  for (int i = 0; i <= middle_row; ++i) {
    const int row = place.row_at(i);
    if ((!full && row >= size.rows) || (i == middle_row && place.half != 0)) continue;
    if constexpr (along) {
#pragma unroll
      for (int j = 0; j < lane_columns; ++j) {
        if (full || place.column_at(j) < size.columns) store(row, place.column_at(j), sum[i][j]);
      }
    } else {  // elements beyond the columns of a matrix of features are padding
      if (full || place.column_at(0) < size.columns) store.four(row, place.column_at(0), sum[i]);
      if (full || place.column_at(4) < size.columns) store(row, place.column_at(4), sum[i][4]);
    }
  }
}

/// A product by tiles. a[i][d] is at i * stride + d. b[j][d] is there too if `along`, else at d *
/// stride + j; then up to `overrun` scalars after the matrix are also read. A lane takes five rows
/// by five columns, and every other 16 bytes of the depth; the other half of the warp takes the
/// rest of the depth. The halves then exchange sums: each half keeps two rows, to which the other
/// half adds its part, and both have the fifth row. In the first half, a sum begins at
/// store.first(column). Results go to store(row, column, sum), and to store.four(row, column, sums)
/// if not `along`. `full` says that all tiles are full in both directions.
template <unsigned terms, bool along, bool full, class T, class Store>
__device__ __forceinline__ void tile_product(Team team, const Matrix<T>& a, const Matrix<T>& b,
                                             const ProductSize& size, const Store& store) {
  using Operands = TileOperands<terms, along, full, T>;
  constexpr int turn = several<T>;
  TilePlace<along> place(team.thread & 31);
  const int warps = team.threads / 32;
  const int across = (size.columns + tile_columns - 1) / tile_columns;
  const int tiles = (size.rows + tile_rows - 1) / tile_rows * across;
  // The beginning of this half of the warp; then pairs of turns, and the rest of the depth.
  const int pairs = size.depth / (2 * turn), begin = turn * place.half;
  for (int tile = team.thread / 32; tile < tiles; tile += warps) {
    const int down = tile / across;
    place.top = down * tile_rows + place.group;
    place.left = (tile - down * across) * tile_columns;
    Operands operands(a, b, size, place, begin);
    TileSums<T> sum;
#pragma unroll
    for (int j = 0; j < lane_columns; ++j) {
      Element<T> first =
          store.first(full ? place.column_at(j) : lesser(place.column_at(j), size.columns - 1));
      if (place.half != 0) first = {};
#pragma unroll
      for (int i = 0; i < lane_rows; ++i) sum[i][j] = first;
    }
#pragma unroll(full&& terms == values ? 5 : 1)
    for (int pair = 0; pair < pairs; ++pair) {
      Several<T> x[lane_rows], x_dot[lane_rows], w[lane_columns] = {}, w_dot[lane_columns] = {};
      operands.read(x, x_dot, w, w_dot);
#pragma unroll
      for (int e = 0; e < turn; ++e) {
        T of_x[lane_rows] = {}, of_x_dot[lane_rows] = {};
#pragma unroll
        for (int i = 0; i < lane_rows; ++i) {
          if constexpr (Operands::A::plain) of_x[i] = x[i].v[e];
          if constexpr (Operands::A::dotted) of_x_dot[i] = x_dot[i].v[e];
        }
#pragma unroll
        for (int j = 0; j < lane_columns; ++j) {
          multiply_column<terms>(sum, j, of_x, of_x_dot, w[j].v[e], w_dot[j].v[e]);
        }
      }
      operands.advance();
    }
    if constexpr (!full) multiply_rest<terms, along>(sum, a, b, size, place, 2 * turn * pairs);
    add_halves<terms>(sum);
    store_tile<along, full>(sum, size, place, store);
  }
}

/// Computes c[i][j] = sum_d a[i][d] b[j][d] where it is too narrow for tiles. Each thread computes
/// one element at a time.
template <unsigned terms, class T, class Store>
__device__ __forceinline__ void narrow_product(Team team, const Matrix<T>& a, int a_step,
                                               int a_depth, const Matrix<T>& b, int b_step,
                                               int b_depth, const ProductSize& size,
                                               const Store& store) {
  const int elements = size.rows * size.columns;
  for (int e = team.thread; e < elements; e += team.threads) {
    const int i = e / size.columns, j = e - i * size.columns;
    int a_at = i * a_step, b_at = j * b_step;
    Element<T> sum = store.first(j);
#pragma unroll 4
    for (int d = 0; d < size.depth; ++d, a_at += a_depth, b_at += b_depth) {
      using A = Fragment<terms, true, T>;
      using B = Fragment<terms, false, T>;
      T x = 0, x_dot = 0, w = 0, w_dot = 0;
      if constexpr (A::plain) x = a.value[a_at];
      if constexpr (A::dotted) x_dot = a.dot[a_at];
      if constexpr (B::plain) w = b.value[b_at];
      if constexpr (B::dotted) w_dot = b.dot[b_at];
      multiply_add<terms>(sum, x, x_dot, w, w_dot);
    }
    store(i, j, sum);
  }
}

/// The product with a depth of one (the layer after one input, or the gradient by the inputs of one
/// output): c[i][j] = a[i] b[j]. The numbers of b are contiguous, and up to three scalars after
/// them are read too. A lane takes four columns of every other row, and keeps what belongs to the
/// columns in registers.
template <unsigned terms, class T, class Store>
__device__ __forceinline__ void outer_product(Team team, const Matrix<T>& a, const Matrix<T>& b,
                                              const ProductSize& size, const Store& store) {
  constexpr int lanes = 16;  // lanes per row
  using A = Fragment<terms, true, T>;
  using B = Fragment<terms, false, T>;
  const int group = team.thread / lanes, groups = team.threads / lanes;
  for (int column = 4 * (team.thread % lanes); column < size.columns; column += 4 * lanes) {
    Quad<T> w = {}, w_dot = {};
    if constexpr (B::plain) w = quad_at(b.value + column);
    if constexpr (B::dotted) w_dot = quad_at(b.dot + column);
    Element<T> first[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) first[j] = store.first(lesser(column + j, size.columns - 1));
#pragma unroll(sizeof(T) == 4 ? 5 : 1)
    for (int i = group; i < size.rows; i += groups) {
      T x = 0, x_dot = 0;
      if constexpr (A::plain) x = a.value[i * a.stride];
      if constexpr (A::dotted) x_dot = a.dot[i * a.stride];
      Element<T> sum[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        sum[j] = first[j];
        multiply_add<terms>(sum[j], x, x_dot, w.v[j], w_dot.v[j]);
      }
      store.four(i, column, sum);
    }
  }
}

/// The product with one column (a layer with one output): two lanes per row, each of which takes
/// every other four elements of the depth.
template <unsigned terms, class T, class Store>
__device__ __forceinline__ void column_product(Team team, const Matrix<T>& a, const Matrix<T>& b,
                                               const ProductSize& size, const Store& store) {
  using A = Fragment<terms, true, T>;
  using B = Fragment<terms, false, T>;
  const int half = team.thread & 1, whole = size.depth & ~7;
  // All lanes of a warp take part when they exchange sums.
  for (int down = 0; down < size.rows; down += team.threads / 2) {
    const int row = down + (team.thread >> 1);
    const int a_at = lesser(row, size.rows - 1) * a.stride;
    Element<T> sum = {};
    if (half == 0) sum = store.first(0);
#pragma unroll(sizeof(T) == 4 ? 5 : 1)
    for (int d = 0; d < whole; d += 8) {
      Quad<T> x = {}, x_dot = {}, w = {}, w_dot = {};
      const int at = d + 4 * half;
      if constexpr (A::plain) x = quad_at(a.value + a_at + at);
      if constexpr (A::dotted) x_dot = quad_at(a.dot + a_at + at);
      if constexpr (B::plain) w = quad_at(b.value + at);
      if constexpr (B::dotted) w_dot = quad_at(b.dot + at);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        multiply_add<terms>(sum, x.v[e], x_dot.v[e], w.v[e], w_dot.v[e]);
      }
    }
#pragma unroll 1
    for (int d = whole + half; d < size.depth; d += 2) {
      T x = 0, x_dot = 0, w = 0, w_dot = 0;
      if constexpr (A::plain) x = a.value[a_at + d];
      if constexpr (A::dotted) x_dot = a.dot[a_at + d];
      if constexpr (B::plain) w = b.value[d];
      if constexpr (B::dotted) w_dot = b.dot[d];
      multiply_add<terms>(sum, x, x_dot, w, w_dot);
    }
    if constexpr ((terms & values) != 0) sum.value += __shfl_xor_sync(all_lanes, sum.value, 1);
    if constexpr ((terms & both_dots) != 0) sum.dot += __shfl_xor_sync(all_lanes, sum.dot, 1);
    if (half == 0 && row < size.rows) store(row, 0, sum);
  }
}

template <unsigned terms, bool along, class T, class Store>
__device__ __forceinline__ void wide_product(Team team, bool usual, const Matrix<T>& a,
                                             const Matrix<T>& b, const ProductSize& size,
                                             const Store& store) {
  if (sizeof(T) == 4 && usual && size.rows % tile_rows == 0) {
    Store known = store;
    known.stride = usual_width;
    tile_product<terms, along, true>(team, Matrix<T>{a.value, a.dot, usual_width},
                                     Matrix<T>{b.value, b.dot, usual_stride},
                                     {size.rows, usual_width, usual_width}, known);
  } else {
    tile_product<terms, along, false>(team, a, b, size, store);
  }
}

template <unsigned terms, bool along, class T, class Store>
__device__ __forceinline__ void product(Team team, ProductWay way, const Matrix<T>& a,
                                        const Matrix<T>& b, const ProductSize& size,
                                        const Store& store) {
  const bool usual = way == ProductWay::usual_tiles;
  if (usual || way == ProductWay::tiles) {
    if constexpr (terms == all_terms) {  // all sums together would not fit into registers
      wide_product<values, along>(team, usual, a, b, size, store.template part<values>());
      wide_product<both_dots, along>(team, usual, a, b, size, store.template part<both_dots>());
    } else {
      wide_product<terms, along>(team, usual, a, b, size, store);
    }
  } else if (way == ProductWay::outer) {  // with one input, the rows of weights are contiguous
    outer_product<terms>(team, a, b, size, store);
  } else if (along && way == ProductWay::column) {
    column_product<terms>(team, a, b, size, store);
  } else {
    narrow_product<terms>(team, a, a.stride, 1, b, along ? b.stride : 1, along ? 1 : b.stride, size,
                          store);
  }
}

/// Sums over rows: c[o][k] = sum_r g[r][o] x[r][k]. Rows of g and x are at r * stride. size.rows is
/// the number of outputs o, and size.columns the number of inputs k. A lane computes five by ten
/// elements: the outputs o = its own + 8 i, and two fours and one pair of inputs k. Up to `overrun`
/// scalars after the matrices are read too. Results go to store(o, k, c), and to store.put<n>(o, k,
/// n results), of which some may be beyond the columns. If there are biases, bias(0, o, sum_r
/// g[r][o]) receives their gradients. `full` says that all tiles are full.
template <unsigned terms, bool full, class T, class Store>
__device__ __forceinline__ void sum_over_rows(Team team, const Matrix<T>& g, const Matrix<T>& x,
                                              const ProductSize& size, const Store& store,
                                              bool biased, const Store& bias) {
  using G = Fragment<terms, true, T>;
  using X = Fragment<terms, false, T>;
  // Neighbouring lanes read the same of x. A wide load then takes two passes over the banks instead
  // of four.
  const int thread = team.thread, warps = team.threads / 32;
  const int own_output = thread & 7, own_input = (thread >> 3) & 3;
  const int across = (size.columns + tile_weights - 1) / tile_weights;
  const int tiles = (size.rows + tile_weights - 1) / tile_weights * across;
  for (int tile = thread / 32; tile < tiles; tile += warps) {
    const int down = tile / across;
    const int output = down * tile_weights + own_output;
    const int left = (tile - down * across) * tile_weights;
    const int fours = left + 4 * own_input, pair = left + 32 + 2 * own_input;
    Element<T> sum[lane_outputs][lane_inputs] = {}, of_bias[lane_outputs] = {};
    const auto add_row = [&](int d) {
      T out[lane_outputs] = {}, out_dot[lane_outputs] = {};
#pragma unroll
      for (int i = 0; i < lane_outputs; ++i) {
        if constexpr (G::plain) out[i] = g.value[output + d * g.stride + 8 * i];
        if constexpr (G::dotted) out_dot[i] = g.dot[output + d * g.stride + 8 * i];
        of_bias[i].value += out[i];
        of_bias[i].dot += out_dot[i];
      }
      const auto multiply = [&](int j, T in, T in_dot) {
#pragma unroll
        for (int i = 0; i < lane_outputs; ++i) {
          multiply_add<terms>(sum[i][j], out[i], out_dot[i], in, in_dot);
        }
      };
#pragma unroll
      for (int f = 0; f < 2; ++f) {
        Quad<T> in = {}, in_dot = {};
        if constexpr (X::plain) in = quad_at(x.value + fours + d * x.stride + 16 * f);
        if constexpr (X::dotted) in_dot = quad_at(x.dot + fours + d * x.stride + 16 * f);
#pragma unroll
        for (int e = 0; e < 4; ++e) multiply(4 * f + e, in.v[e], in_dot.v[e]);
      }
      Pair<T> in = {}, in_dot = {};
      if constexpr (X::plain) in = pair_at(x.value + pair + d * x.stride);
      if constexpr (X::dotted) in_dot = pair_at(x.dot + pair + d * x.stride);
      multiply(8, in.v[0], in_dot.v[0]);
      multiply(9, in.v[1], in_dot.v[1]);
    };
    constexpr int unrolled_rows = sizeof(T) == 4 ? 2 : 1;
    int d = 0;
#pragma unroll 1
    for (; d + unrolled_rows <= size.depth; d += unrolled_rows) {
#pragma unroll
      for (int e = 0; e < unrolled_rows; ++e) add_row(d + e);
    }
    if (d < size.depth) add_row(d);
#pragma unroll
    for (int i = 0; i < lane_outputs; ++i) {
      const int o = output + 8 * i;
      if (!full && o >= size.rows) continue;
      if (full || fours < size.columns) store.template put<4>(o, fours, sum[i]);
      if (full || fours + 16 < size.columns) {
        store.template put<4>(o, fours + 16, sum[i] + 4);
      }
      if (full || pair < size.columns) store.template put<2>(o, pair, sum[i] + 8);
      if (biased && fours == 0) bias(0, o, of_bias[i]);
    }
  }
}

#endif

}  // namespace perceptron
}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
