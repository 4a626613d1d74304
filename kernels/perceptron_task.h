// One pass of a small perceptron by a team of threads: what the kernels of whole inner loops are
// made of (perceptron.cu, gaussian_perceptron.cu).
//
// Mathematics   Layer l: a_l = W_l y_{l-1} + b_l, y_l = f_l(a_l); y_0 the rows, y_L the outputs.
//               gradient    g_l = f_l'(a_l) (W_{l+1}^T g_{l+1}), g_L from the loss;
//                           dL/dW_l = sum_rows g_l y_{l-1}^T, dL/db_l = sum_rows g_l
//               derivative  of the gradient along a direction u of the weights, by the product rule
//               in
//                           all of the above (forward over reverse, Pearlmutter 1994)
//               f' and f'' a' are known by y and y' alone (tanh: 1 - y^2 and -2 y y'), so that a is
//               not kept.
// Layout        In the block's shared memory, for each team: vectors of weights, their rows padded
// to
//               4 times an odd number; features of all layers with their tangents. What nobody
//               reads any more is overwritten: outputs by the loss's gradient, a layer's inputs by
//               the gradient two layers below.
// Who does what A warp makes 10 rows by 48 features of a layer's outputs or input gradients: a lane
//               five by three of them, values and tangents together, so that operands are loaded
//               once. A weight gradient: 40 by 40, a lane five by ten. One input or one output:
//               sums in registers, a lane a column of some rows, or a pair of weights, or half of a
//               row. What else is narrow: a thread an element. Sums have a fixed order: rows
//               ascending; depth ascending, that of one output in two halves. All teams of a block
//               pass the same barriers.
#pragma once

#include "kernels/passes.h"
#include "kernels/perceptron.h"
#include "kshot/network.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace perceptron {

constexpr int most_threads = 256;  ///< of a block

/// Sets where things lie, for sets of at most so many rows.
void lay_out(Perceptron& network, int rows);
/// Threads and blocks of a plan whose other parts are there; false where it does not fit.
bool choose_threads(PerceptronPlan& plan, const DeviceLimits& device);

/// Rows and columns of a tile that a warp makes, and a lane's part of them.
constexpr int tile_rows = 10, tile_columns = 48, lane_rows = 5, lane_columns = 3;
/// The same of a weight gradient: 40 outputs by 40 inputs.
constexpr int tile_weights = 40, lane_outputs = 5, lane_pairs = 5;
constexpr int overrun = tile_columns;

/// Scalars of a team's memory with so many vectors of weights: these, then features, tangents, sums
/// of losses.
constexpr int team_scalars(const Perceptron& n, int vectors) {
  return vectors * (n.stored_weights + overrun) + n.features + overrun + n.layer[0].inputs_at +
         overrun + (n.rows + 3) / 4 * 4;
}

#if defined(KSHOT_SIMT) || defined(__CUDACC__)

constexpr double log_sqrt_two_pi = 0.91893853320467274178;

/// Two and four neighbouring scalars, for wide accesses.
template <class T>
struct alignas(2 * sizeof(T)) Pair {
  T x, y;
};
template <class T>
struct alignas(16) Quad {
  T v[4];
};
/// As many as 16 bytes hold.
template <class T>
struct alignas(16) Several {
  T v[16 / sizeof(T)];
};

/// Threads that take a task's pass together: whole warps.
struct Team {
  int thread;  ///< of 0 .. threads - 1
  int threads;
};

__device__ inline int lesser(int a, int b) {
  return a < b ? a : b;
}

// ---- products of a block's matrices ----

/// c[i][j] = sum_d a[i][d] b[j][d], and its derivative along (a', b'): which of the products.
enum Terms : unsigned { values = 1, first_dot = 2, second_dot = 4 };
constexpr unsigned both_dots = first_dot | second_dot;
constexpr unsigned all_terms = values | both_dots;

/// A matrix in the block's memory: element (i, d) at i * stride + d, or at d * stride + i.
template <class T>
struct Matrix {
  const T* value;
  const T* dot;
  int stride;
};

struct ProductSize {
  int rows, columns, depth;
};

/// A product's element.
template <class T>
struct Element {
  T value, dot;
};

/// Whether an operand's values are needed, and its derivatives.
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
__device__ __forceinline__ Several<T> several_at(const T* address) {
  return *reinterpret_cast<const Several<T>*>(address);
}

