// The code of dense_kernels.h: plain loops over the elements of a matrix. The innermost loop is
// over the W tasks that are stored side by side. Sums are taken in T, in the order of the elements,
// so that a task's result does not depend on its neighbours.
//
// A translation unit that is compiled for another instruction set must not share inline functions
// with other units. Therefore everything here is a static member of a template that each unit
// instantiates with its own tag, and no function of the standard library is called (see
// backend/cpu/kernels.h).
#pragma once

#include <limits>

#include "backend/dense_kernels.h"
#include "backend/dense_one_task_impl.h"

namespace kshot::backend {

/// A SIMD vector of W numbers, one per task.
template <typename T, int W>
struct DenseVector {
  typedef T Type __attribute__((vector_size(sizeof(T) * W)));
};
template <typename T>
struct DenseVector<T, 1> {
  using Type = T;
};

template <typename T, int W, typename Tag>
struct Dense : DenseScalars<T, Tag> {
  using OneTask = DenseOneTask<T, Tag>;
  using Vector = typename DenseVector<T, W>::Type;
  using Out = DenseMatrix<T>;
  using In = DenseMatrix<const T>;
  using Factor = DenseOperand<T>;
  using DenseScalars<T, Tag>::copy;
  using DenseScalars<T, Tag>::fill;
  using DenseScalars<T, Tag>::larger;
  using DenseScalars<T, Tag>::root;
  using DenseScalars<T, Tag>::exponential;
  using DenseScalars<T, Tag>::logarithm;

  static constexpr T not_a_number = std::numeric_limits<T>::quiet_NaN();

  __attribute__((always_inline)) static inline Vector load(const T* from) {
    Vector v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
  }
  __attribute__((always_inline)) static inline void store(T* to, const Vector& v) {
    __builtin_memcpy(to, &v, sizeof v);
  }

  static std::size_t at(int row, int column, int columns) {
    return (static_cast<std::size_t>(row) * static_cast<std::size_t>(columns) +
            static_cast<std::size_t>(column)) *
           W;
  }
  template <typename F>
  static void lanes(const F& f) {
    for (int l = 0; l < W; ++l) f(l);
  }

  /// Sets the mask to 1 for the tasks that have the row, and to 0 for the others.
  static void row_mask(const DenseCounts& counts, Set set, int row, T* mask) {
    lanes([&](int l) {
      const bool query = set == Set::query || (set == Set::all && row >= counts.support_rows);
      const int within = query && set == Set::all ? row - counts.support_rows : row;
      mask[l] = within < (query ? counts.query[l] : counts.support[l]) ? T(1) : T(0);
    });
  }

  static void row_indicator(Out dst, const DenseCounts& counts, Set set) {
    for (int i = 0; i < dst.rows; ++i) row_mask(counts, set, i, dst.data + at(i, 0, 1));
  }
  static void class_indicator(Out dst, const DenseCounts& counts) {
    for (int m = 0; m < dst.columns; ++m) {
      T* const to = dst.data + at(0, m, dst.columns);
      lanes([&](int l) { to[l] = m < counts.ways[l] ? T(1) : T(0); });
    }
  }

  static void copy_part(Out dst, In src, const LinearAlgebra::Part& part) {
    for (int i = 0; i < part.rows; ++i) {
      copy(src.data + at(part.src_row + i, part.src_column, src.columns),
           static_cast<std::size_t>(part.columns) * W,
           dst.data + at(part.dst_row + i, part.dst_column, dst.columns));
    }
  }

  static void product(Out c, T factor, Factor a, Factor b, bool accumulate) {
    if (W == 1 && sizeof(T) == sizeof(float) && c.columns > 2) {
      return OneTask::product_by_tiles(c, factor, a, b, accumulate);
    }
    if (W == 1 && b.column_stride == 1)
      return OneTask::product_by_rows(c, factor, a, b, accumulate);
    for (int i = 0; i < c.rows; ++i) {
      for (int j = 0; j < c.columns; ++j) {
        const T* x = a.data + static_cast<std::size_t>(i) * a.row_stride * W;
        const T* y = b.data + static_cast<std::size_t>(j) * b.column_stride * W;
        Vector sum = {};
        for (int k = 0; k < a.columns; ++k) {
          sum += load(x) * load(y);
          x += a.column_stride * W;
          y += b.row_stride * W;
        }
        T* const to = c.data + at(i, j, c.columns);
        const Vector scaled = factor * sum;
        store(to, accumulate ? load(to) + scaled : scaled);
      }
    }
  }
  static void multiply(Out dst, T factor, In x, In y, bool accumulate) {
    for (int i = 0; i < dst.rows; ++i) {
      for (int j = 0; j < dst.columns; ++j) {
        const T* const left = x.data + at(i, j, x.columns);
        const T* const right = y.data + at(y.rows == 1 ? 0 : i, y.columns == 1 ? 0 : j, y.columns);
        T* const to = dst.data + at(i, j, dst.columns);
        lanes([&](int l) { to[l] = (accumulate ? to[l] : T(0)) + factor * left[l] * right[l]; });
      }
    }
  }

