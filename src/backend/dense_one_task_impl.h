// The code of dense_kernels.h for one task at a time: products by tiles, triangular systems by
// panels. As in dense_kernels_impl.h, everything is a static member of a template with the tag of
// the translation unit, and no function of the standard library is called.
#pragma once

#include <cstddef>

#include "backend/dense_kernels.h"

namespace kshot::backend {

/// Functions of single numbers, and loops over contiguous numbers.
template <typename T, typename Tag>
struct DenseScalars {
  static void copy(const T* from, std::size_t n, T* to) {
    for (std::size_t i = 0; i < n; ++i) to[i] = from[i];
  }
  static void fill(T* to, std::size_t n, T value) {
    for (std::size_t i = 0; i < n; ++i) to[i] = value;
  }
  static T larger(T a, T b) { return a < b ? b : a; }
  static float root(float x) { return __builtin_sqrtf(x); }
  static double root(double x) { return __builtin_sqrt(x); }
  static float exponential(float x) { return __builtin_expf(x); }
  static double exponential(double x) { return __builtin_exp(x); }
  static float logarithm(float x) { return __builtin_logf(x); }
  static double logarithm(double x) { return __builtin_log(x); }
};

/// Products and triangular systems of one task.
template <typename T, typename Tag>
struct DenseOneTask : DenseScalars<T, Tag> {
  using Out = DenseMatrix<T>;
  using In = DenseMatrix<const T>;
  using Factor = DenseOperand<T>;
  using DenseScalars<T, Tag>::fill;
  using DenseScalars<T, Tag>::root;

  static std::size_t at(int row, int column, int columns) {
    return static_cast<std::size_t>(row) * static_cast<std::size_t>(columns) +
           static_cast<std::size_t>(column);
  }

  // ---- products ----

  static constexpr int tile_columns = 8, tile_depth = 256;
  typedef T TileRow __attribute__((vector_size(sizeof(T) * tile_columns)));

  /// Computes the product for one task, for any strides, in single precision. (The reference
  /// backend, in double, keeps the plain loops.) Some columns of b are packed side by side, with
  /// zeros where c has no column. Every packed row is then used for several rows of c. The sums are
  /// taken over pieces of tile_depth terms, in an order that depends on the sizes alone.
  static void product_by_tiles(Out c, T factor, Factor a, Factor b, bool accumulate) {
    T packed[tile_depth * tile_columns];
    for (int j = 0; j < c.columns; j += tile_columns) {
      const int columns = c.columns - j < tile_columns ? c.columns - j : tile_columns;
      int k = 0;
      do {  // a product over no terms is zero and must be written
        const int depth = a.columns - k < tile_depth ? a.columns - k : tile_depth;
        pack_columns(packed, b, k, depth, j, columns);
        const auto put = [&](const TileRow* sums, int i, int rows) {
          const bool add = accumulate || k > 0;
          for (int r = 0; r < rows; ++r) {
            T* const to = c.data + at(i + r, j, c.columns);
            for (int l = 0; l < columns; ++l) to[l] = (add ? to[l] : T(0)) + factor * sums[r][l];
          }
        };
        for (int i = 0; i < c.rows;) {
          const int left = c.rows - i;
          TileRow sums[8];
          if (left > 4) {
            multiply_tile<8>(sums, a, i, left < 8 ? left : 8, k, depth, packed);
            put(sums, i, left < 8 ? left : 8);
            i += 8;
          } else {
            multiply_tile<4>(sums, a, i, left, k, depth, packed);
            put(sums, i, left);
            i += 4;
          }
        }
        k += tile_depth;
      } while (k < a.columns);
    }
  }
  /// Packs rows k to k + depth of b at columns j to j + columns into [depth, tile_columns].
  static void pack_columns(T* packed, Factor b, int k, int depth, int j, int columns) {
    const T* from = b.data + static_cast<std::size_t>(k) * b.row_stride +
                    static_cast<std::size_t>(j) * b.column_stride;
    for (int d = 0; d < depth; ++d) {
      for (int l = 0; l < columns; ++l) {
        packed[l] = from[static_cast<std::size_t>(l) * b.column_stride];
      }
      for (int l = columns; l < tile_columns; ++l) packed[l] = T(0);
      packed += tile_columns;
      from += b.row_stride;
    }
  }
  /// Multiplies rows i to i + rows of a, at columns k to k + depth, by the packed columns. Sums
  /// beyond `rows` are computed from row i again and are not used.
  template <int Rows>
  __attribute__((always_inline)) static inline void multiply_tile(TileRow* to, Factor a, int i,
                                                                  int rows, int k, int depth,
                                                                  const T* packed) {
    const T* x[Rows];
    TileRow sums[Rows];
    for (int r = 0; r < Rows; ++r) {
      x[r] = a.data + static_cast<std::size_t>(r < rows ? i + r : i) * a.row_stride +
             static_cast<std::size_t>(k) * a.column_stride;
      sums[r] = TileRow{};
    }
    for (int d = 0; d < depth; ++d) {
      const TileRow y = tile(packed + static_cast<std::size_t>(d) * tile_columns);
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) {
        sums[r] += y * x[r][static_cast<std::size_t>(d) * a.column_stride];
      }
    }
    for (int r = 0; r < Rows; ++r) to[r] = sums[r];
  }
  __attribute__((always_inline)) static inline TileRow tile(const T* from) {
    TileRow t;
    __builtin_memcpy(&t, from, sizeof t);
    return t;
  }
  /// Computes the product for one task where the rows of b are contiguous. Row i of c is a weighted
  /// sum of rows of b, so that the innermost loop accumulates no sum and vectorizes.
  static void product_by_rows(Out c, T factor, Factor a, Factor b, bool accumulate) {
    for (int i = 0; i < c.rows; ++i) {
      T* const __restrict to = c.data + at(i, 0, c.columns);
      if (!accumulate) fill(to, static_cast<std::size_t>(c.columns), T(0));
      for (int k = 0; k < a.columns; ++k) {
        const T x = factor * a.data[static_cast<std::size_t>(i) * a.row_stride +
                                    static_cast<std::size_t>(k) * a.column_stride];
        const T* const __restrict y = b.data + static_cast<std::size_t>(k) * b.row_stride;
        for (int j = 0; j < c.columns; ++j) to[j] += x * y[j];
      }
    }
  }