/// Both operands' rows are sums over features: a[i][d] at i * stride + d; b likewise where `along`,
/// else b[j][d] at d * stride + j, where up to `overrun` scalars after the matrix are read too. Two
/// groups of five rows, sixteen columns three times: a lane has fifteen elements, and takes 16
/// bytes of an operand's depth at a time. Sums begin at store.first(column) and go up the depth;
/// store(row, column, sum).
template <unsigned terms, bool along, class T, class Store>
__device__ __forceinline__ void tile_product(Team team, const Matrix<T>& a, const Matrix<T>& b,
                                             const ProductSize& size, const Store& store) {
  constexpr int turn = 16 / sizeof(T);
  using A = Fragment<terms, true, T>;
  using B = Fragment<terms, false, T>;
  const int column = team.thread & 15, group = (team.thread >> 4) & 1, warps = team.threads / 32;
  const int across = (size.columns + tile_columns - 1) / tile_columns;
  const int tiles = (size.rows + tile_rows - 1) / tile_rows * across;
  for (int tile = team.thread / 32; tile < tiles; tile += warps) {
    const int down = tile / across;
    const int row = down * tile_rows + group * lane_rows;
    const int first_column = (tile - down * across) * tile_columns + column;
    int a_at[lane_rows], b_at[lane_columns];
#pragma unroll
    for (int i = 0; i < lane_rows; ++i) a_at[i] = lesser(row + i, size.rows - 1) * a.stride;
    Element<T> sum[lane_rows][lane_columns];
#pragma unroll
    for (int j = 0; j < lane_columns; ++j) {
      const int at = first_column + 16 * j, inside = lesser(at, size.columns - 1);
      b_at[j] = along ? inside * b.stride : at;
      const Element<T> first = store.first(inside);
#pragma unroll
      for (int i = 0; i < lane_rows; ++i) sum[i][j] = first;
    }
    const int whole = size.depth / turn * turn;
    int b_row[turn];  // where b's rows of this turn begin
#pragma unroll
    for (int e = 0; e < turn; ++e) b_row[e] = first_column + e * b.stride;
#pragma unroll(sizeof(T) == 4 ? 2 : 1)
    for (int d = 0; d < whole; d += turn) {
      Several<T> x[lane_rows], x_dot[lane_rows];
#pragma unroll
      for (int i = 0; i < lane_rows; ++i) {
        if constexpr (A::plain) x[i] = several_at(a.value + a_at[i] + d);
        if constexpr (A::dotted) x_dot[i] = several_at(a.dot + a_at[i] + d);
      }
#pragma unroll
      for (int j = 0; j < lane_columns; ++j) {
        Several<T> w = {}, w_dot = {};
        if constexpr (along) {
          if constexpr (B::plain) w = several_at(b.value + b_at[j] + d);
          if constexpr (B::dotted) w_dot = several_at(b.dot + b_at[j] + d);
        } else {
#pragma unroll
          for (int e = 0; e < turn; ++e) {
            if constexpr (B::plain) w.v[e] = b.value[b_row[e] + 16 * j];
            if constexpr (B::dotted) w_dot.v[e] = b.dot[b_row[e] + 16 * j];
          }
        }
#pragma unroll
        for (int e = 0; e < turn; ++e) {
#pragma unroll
          for (int i = 0; i < lane_rows; ++i) {
            multiply_add<terms>(sum[i][j], A::plain ? x[i].v[e] : T(0),
                                A::dotted ? x_dot[i].v[e] : T(0), w.v[e], w_dot.v[e]);
          }
        }
      }
#pragma unroll
      for (int e = 0; e < turn; ++e) b_row[e] += turn * b.stride;
    }
#pragma unroll 1
    for (int d = whole; d < size.depth; ++d) {
      T x[lane_rows] = {}, x_dot[lane_rows] = {};
#pragma unroll
      for (int i = 0; i < lane_rows; ++i) {
        if constexpr (A::plain) x[i] = a.value[a_at[i] + d];
        if constexpr (A::dotted) x_dot[i] = a.dot[a_at[i] + d];
      }
#pragma unroll
      for (int j = 0; j < lane_columns; ++j) {
        const int at = b_at[j] + (along ? d : d * b.stride);
        T w = 0, w_dot = 0;
        if constexpr (B::plain) w = b.value[at];
        if constexpr (B::dotted) w_dot = b.dot[at];
#pragma unroll
        for (int i = 0; i < lane_rows; ++i) {
          multiply_add<terms>(sum[i][j], x[i], x_dot[i], w, w_dot);
        }
      }
    }
#pragma unroll
    for (int j = 0; j < lane_columns; ++j) {
      const int c = first_column + 16 * j;
      if (c >= size.columns) continue;
#pragma unroll
      for (int i = 0; i < lane_rows; ++i) {
        if (row + i < size.rows) store(row + i, c, sum[i][j]);
      }
    }
  }
}