  static void sum(Out dst, T factor, In x, In y, bool accumulate) {
    if (!accumulate) {
      fill(dst.data, static_cast<std::size_t>(dst.rows) * static_cast<std::size_t>(dst.columns) * W,
           T(0));
    }
    for (int i = 0; i < x.rows; ++i) {
      for (int j = 0; j < x.columns; ++j) {
        const T* const left = x.data + at(i, j, x.columns);
        const T* const right = y.data ? y.data + at(i, j, y.columns) : nullptr;
        T* const to = dst.data + at(dst.rows == 1 ? 0 : i, dst.columns == 1 ? 0 : j, dst.columns);
        if (right) {
          lanes([&](int l) { to[l] += factor * left[l] * right[l]; });
        } else {
          lanes([&](int l) { to[l] += factor * left[l]; });
        }
      }
    }
  }

  static void add_diagonal(Out a, T factor, const T* s, const DenseCounts& counts, const Set* set) {
    for (int i = 0; i < a.rows; ++i) {
      T* const to = a.data + at(i, i, a.columns);
      T mask[W];
      fill(mask, W, T(1));
      if (set) row_mask(counts, *set, i, mask);
      lanes([&](int l) { to[l] = mask[l] != T(0) ? to[l] + factor * s[l] : T(1); });
    }
  }

  static void trace(T* dst, T factor, In a, bool accumulate) {
    T sum[W] = {};
    for (int i = 0; i < a.rows; ++i) {
      const T* const diagonal = a.data + at(i, i, a.columns);
      lanes([&](int l) { sum[l] += diagonal[l]; });
    }
    lanes([&](int l) { dst[l] = (accumulate ? dst[l] : T(0)) + factor * sum[l]; });
  }

  /// rest_i -= sum over k < columns of x_ik y_k for N rows of x. `apart` is the distance between
  /// two rows.
  template <int N>
  static void subtract_products(Vector (&rest)[N], const T* x, std::size_t apart, const T* y,
                                int columns) {
    for (int k = 0; k < columns; ++k, x += W, y += W) {
      const Vector factor = load(y);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        rest[n] -= load(x + static_cast<std::size_t>(n) * apart * W) * factor;
      }
    }
  }

  /// Computes N elements of column j below the diagonal, from row i on.
  template <int N>
  static void factorize_below(Out l, In a, int i, int j, const Vector& inverse) {
    Vector rest[N];
    for (int n = 0; n < N; ++n) rest[n] = load(a.data + at(i + n, j, a.columns));
    subtract_products(rest, l.data + at(i, 0, l.columns), static_cast<std::size_t>(l.columns),
                      l.data + at(j, 0, l.columns), j);
    for (int n = 0; n < N; ++n) store(l.data + at(i + n, j, l.columns), rest[n] * inverse);
  }

  /// Factorizes column by column: l_jj = sqrt(a_jj - sum_k<j l_jk^2), l_ij = (a_ij - sum_k<j l_ik
  /// l_jk) / l_jj. Clears ok[w] where a pivot of task w is not positive.
  static void factorize(Out l, In a, const T* jitter, bool* ok) {
    if (W == 1 && OneTask::by_panels(a.rows)) {
      return OneTask::factorize_by_panels(l, a, *jitter, ok);
    }
    constexpr int block = 8;
    for (int j = 0; j < a.rows; ++j) {
      T* const diagonal = l.data + at(j, j, l.columns);
      Vector rest[1] = {load(a.data + at(j, j, a.columns)) + load(jitter)};
      subtract_products(rest, l.data + at(j, 0, l.columns), 0, l.data + at(j, 0, l.columns), j);
      store(diagonal, rest[0]);
      T inverse[W];
      lanes([&](int w) {
        ok[w] = ok[w] && diagonal[w] > T(0);
        diagonal[w] = root(diagonal[w]);
        inverse[w] = T(1) / diagonal[w];
      });
      fill(diagonal + W, static_cast<std::size_t>(l.columns - j - 1) * W, T(0));
      int i = j + 1;
      for (; i + block <= a.rows; i += block) factorize_below<block>(l, a, i, j, load(inverse));
      for (; i < a.rows; ++i) factorize_below<1>(l, a, i, j, load(inverse));
    }
  }