  // ---- systems in single precision ----
  //
  // A panel holds some vectors of a system side by side: element i of vector v is panel[i * vectors
  // + v], so that the inner loops are over the vectors. Every sum has the order of the plain loops,
  // and no sum depends on its neighbours. docs/performance.md has the times against OpenBLAS.

  static constexpr int panel_rows = 1024;
  static bool by_panels(int rows) {
    return sizeof(T) == sizeof(float) && rows <= panel_rows;
  }

  /// rest -= sum over k = first .. last - 1 of factor(k) * row k of a panel with Tiles *
  /// tile_columns vectors.
  template <int Tiles, class F>
  __attribute__((always_inline)) static inline void subtract_rows(TileRow* rest, const T* panel,
                                                                  int first, int last,
                                                                  const F& factor) {
    constexpr int vectors = Tiles * tile_columns;
    TileRow sums[Tiles];
    for (int n = 0; n < Tiles; ++n) sums[n] = rest[n];
    const T* known = panel + static_cast<std::size_t>(first) * vectors;
    for (int k = first; k < last; ++k, known += vectors) {
      const T c = factor(k);
#pragma GCC unroll 8
      for (int n = 0; n < Tiles; ++n) sums[n] -= c * tile(known + n * tile_columns);
    }
    for (int n = 0; n < Tiles; ++n) rest[n] = sums[n];
  }

  static constexpr int factor_tiles = 4, factor_rows = factor_tiles * tile_columns;