/// The same product where it is narrow: a thread an element.
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

/// The product where the depth is one (the layer after one input, the gradient by the inputs of one
/// output): c[i][j] = a[i] b[j], b's numbers one after another. A lane has five columns of every
/// fourth row, and keeps what is of columns in registers.
template <unsigned terms, class T, class Store>
__device__ __forceinline__ void outer_product(Team team, const Matrix<T>& a, const Matrix<T>& b,
                                              const ProductSize& size, const Store& store) {
  constexpr int columns = 5;  // of a lane
  using A = Fragment<terms, true, T>;
  using B = Fragment<terms, false, T>;
  const int column = team.thread & 7, group = team.thread >> 3, groups = team.threads >> 3;
  for (int left = 0; left < size.columns; left += 8 * columns) {
    T w[columns] = {}, w_dot[columns] = {};
    Element<T> first[columns];
#pragma unroll
    for (int j = 0; j < columns; ++j) {
      const int at = lesser(left + column + 8 * j, size.columns - 1);
      if constexpr (B::plain) w[j] = b.value[at];
      if constexpr (B::dotted) w_dot[j] = b.dot[at];
      first[j] = store.first(at);
    }
#pragma unroll 1
    for (int i = group; i < size.rows; i += groups) {
      T x = 0, x_dot = 0;
      if constexpr (A::plain) x = a.value[i * a.stride];
      if constexpr (A::dotted) x_dot = a.dot[i * a.stride];
#pragma unroll
      for (int j = 0; j < columns; ++j) {
        Element<T> sum = first[j];
        multiply_add<terms>(sum, x, x_dot, w[j], w_dot[j]);
        const int at = left + column + 8 * j;
        if (at < size.columns) store(i, at, sum);
      }
    }
  }
}

