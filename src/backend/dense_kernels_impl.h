// The code of dense_kernels.h: plain loops over the elements of a matrix, the innermost over the W
// tasks that lie side by side. Sums are taken in T, in the order of the elements, so that a task's
// result does not depend on its neighbours.
//
// A translation unit that is compiled for another instruction set than its neighbours must not
// share inline functions with them: everything here is a static member of a template that is
// instantiated with that unit's own tag.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "backend/dense_kernels.h"

namespace kshot::backend {

template <typename T, int W, typename Tag>
struct Dense {
  using Out = DenseMatrix<T>;
  using In = DenseMatrix<const T>;
  using Factor = DenseOperand<T>;

  static std::size_t at(int row, int column, int columns) {
    return (static_cast<std::size_t>(row) * static_cast<std::size_t>(columns) +
            static_cast<std::size_t>(column)) *
           W;
  }
  template <typename F>
  static void lanes(const F& f) {
    for (int l = 0; l < W; ++l) f(l);
  }

  /// 1 for the tasks that have the row, 0 for the others.
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
      std::copy_n(src.data + at(part.src_row + i, part.src_column, src.columns),
                  static_cast<std::size_t>(part.columns) * W,
                  dst.data + at(part.dst_row + i, part.dst_column, dst.columns));
    }
  }

  static void product(Out c, T factor, Factor a, Factor b, bool accumulate) {
    for (int i = 0; i < c.rows; ++i) {
      for (int j = 0; j < c.columns; ++j) {
        T sum[W] = {};
        const T* x = a.data + static_cast<std::size_t>(i) * a.row_stride * W;
        const T* y = b.data + static_cast<std::size_t>(j) * b.column_stride * W;
        for (int k = 0; k < a.columns; ++k) {
          lanes([&](int l) { sum[l] += x[l] * y[l]; });
          x += a.column_stride * W;
          y += b.row_stride * W;
        }
        T* const to = c.data + at(i, j, c.columns);
        lanes([&](int l) { to[l] = (accumulate ? to[l] : T(0)) + factor * sum[l]; });
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
      std::fill_n(dst.data,
                  static_cast<std::size_t>(dst.rows) * static_cast<std::size_t>(dst.columns) * W,
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
      std::fill_n(mask, W, T(1));
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

  /// Row by row: l_ij = (a_ij - sum_k<j l_ik l_jk) / l_jj, l_ii = sqrt(a_ii - sum_k<i l_ik^2).
  /// Clears ok[l] where a pivot of the task is not positive.
  static void factorize(Out l, In a, const T* jitter, bool* ok) {
    for (int i = 0; i < a.rows; ++i) {
      for (int j = 0; j < a.columns; ++j) {
        T* const to = l.data + at(i, j, l.columns);
        if (j > i) {
          std::fill_n(to, W, T(0));
          continue;
        }
        T rest[W];
        std::copy_n(a.data + at(i, j, a.columns), W, rest);
        if (i == j) lanes([&](int w) { rest[w] += jitter[w]; });
        const T* x = l.data + at(i, 0, l.columns);
        const T* y = l.data + at(j, 0, l.columns);
        for (int k = 0; k < j; ++k, x += W, y += W) {
          lanes([&](int w) { rest[w] -= x[w] * y[w]; });
        }
        if (i == j) {
          lanes([&](int w) {
            ok[w] = ok[w] && rest[w] > T(0);
            to[w] = std::sqrt(rest[w]);
          });
        } else {
          const T* const diagonal = l.data + at(j, j, l.columns);
          lanes([&](int w) { to[w] = rest[w] / diagonal[w]; });
        }
      }
    }
  }

  static void cholesky(Out l, In a, T jitter, T* jittered) {
    T largest[W] = {}, added[W] = {};
    for (int i = 0; i < a.rows; ++i) {
      const T* const diagonal = a.data + at(i, i, a.columns);
      lanes([&](int w) { largest[w] = std::max(largest[w], diagonal[w]); });
    }
    bool ok[W];
    for (int attempt = 0; attempt <= cholesky_jitters; ++attempt) {
      std::fill_n(ok, W, true);
      factorize(l, a, added, ok);
      if (std::all_of(ok, ok + W, [](bool good) { return good; })) return;
      if (attempt == cholesky_jitters) break;
      // A task that is factorized already keeps its jitter, so that it gets the same result again.
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
          if (!ok[w]) to[w] = std::numeric_limits<T>::quiet_NaN();
        });
      }
    }
  }

  static void solve_triangular(Factor l, T* x, int vectors, std::size_t x_stride,
                               std::size_t vector_stride) {
    // l x = b goes down for a lower triangle; the transpose of a lower triangle goes up.
    const bool down = l.row_stride >= l.column_stride;
    for (int v = 0; v < vectors; ++v) {
      T* const vector = x + static_cast<std::size_t>(v) * vector_stride * W;
      const auto element = [&](int i) {
        return vector + static_cast<std::size_t>(i) * x_stride * W;
      };
      const auto factor = [&](int i, int k) {
        return l.data + (static_cast<std::size_t>(i) * l.row_stride +
                         static_cast<std::size_t>(k) * l.column_stride) *
                            W;
      };
      for (int step = 0; step < l.rows; ++step) {
        const int i = down ? step : l.rows - 1 - step;
        T* const to = element(i);
        T rest[W];
        std::copy_n(to, W, rest);
        for (int k = down ? 0 : i + 1; k < (down ? i : l.rows); ++k) {
          const T* const c = factor(i, k);
          const T* const known = element(k);
          lanes([&](int w) { rest[w] -= c[w] * known[w]; });
        }
        const T* const diagonal = factor(i, i);
        lanes([&](int w) { to[w] = rest[w] / diagonal[w]; });
      }
    }
  }

  static void log_determinant(T* dst, T factor, In l) {
    for (int i = 0; i < l.rows; ++i) {
      const T* const diagonal = l.data + at(i, i, l.columns);
      lanes([&](int w) { dst[w] += T(2) * factor * std::log(diagonal[w]); });
    }
  }

  static void unpack_factor(Out l, In f) {
    for (int i = 0; i < l.rows; ++i) {
      for (int j = 0; j < l.columns; ++j) {
        T* const to = l.data + at(i, j, l.columns);
        const T* const from = f.data + at(i, j, f.columns);
        lanes([&](int w) { to[w] = j < i ? from[w] : j == i ? std::exp(from[w]) : T(0); });
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
        T sum[W] = {};
        const T* x = a.data + at(i, 0, a.columns);
        const T* y = b.data + at(m, 0, b.columns);
        const T* weight = w.data ? w.data + at(m, 0, w.columns) : nullptr;
        for (int j = 0; j < a.columns; ++j, x += W, y += W) {
          lanes([&](int l) {
            const T d = x[l] - y[l];
            sum[l] += weight ? weight[l] * d * d : d * d;
          });
          if (weight) weight += W;
        }
        std::copy_n(sum, W, dst.data + at(i, m, dst.columns));
      }
    }
  }

  static void distances_pullback(In g, In a, In b, In w, Out g_a, Out g_b, Out g_w) {
    for (int i = 0; i < a.rows; ++i) {
      for (int m = 0; m < b.rows; ++m) {
        const T* const outer = g.data + at(i, m, g.columns);
        for (int j = 0; j < a.columns; ++j) {
          const T* const x = a.data + at(i, j, a.columns);
          const T* const y = b.data + at(m, j, b.columns);
          const T* const weight = w.data ? w.data + at(m, j, w.columns) : nullptr;
          T* const to_a = g_a.data ? g_a.data + at(i, j, a.columns) : nullptr;
          T* const to_b = g_b.data ? g_b.data + at(m, j, b.columns) : nullptr;
          T* const to_w = g_w.data ? g_w.data + at(m, j, b.columns) : nullptr;
          lanes([&](int l) {
            const T d = x[l] - y[l];
            const T slope = T(2) * outer[l] * d * (weight ? weight[l] : T(1));
            if (to_a) to_a[l] += slope;
            if (to_b) to_b[l] -= slope;
            if (to_w) to_w[l] += outer[l] * d * d;
          });
        }
      }
    }
  }

  static void length(In a, int row, T* to) {
    std::fill_n(to, W, T(0));
    const T* x = a.data + at(row, 0, a.columns);
    for (int j = 0; j < a.columns; ++j, x += W) lanes([&](int l) { to[l] += x[l] * x[l]; });
    lanes([&](int l) { to[l] = std::sqrt(to[l]); });
  }
  static void dot(In a, int row_a, In b, int row_b, T* to) {
    std::fill_n(to, W, T(0));
    const T* x = a.data + at(row_a, 0, a.columns);
    const T* y = b.data + at(row_b, 0, b.columns);
    for (int j = 0; j < a.columns; ++j, x += W, y += W) {
      lanes([&](int l) { to[l] += x[l] * y[l]; });
    }
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

  /// With p = a.b, s = |a| |b| + epsilon: d(p/s)/da = b / s - p |b| / s^2 * a / |a|.
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

  /// body(row's first element, mask of the tasks that have the row).
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
      // the largest logit is taken out, so that the exponential does not overflow
      T largest[W], total[W] = {}, chosen[W] = {};
      std::copy_n(logits, W, largest);
      for (int m = 1; m < loss.columns; ++m) {
        lanes([&](int l) {
          if (has(m, l)) largest[l] = std::max(largest[l], logits[m * W + l]);
        });
      }
      for (int m = 0; m < loss.columns; ++m) {
        lanes([&](int l) {
          if (!has(m, l)) return;
          total[l] += std::exp(logits[m * W + l] - largest[l]);
          chosen[l] += y[m * W + l] * (logits[m * W + l] - largest[l]);
        });
      }
      if (loss.loss) {
        lanes([&](int l) {
          if (mask[l] != T(0)) loss.loss[l] += loss.scale[l] * (std::log(total[l]) - chosen[l]);
        });
      }
      if (!loss.g_outputs) return;
      for (int m = 0; m < loss.columns; ++m) {
        T* const g = loss.g_outputs + first + m * W;
        lanes([&](int l) {
          const bool counted = mask[l] != T(0) && has(m, l);
          const T p = std::exp(logits[m * W + l] - largest[l]) / total[l];
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
    const T constant = static_cast<T>(0.5 * std::log(2.0 * std::numbers::pi));
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
                                     T(0.5) * std::log(loss.variance[e + l]) + constant);
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