  static void cholesky(Out l, In a, T jitter, T* jittered) {
    T largest[W] = {}, added[W] = {};
    for (int i = 0; i < a.rows; ++i) {
      const T* const diagonal = a.data + at(i, i, a.columns);
      lanes([&](int w) { largest[w] = larger(largest[w], diagonal[w]); });
    }
    bool ok[W];
    for (int attempt = 0; attempt <= cholesky_jitters; ++attempt) {
      lanes([&](int w) { ok[w] = true; });
      factorize(l, a, added, ok);
      bool all = true;
      lanes([&](int w) { all = all && ok[w]; });
      if (all) return;
      if (attempt == cholesky_jitters) break;
      // A task that is already factorized keeps its jitter, so that its result stays the same.
      lanes([&](int w) {
        if (ok[w]) return;
        jittered[w] += attempt == 0 ? T(1) : T(0);
        added[w] = largest[w] * jitter;
      });
      jitter *= T(10);
    }
    for (int i = 0; i < l.rows; ++i) {
      for (int j = 0; j <= i; ++j) {
        T* const to = l.data + at(i, j, l.columns);
        lanes([&](int w) {
          if (!ok[w]) to[w] = not_a_number;
        });
      }
    }
  }

  /// Solves for N vectors, which begin at x. `apart` is the distance between two vectors, `stride`
  /// the distance between two elements of a vector.
  template <int N>
  static void solve_vectors(const Factor& l, T* x, std::size_t stride, std::size_t apart) {
    // The system is solved downwards for a lower triangle, and upwards for the transpose of one.
    const bool down = l.row_stride >= l.column_stride;
    const auto factor = [&](int i, int k) {
      return l.data + (static_cast<std::size_t>(i) * l.row_stride +
                       static_cast<std::size_t>(k) * l.column_stride) *
                          W;
    };
    for (int step = 0; step < l.rows; ++step) {
      const int i = down ? step : l.rows - 1 - step;
      T* const to = x + static_cast<std::size_t>(i) * stride * W;
      Vector rest[N];
      for (int n = 0; n < N; ++n) rest[n] = load(to + static_cast<std::size_t>(n) * apart * W);
      for (int k = down ? 0 : i + 1; k < (down ? i : l.rows); ++k) {
        const Vector c = load(factor(i, k));
        const T* const known = x + static_cast<std::size_t>(k) * stride * W;
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) {
          rest[n] -= c * load(known + static_cast<std::size_t>(n) * apart * W);
        }
      }
      const Vector diagonal = load(factor(i, i));
      for (int n = 0; n < N; ++n) {
        store(to + static_cast<std::size_t>(n) * apart * W, rest[n] / diagonal);
      }
    }
  }
  static void solve_triangular(Factor l, T* x, int vectors, std::size_t x_stride,
                               std::size_t vector_stride) {
    if (W == 1 && OneTask::by_panels(l.rows) && vectors > 1) {
      return OneTask::solve_by_panels(l, x, vectors, x_stride, vector_stride);
    }
    constexpr int block = 8;
    int v = 0;
    const auto vector = [&] { return x + static_cast<std::size_t>(v) * vector_stride * W; };
    for (; v + block <= vectors; v += block) {
      solve_vectors<block>(l, vector(), x_stride, vector_stride);
    }
    for (; v < vectors; ++v) solve_vectors<1>(l, vector(), x_stride, vector_stride);
  }

  static void log_determinant(T* dst, T factor, In l) {
    for (int i = 0; i < l.rows; ++i) {
      const T* const diagonal = l.data + at(i, i, l.columns);
      lanes([&](int w) { dst[w] += T(2) * factor * logarithm(diagonal[w]); });
    }
  }

  static void unpack_factor(Out l, In f) {
    for (int i = 0; i < l.rows; ++i) {
      for (int j = 0; j < l.columns; ++j) {
        T* const to = l.data + at(i, j, l.columns);
        const T* const from = f.data + at(i, j, f.columns);
        lanes([&](int w) { to[w] = j < i ? from[w] : j == i ? exponential(from[w]) : T(0); });
      }
    }
  }
  static void unpack_factor_pullback(Out g_f, In l, In g_l) {
    for (int i = 0; i < l.rows; ++i) {
      for (int j = 0; j <= i; ++j) {
        T* const to = g_f.data + at(i, j, l.columns);
        const T* const g = g_l.data + at(i, j, l.columns);
        const T* const value = l.data + at(i, j, l.columns);
        lanes([&](int w) { to[w] += j < i ? g[w] : g[w] * value[w]; });
      }
    }
  }

  static void distances(Out dst, In a, In b, In w) {
    for (int i = 0; i < a.rows; ++i) {
      for (int m = 0; m < b.rows; ++m) {
        const T* x = a.data + at(i, 0, a.columns);
        const T* y = b.data + at(m, 0, b.columns);
        const T* weight = w.data ? w.data + at(m, 0, w.columns) : nullptr;
        Vector sum = {};
        for (int j = 0; j < a.columns; ++j, x += W, y += W) {
          const Vector d = load(x) - load(y);
          sum += weight ? load(weight + static_cast<std::size_t>(j) * W) * d * d : d * d;
        }
        store(dst.data + at(i, m, dst.columns), sum);
      }
    }
  }

  static void distances_pullback(In g, In a, In b, In w, Out g_a, Out g_b, Out g_w) {
    for (int i = 0; i < a.rows; ++i) {
      for (int m = 0; m < b.rows; ++m) {
        const Vector outer = load(g.data + at(i, m, g.columns));
        for (int j = 0; j < a.columns; ++j) {
          const std::size_t of_a = at(i, j, a.columns), of_b = at(m, j, b.columns);
          const Vector d = load(a.data + of_a) - load(b.data + of_b);
          Vector slope = T(2) * outer * d;
          if (w.data) slope *= load(w.data + of_b);
          if (g_a.data) store(g_a.data + of_a, load(g_a.data + of_a) + slope);
          if (g_b.data) store(g_b.data + of_b, load(g_b.data + of_b) - slope);
          if (g_w.data) store(g_w.data + of_b, load(g_w.data + of_b) + outer * d * d);
        }
      }
    }
  }

  static void length(In a, int row, T* to) {
    dot(a, row, a, row, to);
    lanes([&](int l) { to[l] = root(to[l]); });
  }
  static void dot(In a, int row_a, In b, int row_b, T* to) {
    const T* x = a.data + at(row_a, 0, a.columns);
    const T* y = b.data + at(row_b, 0, b.columns);
    Vector sum = {};
    for (int j = 0; j < a.columns; ++j, x += W, y += W) sum += load(x) * load(y);
    store(to, sum);
  }

  static void cosines(Out dst, In a, In b) {
    for (int i = 0; i < a.rows; ++i) {
      T length_a[W], length_b[W], inner[W];
      length(a, i, length_a);
      for (int m = 0; m < b.rows; ++m) {
        length(b, m, length_b);
        dot(a, i, b, m, inner);
        T* const to = dst.data + at(i, m, dst.columns);
        lanes([&](int l) { to[l] = inner[l] / (length_a[l] * length_b[l] + T(cosine_epsilon)); });
      }
    }
  }

  /// With p = a.b and s = |a| |b| + epsilon, the derivative is d(p/s)/da = b / s - p |b| / s^2 * a
  /// / |a|.
  static void cosines_pullback(In g, In a, In b, Out g_a, Out g_b) {
    for (int i = 0; i < a.rows; ++i) {
      T length_a[W], length_b[W], inner[W], direct[W], along_a[W], along_b[W];
      length(a, i, length_a);
      for (int m = 0; m < b.rows; ++m) {
        length(b, m, length_b);
        dot(a, i, b, m, inner);
        const T* const outer = g.data + at(i, m, g.columns);
        lanes([&](int l) {
          const T s = length_a[l] * length_b[l] + T(cosine_epsilon);
          const T by_s = -outer[l] * inner[l] / (s * s);
          direct[l] = outer[l] / s;
          along_a[l] = length_a[l] > T(0) ? by_s * length_b[l] / length_a[l] : T(0);
          along_b[l] = length_b[l] > T(0) ? by_s * length_a[l] / length_b[l] : T(0);
        });
        for (int j = 0; j < a.columns; ++j) {
          const T* const x = a.data + at(i, j, a.columns);
          const T* const y = b.data + at(m, j, b.columns);
          if (g_a.data) {
            T* const to = g_a.data + at(i, j, a.columns);
            lanes([&](int l) { to[l] += direct[l] * y[l] + along_a[l] * x[l]; });
          }
          if (g_b.data) {
            T* const to = g_b.data + at(m, j, b.columns);
            lanes([&](int l) { to[l] += direct[l] * x[l] + along_b[l] * y[l]; });
          }
        }
      }
    }
  }

  // ---- losses ----

  /// Calls body(index of the row's first element, mask of the tasks that have the row) for each
  /// row.
  template <typename F>
  static void for_rows(const DenseLoss<T>& loss, const DenseCounts& counts, const F& body) {
    for (int i = 0; i < loss.rows; ++i) {
      T mask[W];
      row_mask(counts, loss.set, i, mask);
      body(at(i, 0, loss.columns), mask);
    }
  }

  static void cross_entropy(const DenseLoss<T>& loss, const DenseCounts& counts) {
    for_rows(loss, counts, [&](std::size_t first, const T* mask) {
      const T* const logits = loss.outputs + first;
      const T* const y = loss.y + first;
      const auto has = [&](int m, int l) { return m < counts.ways[l]; };
      // The largest logit is subtracted, so that the exponential does not overflow.
      T largest[W], total[W] = {}, chosen[W] = {};
      copy(logits, W, largest);
      for (int m = 1; m < loss.columns; ++m) {
        lanes([&](int l) {
          if (has(m, l)) largest[l] = larger(largest[l], logits[m * W + l]);
        });
      }
      for (int m = 0; m < loss.columns; ++m) {
        lanes([&](int l) {
          if (!has(m, l)) return;
          total[l] += exponential(logits[m * W + l] - largest[l]);
          chosen[l] += y[m * W + l] * (logits[m * W + l] - largest[l]);
        });
      }
      if (loss.loss) {
        lanes([&](int l) {
          if (mask[l] != T(0)) loss.loss[l] += loss.scale[l] * (logarithm(total[l]) - chosen[l]);
        });
      }
      if (!loss.g_outputs) return;
      for (int m = 0; m < loss.columns; ++m) {
        T* const g = loss.g_outputs + first + m * W;
        lanes([&](int l) {
          const bool counted = mask[l] != T(0) && has(m, l);
          const T p = exponential(logits[m * W + l] - largest[l]) / total[l];
          g[l] = counted ? loss.scale[l] * (p - y[m * W + l]) : T(0);
        });
      }
    });
  }

  static void squared_error(const DenseLoss<T>& loss, const DenseCounts& counts) {
    for_rows(loss, counts, [&](std::size_t first, const T* mask) {
      for (int m = 0; m < loss.columns; ++m) {
        const T* const o = loss.outputs + first + m * W;
        const T* const y = loss.y + first + m * W;
        T* const g = loss.g_outputs ? loss.g_outputs + first + m * W : nullptr;
        lanes([&](int l) {
          const T scale = loss.scale[l] / static_cast<T>(loss.columns);
          const T error = o[l] - y[l];
          if (loss.loss && mask[l] != T(0)) loss.loss[l] += scale * error * error;
          if (g) g[l] = mask[l] != T(0) ? T(2) * scale * error : T(0);
        });
      }
    });
  }

  static void gaussian_nll(const DenseLoss<T>& loss, const DenseCounts& counts) {
    constexpr T constant = static_cast<T>(0.91893853320467274178);  // log(2 pi) / 2
    for_rows(loss, counts, [&](std::size_t first, const T* mask) {
      for (int m = 0; m < loss.columns; ++m) {
        const std::size_t e = first + static_cast<std::size_t>(m) * W;
        lanes([&](int l) {
          const bool counted = mask[l] != T(0);
          const T scale = loss.scale[l];
          const T error = loss.outputs[e + l] - loss.y[e + l];
          const T precision = T(1) / loss.variance[e + l];
          if (loss.loss && counted) {
            loss.loss[l] += scale * (T(0.5) * error * error * precision +
                                     T(0.5) * logarithm(loss.variance[e + l]) + constant);
          }
          if (loss.g_outputs) loss.g_outputs[e + l] = counted ? scale * error * precision : T(0);
          if (loss.g_variance) {
            loss.g_variance[e + l] =
                counted ? T(0.5) * scale * (precision - error * error * precision * precision)
                        : T(0);
          }
        });
      }
    });
  }

  static const DenseKernels<T>& table() {
    static_assert(W <= dense_lanes);
    static constexpr DenseKernels<T> kernels = {
        .lanes = W,
        .row_indicator = row_indicator,
        .class_indicator = class_indicator,
        .copy_part = copy_part,
        .product = product,
        .multiply = multiply,
        .sum = sum,
        .add_diagonal = add_diagonal,
        .trace = trace,
        .cholesky = cholesky,
        .solve_triangular = solve_triangular,
        .log_determinant = log_determinant,
        .unpack_factor = unpack_factor,
        .unpack_factor_pullback = unpack_factor_pullback,
        .distances = distances,
        .distances_pullback = distances_pullback,
        .cosines = cosines,
        .cosines_pullback = cosines_pullback,
        .cross_entropy = cross_entropy,
        .squared_error = squared_error,
        .gaussian_nll = gaussian_nll,
    };
    return kernels;
  }
};

}  // namespace kshot::backend