/// The product with one column (a layer's one output): two lanes a row, each with every other pair
/// of the depth.
template <unsigned terms, class T, class Store>
__device__ __forceinline__ void column_product(Team team, const Matrix<T>& a, const Matrix<T>& b,
                                               const ProductSize& size, const Store& store) {
  using A = Fragment<terms, true, T>;
  using B = Fragment<terms, false, T>;
  const int half = team.thread & 1, whole = size.depth & ~3;
  // all lanes of a warp are there when they exchange sums
  for (int down = 0; down < size.rows; down += team.threads / 2) {
    const int row = down + (team.thread >> 1);
    const int a_at = lesser(row, size.rows - 1) * a.stride;
    Element<T> sum = {};
    if (half == 0) sum = store.first(0);
#pragma unroll 5
    for (int d = 2 * half; d < whole; d += 4) {
      Pair<T> x = {}, x_dot = {}, w = {}, w_dot = {};
      if constexpr (A::plain) x = pair_at(a.value + a_at + d);
      if constexpr (A::dotted) x_dot = pair_at(a.dot + a_at + d);
      if constexpr (B::plain) w = pair_at(b.value + d);
      if constexpr (B::dotted) w_dot = pair_at(b.dot + d);
      multiply_add<terms>(sum, x.x, x_dot.x, w.x, w_dot.x);
      multiply_add<terms>(sum, x.y, x_dot.y, w.y, w_dot.y);
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
__device__ __forceinline__ void product(Team team, bool narrow, const Matrix<T>& a,
                                        const Matrix<T>& b, const ProductSize& size,
                                        const Store& store) {
  if (size.depth == 1) {  // rows of weights of one input lie one after another
    outer_product<terms>(team, a, b, size, store);
  } else if (along && size.columns == 1 && size.depth >= 4) {
    column_product<terms>(team, a, b, size, store);
  } else if (narrow) {
    narrow_product<terms>(team, a, a.stride, 1, b, along ? b.stride : 1, along ? 1 : b.stride, size,
                          store);
  } else {
    tile_product<terms, along>(team, a, b, size, store);
  }
}

/// Sums over rows: c[o][k] = sum_r g[r][o] x[r][k], rows of both at r * stride; size.rows is the
/// number of outputs o, size.columns of inputs k. A lane makes five by ten: o = its own + 8 i, and
/// pairs of k; up to `overrun` scalars after the matrices are read too. store(o, k, c), and
/// store.two(o, k, both of a pair), whose second is beyond the columns where their number is odd.
template <unsigned terms, class T, class Store>
__device__ __forceinline__ void sum_over_rows(Team team, bool narrow, const Matrix<T>& g,
                                              const Matrix<T>& x, const ProductSize& size,
                                              const Store& store) {
  if (narrow) {
    narrow_product<terms>(team, g, 1, g.stride, x, 1, x.stride, size, store);
    return;
  }
  using G = Fragment<terms, true, T>;
  using X = Fragment<terms, false, T>;
  const int thread = team.thread, warps = team.threads / 32;
  const int across = (size.columns + tile_weights - 1) / tile_weights;
  const int tiles = (size.rows + tile_weights - 1) / tile_weights * across;
  for (int tile = thread / 32; tile < tiles; tile += warps) {
    const int down = tile / across;
    const int output = down * tile_weights + ((thread >> 2) & 7);
    const int input = (tile - down * across) * tile_weights + 2 * (thread & 3);
    Element<T> sum[lane_outputs][lane_pairs][2] = {};
#pragma unroll(sizeof(T) == 4 ? 2 : 1)
    for (int d = 0; d < size.depth; ++d) {
      T out[lane_outputs] = {}, out_dot[lane_outputs] = {};
#pragma unroll
      for (int i = 0; i < lane_outputs; ++i) {
        if constexpr (G::plain) out[i] = g.value[output + d * g.stride + 8 * i];
        if constexpr (G::dotted) out_dot[i] = g.dot[output + d * g.stride + 8 * i];
      }
#pragma unroll
      for (int j = 0; j < lane_pairs; ++j) {
        Pair<T> in = {}, in_dot = {};
        if constexpr (X::plain) in = pair_at(x.value + input + d * x.stride + 8 * j);
        if constexpr (X::dotted) in_dot = pair_at(x.dot + input + d * x.stride + 8 * j);
#pragma unroll
        for (int i = 0; i < lane_outputs; ++i) {
          multiply_add<terms>(sum[i][j][0], out[i], out_dot[i], in.x, in_dot.x);
          multiply_add<terms>(sum[i][j][1], out[i], out_dot[i], in.y, in_dot.y);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < lane_outputs; ++i) {
#pragma unroll
      for (int j = 0; j < lane_pairs; ++j) {
        const int o = output + 8 * i, k = input + 8 * j;
        if (o < size.rows && k < size.columns) store.two(o, k, sum[i][j][0], sum[i][j][1]);
      }
    }
  }
}

// ---- one task ----

/// f and f' of a layer's output y, and f''(a) a' of y and y': f is known by its value.
template <class T>
struct Slope {
  T first, second;
};
template <class T>
__device__ __forceinline__ Slope<T> slope_at(const PerceptronLayer& layer, T y, T y_dot) {
  if (!layer.activated) return {T(1), T(0)};
  switch (layer.activation) {
    case Activation::tanh:
      return {T(1) - y * y, T(-2) * y * y_dot};
    case Activation::leaky_relu:
      return {y > T(0) ? T(1) : T(leaky_slope), T(0)};
    case Activation::relu:
      break;
  }
  return {y > T(0) ? T(1) : T(0), T(0)};
}

/// What a product does to its elements on their way out, without a branch: relu, leaky_relu and
/// nothing are a slope below a threshold. At 0 relu hands a tangent on and holds a gradient back,
/// as every backend does. tanh is nothing here: it goes over the elements afterwards.
template <class T>
struct Bend {
  T slope, threshold;

  __device__ explicit Bend(const PerceptronLayer& layer)
      : slope(layer.activation == Activation::leaky_relu ? T(leaky_slope) : T(0)), threshold(0) {
    if (!layer.activated || layer.activation == Activation::tanh) slope = T(1);
    if (slope == T(leaky_slope)) threshold = sizeof(T) == 4 ? T(0x1p-126) : T(0x1p-1022);
  }
  __device__ T forward(T a, T x) const { return a >= threshold ? x : slope * x; }
  __device__ T backward(T y, T g) const { return y > T(0) ? g : slope * g; }
};

__device__ inline bool is_tanh(const PerceptronLayer& layer) {
  return layer.activated && layer.activation == Activation::tanh;
}

/// y = f(W x + b), but for tanh.
template <bool tangent, class T>
struct Forward {
  Bend<T> bend;
  const T* bias;  ///< null: none
  const T* bias_dot;
  T* y;
  T* y_dot;
  int stride;

  __device__ Element<T> first(int o) const {
    if (!bias) return {};
    return {bias[o], tangent ? bias_dot[o] : T(0)};
  }
  __device__ void operator()(int r, int o, const Element<T>& a) const {
    y[r * stride + o] = bend.forward(a.value, a.value);
    if constexpr (tangent) y_dot[r * stride + o] = bend.forward(a.value, a.dot);
  }
};

/// g = f'(a) (W^T g), but for tanh.
template <bool tangent, class T>
struct Backward {
  Bend<T> bend;
  const T* y;
  T* g;
  T* g_dot;
  int stride;

  __device__ Element<T> first(int) const { return {}; }
  __device__ void operator()(int r, int k, const Element<T>& sum) const {
    const int at = r * stride + k;
    const T out = y[at];
    g[at] = bend.backward(out, sum.value);
    if constexpr (tangent) g_dot[at] = bend.backward(out, sum.dot);
  }
};

/// A team's part of the block's shared memory.
template <class T>
struct Memory {
  T* w;         ///< the iterate at hand
  T* u;         ///< the direction: rate * v, or v itself (its sums are then scaled)
  T* v;         ///< the adjoint: gradient by the iterate at hand
  T* feature;   ///< rows, features and gradients by them
  T* tangent;   ///< theirs
  T* row_loss;  ///< sums of the rows' losses
};

/// visit(where it is stored, its number) for all weights, shared out to the threads.
template <class Visit>
__device__ __forceinline__ void each_weight(Team team, const Perceptron& network,
                                            const Visit& visit) {
  const int thread = team.thread, threads = team.threads;
  for (int l = 0; l < network.layers; ++l) {
    const PerceptronLayer& layer = network.layer[l];
    const int down = threads / layer.inputs, across = threads - down * layer.inputs;
    int o = thread / layer.inputs, k = thread - o * layer.inputs;
    for (int i = layer.weight + thread; o < layer.outputs; i += threads) {
      visit(layer.weight_at + o * layer.stride + k, i);
      o += down;
      k += across;
      if (k >= layer.inputs) {
        k -= layer.inputs;
        ++o;
      }
    }
    if (layer.bias < 0) continue;
    for (int i = thread; i < layer.outputs; i += threads) visit(layer.bias_at + i, layer.bias + i);
  }
}

template <class T>
__device__ __forceinline__ void copy_quads(Team team, T* to, const T* from, int count) {
  for (int i = team.thread; i < count / 4; i += team.threads) {
    reinterpret_cast<Quad<T>*>(to)[i] = reinterpret_cast<const Quad<T>*>(from)[i];
  }
}

/// What becomes of a weight's gradient g, or of its derivative.
enum class Use {
  descend,       ///< w -= rate g
  descend_each,  ///< the same with a rate a weight, which is in u
  keep,          ///< v = g
  add,           ///< v += g
  rate,          ///< the rate's gradient -= v g
  adjoint,       ///< v -= factor g', the rate being in u or in the factor
  keep_dot,      ///< v = g'; may be where the direction was
};

template <Use use, class T>
struct Update {
  T* stored;  ///< w or v of this tensor
  const T* rates;
  int stride;
  T factor;
  T* rate_gradient;  ///< in the flat order
  int inputs;

  __device__ Element<T> first(int) const { return {}; }
  __device__ __forceinline__ T next(T at, T rate, const Element<T>& g) const {
    if constexpr (use == Use::descend) return at - factor * g.value;
    if constexpr (use == Use::descend_each) return at - rate * g.value;
    if constexpr (use == Use::adjoint) return at - factor * g.dot;
    if constexpr (use == Use::add) return at + g.value;
    if constexpr (use == Use::keep_dot) return g.dot;
    return g.value;
  }
  __device__ __forceinline__ void operator()(int o, int k, const Element<T>& g) const {
    T& at = stored[o * stride + k];
    if constexpr (use == Use::rate) {
      rate_gradient[o * inputs + k] -= at * g.value;
    } else {
      at = next(at, use == Use::descend_each ? rates[o * stride + k] : T(0), g);
    }
  }
  __device__ __forceinline__ void two(int o, int k, const Element<T>& one,
                                      const Element<T>& other) const {
    if constexpr (use == Use::rate) {
      (*this)(o, k, one);
      if (k + 1 < inputs) (*this)(o, k + 1, other);
    } else {  // the word after an odd number of them is nobody's
      auto& at = *reinterpret_cast<Pair<T>*>(stored + o * stride + k);
      Pair<T> rate = {};
      if constexpr (use == Use::descend_each) rate = pair_at(rates + o * stride + k);
      const Pair<T> before = use == Use::keep || use == Use::keep_dot ? Pair<T>{} : at;
      at = {next(before.x, rate.x, one), next(before.y, rate.y, other)};
    }
  }
};

template <class T>
struct Task {
  const Perceptron& network;
  Team team;
  Memory<T> memory;
  int rows = 0;  ///< of the set at hand

  __device__ Matrix<T> inputs(const PerceptronLayer& layer) const {
    return {memory.feature + layer.inputs_at, memory.tangent + layer.inputs_at,
            layer.inputs_stride};
  }
  __device__ Matrix<T> gradients(const PerceptronLayer& layer) const {
    return {memory.feature + layer.gradient_at, memory.tangent + layer.gradient_at,
            layer.gradient_stride};
  }

  __device__ void load_rows(const PerceptronRows<T>& set, int task) {
    rows = own_row_count(set.rows, task);
    const PerceptronLayer& first = network.layer[0];
    const T* x = set.x + static_cast<std::size_t>(task) *
                             static_cast<std::size_t>(set.rows.rows * first.inputs);
    const int count = rows * first.inputs;
    for (int i = team.thread; i < count; i += team.threads) {
      const int r = i / first.inputs;
      memory.feature[first.inputs_at + r * first.inputs_stride + i - r * first.inputs] = x[i];
    }
  }

  template <unsigned terms>
  __device__ __forceinline__ void forward_layer(const PerceptronLayer& layer, int to, int stride) {
    constexpr bool tangent = (terms & both_dots) != 0;
    const Matrix<T> w = {memory.w + layer.weight_at, memory.u + layer.weight_at, layer.stride};
    const bool biased = layer.bias >= 0;
    const Forward<tangent, T> store{
        Bend<T>(layer),           biased ? memory.w + layer.bias_at : nullptr,
        memory.u + layer.bias_at, memory.feature + to,
        memory.tangent + to,      stride};
    product<terms, true>(team, layer.narrow.forward, inputs(layer), w,
                         {rows, layer.outputs, layer.inputs}, store);
    if (!is_tanh(layer)) return;
    __syncthreads();
    for (int i = team.thread; i < rows * stride; i += team.threads) {
      const T y = tanh(store.y[i]);
      store.y[i] = y;
      if constexpr (tangent) store.y_dot[i] *= T(1) - y * y;
    }
  }

  /// The outputs are where the gradient by them will be. A barrier after every layer.
  template <bool tangent>
  __device__ __forceinline__ void forward() {
#pragma unroll 1
    for (int l = 0; l < network.layers; ++l) {
      const PerceptronLayer& layer = network.layer[l];
      const bool last = l + 1 == network.layers;
      const int to = last ? layer.gradient_at : network.layer[l + 1].inputs_at;
      const int stride = last ? layer.gradient_stride : network.layer[l + 1].inputs_stride;
      if constexpr (tangent) {
        if (l == 0) {
          forward_layer<values | second_dot>(layer, to, stride);
        } else {
          forward_layer<all_terms>(layer, to, stride);
        }
      } else {
        forward_layer<values>(layer, to, stride);
      }
      __syncthreads();
    }
  }

  /// The loss's gradient (with its tangent) in place of the outputs; a thread a row. The rows'
  /// losses are added to row_loss.
  template <bool tangent>
  __device__ __forceinline__ void loss_gradient(const PerceptronRows<T>& set, int task, T scale) {
    const PerceptronLayer& layer = network.layer[network.layers - 1];
    const int outputs = layer.outputs;
    for (int r = team.thread; r < rows; r += team.threads) {
      T* o = memory.feature + layer.gradient_at + r * layer.gradient_stride;
      T* o_dot = memory.tangent + layer.gradient_at + r * layer.gradient_stride;
      const std::size_t at =
          static_cast<std::size_t>(task) * static_cast<std::size_t>(set.rows.rows) +
          static_cast<std::size_t>(r);
      const auto put = [&](int i, T g, T g_dot) {  // by what the last activation was given
        const Slope<T> f = slope_at(layer, o[i], tangent ? o_dot[i] : T(0));
        o[i] = f.first * g;
        if constexpr (tangent) o_dot[i] = f.first * g_dot + f.second * g;
      };
      T loss = 0;
      if (set.target.function == LossFunction::cross_entropy) {
        const int label = set.target.labels[at];
        T largest = o[0];
        for (int i = 1; i < outputs; ++i) largest = o[i] > largest ? o[i] : largest;
        T normaliser = 0, mean_dot = 0;
        for (int i = 0; i < outputs; ++i) {
          const T e = exp(o[i] - largest);
          normaliser += e;
          if constexpr (tangent) mean_dot += e * o_dot[i];
        }
        mean_dot /= normaliser;
        loss = log(normaliser) + (largest - o[label]);
        for (int i = 0; i < outputs; ++i) {
          const T p = exp(o[i] - largest) / normaliser;
          put(i, scale * (i == label ? p - T(1) : p),
              tangent ? scale * p * (o_dot[i] - mean_dot) : T(0));
        }
      } else {
        const bool mse = set.target.function == LossFunction::mse;
        const T variance = set.target.noise_std * set.target.noise_std;
        const T weight = mse ? T(1) / static_cast<T>(outputs) : T(0.5) / variance;
        const T constant = mse ? T(0) : log(set.target.noise_std) + T(log_sqrt_two_pi);
        const T* target = set.target.values + at * static_cast<std::size_t>(outputs);
        for (int i = 0; i < outputs; ++i) {
          const T error = o[i] - target[i];
          loss += weight * error * error + constant;
          put(i, scale * T(2) * weight * error, tangent ? scale * T(2) * weight * o_dot[i] : T(0));
        }
      }
      memory.row_loss[r] += loss;
    }
  }

  /// The gradient by a layer's inputs, through the activation before them.
  template <bool tangent>
  __device__ __forceinline__ void input_gradient(const PerceptronLayer& layer,
                                                 const PerceptronLayer& before) {
    const Matrix<T> w = {memory.w + layer.weight_at, memory.u + layer.weight_at, layer.stride};
    const T* y = memory.feature + layer.inputs_at;
    const int stride = layer.inputs_stride;  // of the gradients too
    const Backward<tangent, T> store{Bend<T>(before), y, memory.feature + before.gradient_at,
                                     memory.tangent + before.gradient_at, stride};
    product<tangent ? all_terms : values, false>(team, layer.narrow.backward, gradients(layer), w,
                                                 {rows, layer.inputs, layer.outputs}, store);
    if (!is_tanh(before)) return;
    __syncthreads();
    const T* y_dot = memory.tangent + layer.inputs_at;
    for (int i = team.thread; i < rows * stride; i += team.threads) {
      const Slope<T> f = slope_at(before, y[i], tangent ? y_dot[i] : T(0));
      const T g = store.g[i];
      store.g[i] = f.first * g;
      if constexpr (tangent) store.g_dot[i] = f.first * store.g_dot[i] + f.second * g;
    }
  }

  /// A layer's weights' gradient (or its derivative) to where it is used.
  template <Use use, unsigned terms>
  __device__ __forceinline__ void weight_gradient(const PerceptronLayer& layer, T* stored, T factor,
                                                  T* rate_gradient) {
    const auto flat = [&](int first) { return rate_gradient ? rate_gradient + first : nullptr; };
    const Matrix<T> g = gradients(layer);
    const Update<use, T> weight{stored + layer.weight_at,
                                memory.u + layer.weight_at,
                                layer.stride,
                                factor,
                                flat(layer.weight),
                                layer.inputs};
    const Update<use, T> bias{
        stored + layer.bias_at, memory.u + layer.bias_at, 1, factor, flat(layer.bias), 1};
    if (layer.inputs == 1) return thin_weight_gradient<terms, true>(layer, weight, bias);
    if (layer.outputs == 1) return thin_weight_gradient<terms, false>(layer, weight, bias);
    sum_over_rows<terms>(team, layer.narrow.weights, g, inputs(layer),
                         {layer.outputs, layer.inputs, rows}, weight);
    if (layer.bias < 0) return;
    const T* of = use == Use::adjoint || use == Use::keep_dot ? g.dot : g.value;
    Update<use, T> biases = bias;
    biases.inputs = layer.outputs;
    for (int o = 2 * team.thread; o < layer.outputs; o += 2 * team.threads) {
      Pair<T> sum = {};
#pragma unroll 2
      for (int r = 0; r < rows; ++r) {
        const Pair<T> at = pair_at(of + o + r * g.stride);
        sum.x += at.x;
        sum.y += at.y;
      }
      biases.two(0, o, {sum.x, sum.x}, {sum.y, sum.y});
    }
  }

  /// The same for one input or one output: a lane a pair of weights, and biases on the way.
  template <unsigned terms, bool one_input, Use use>
  __device__ __forceinline__ void thin_weight_gradient(const PerceptronLayer& layer,
                                                       const Update<use, T>& weight,
                                                       const Update<use, T>& bias) {
    using G = Fragment<terms, true, T>;
    using X = Fragment<terms, false, T>;
    const Matrix<T> g = gradients(layer), x = inputs(layer);
    const int width = one_input ? layer.outputs : layer.inputs;
    // weights of one input lie one after another, as those of one output do
    Update<use, T> all = weight, biases = bias;
    all.inputs = biases.inputs = width;
    for (int at = 2 * team.thread; at < width; at += 2 * team.threads) {
      Element<T> sum[2] = {}, of_bias[2] = {};
      int g_at = one_input ? at : 0, x_at = one_input ? 0 : at;
#pragma unroll 2
      for (int r = 0; r < rows; ++r, g_at += g.stride, x_at += x.stride) {
        T out[2] = {}, out_dot[2] = {}, in[2] = {}, in_dot[2] = {};
        const auto load = [](const T* from, bool wide, T(&to)[2]) {
          if (wide) {
            const Pair<T> pair = pair_at(from);
            to[0] = pair.x, to[1] = pair.y;
          } else {
            to[0] = to[1] = *from;
          }
        };
        if constexpr (G::plain) load(g.value + g_at, one_input, out);
        if constexpr (G::dotted) load(g.dot + g_at, one_input, out_dot);
        if constexpr (X::plain) load(x.value + x_at, !one_input, in);
        if constexpr (X::dotted) load(x.dot + x_at, !one_input, in_dot);
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          multiply_add<terms>(sum[e], out[e], out_dot[e], in[e], in_dot[e]);
          if constexpr (G::plain) of_bias[e].value += out[e];
          if constexpr (G::dotted) of_bias[e].dot += out_dot[e];
        }
      }
      all.two(0, at, sum[0], sum[1]);
      if (layer.bias < 0) continue;
      if (one_input) {
        biases.two(0, at, of_bias[0], of_bias[1]);
      } else if (at == 0) {
        bias(0, 0, of_bias[0]);
      }
    }
  }

  /// Back from the loss's gradient, a layer at a time: the gradient by its inputs, then (its
  /// weights are not read any more) by its weights.
  template <bool tangent, class WeightGradient>
  __device__ __forceinline__ void backward(const WeightGradient& weights) {
#pragma unroll 1
    for (int l = network.layers - 1; l >= 0; --l) {
      const PerceptronLayer& layer = network.layer[l];
      if (l > 0) input_gradient<tangent>(layer, network.layer[l - 1]);
      __syncthreads();
      weights(layer, l == 0);
      __syncthreads();
    }
  }

  /// The gradient of the set's losses, times `scale`, at memory.w: weights(layer, whether it is the
  /// first) takes each layer's. Ends with a barrier, as the next.
  template <class WeightGradient>
  __device__ __forceinline__ void gradient(const PerceptronRows<T>& set, int task, T scale,
                                           const WeightGradient& weights) {
    forward<false>();
    loss_gradient<false>(set, task, scale);
    __syncthreads();
    backward<false>(weights);
  }

  /// The same with the derivative along memory.u.
  template <class WeightGradient>
  __device__ __forceinline__ void derivative(const PerceptronRows<T>& set, int task, T scale,
                                             const WeightGradient& weights) {
    forward<true>();
    loss_gradient<true>(set, task, scale);
    __syncthreads();
    backward<true>(weights);
  }
};

#endif

}  // namespace perceptron
}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