  /// Computes rows i to i + rows of the factor, which are the vectors of a panel: first solves for
  /// the columns before column i, whose rows are already known, then factorizes. Returns false
  /// where a pivot is not positive.
  static bool factorize_panel(Out l, In a, int i, int rows, T jitter, T* panel) {
    bool ok = true;
    for (int j = 0; j < i + rows; ++j) {
      T* const own = panel + static_cast<std::size_t>(j) * factor_rows;
      for (int r = 0; r < factor_rows; ++r)
        own[r] = r < rows ? a.data[at(i + r, j, a.columns)] : T(0);
      if (j >= i) own[j - i] += jitter;
      TileRow rest[factor_tiles];
      __builtin_memcpy(rest, own, sizeof rest);
      T diagonal;
      if (j < i) {
        const T* const row = l.data + at(j, 0, l.columns);
        subtract_rows<factor_tiles>(rest, panel, 0, j, [row](int k) { return row[k]; });
        diagonal = row[j];
      } else {
        const T* const column = panel + (j - i);
        subtract_rows<factor_tiles>(rest, panel, 0, j, [column](int k) {
          return column[static_cast<std::size_t>(k) * factor_rows];
        });
        const T pivot = rest[(j - i) / tile_columns][(j - i) % tile_columns];
        ok = ok && pivot > T(0);
        diagonal = root(pivot);
      }
      const T inverse = T(1) / diagonal;
      for (int n = 0; n < factor_tiles; ++n) rest[n] *= inverse;
      __builtin_memcpy(own, rest, sizeof rest);
      if (j >= i) own[j - i] = diagonal;
      for (int r = 0; r < rows; ++r) l.data[at(i + r, j, l.columns)] = j <= i + r ? own[r] : T(0);
    }
    for (int r = 0; r < rows; ++r) {
      fill(l.data + at(i + r, i + rows, l.columns), static_cast<std::size_t>(l.columns - i - rows),
           T(0));
    }
    return ok;
  }
  static void factorize_by_panels(Out l, In a, T jitter, bool* ok) {
    T panel[panel_rows * factor_rows];
    for (int i = 0; i < a.rows; i += factor_rows) {
      const int rows = a.rows - i < factor_rows ? a.rows - i : factor_rows;
      *ok = factorize_panel(l, a, i, rows, jitter, panel) && *ok;
    }
  }

  /// Does the work of Dense::solve_vectors for `count` vectors, in a panel of Tiles * tile_columns
  /// vectors.
  template <int Tiles>
  static void solve_panel(const Factor& l, T* x, int count, std::size_t stride, std::size_t apart) {
    constexpr int vectors = Tiles * tile_columns;
    T panel[panel_rows * vectors];
    for (int i = 0; i < l.rows; ++i) {
      for (int v = 0; v < vectors; ++v) {
        panel[i * vectors + v] =
            v < count
                ? x[static_cast<std::size_t>(i) * stride + static_cast<std::size_t>(v) * apart]
                : T(0);
      }
    }
    const bool down = l.row_stride >= l.column_stride;
    for (int step = 0; step < l.rows; ++step) {
      const int i = down ? step : l.rows - 1 - step;
      const T* const row = l.data + static_cast<std::size_t>(i) * l.row_stride;
      TileRow rest[Tiles];
      __builtin_memcpy(rest, panel + i * vectors, sizeof rest);
      subtract_rows<Tiles>(rest, panel, down ? 0 : i + 1, down ? i : l.rows, [&](int k) {
        return row[static_cast<std::size_t>(k) * l.column_stride];
      });
      const T diagonal = row[static_cast<std::size_t>(i) * l.column_stride];
      for (int n = 0; n < Tiles; ++n) rest[n] /= diagonal;
      __builtin_memcpy(panel + i * vectors, rest, sizeof rest);
    }
    for (int i = 0; i < l.rows; ++i) {
      for (int v = 0; v < count; ++v) {
        x[static_cast<std::size_t>(i) * stride + static_cast<std::size_t>(v) * apart] =
            panel[i * vectors + v];
      }
    }
  }
  static void solve_by_panels(const Factor& l, T* x, int vectors, std::size_t stride,
                              std::size_t apart) {
    for (int done = 0; done < vectors;) {
      T* const from = x + static_cast<std::size_t>(done) * apart;
      const int left = vectors - done;
      const int count = left < 4 * tile_columns ? left : 4 * tile_columns;
      if (count > tile_columns) {
        solve_panel<4>(l, from, count, stride, apart);
      } else {
        solve_panel<1>(l, from, count, stride, apart);
      }
      done += count;
    }
  }
};

}  // namespace kshot::backend
