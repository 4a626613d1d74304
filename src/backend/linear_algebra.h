// Dense linear algebra of small matrices, with one set of matrices per task of a wave. Heads that
// are fitted in closed form (ridge regression, Bayesian linear regression, Gaussian processes,
// prototypes) are composed of these operations.
//
// A matrix is a block of a wave, [rows, columns] row-major. It has the same size for all tasks,
// which is the size that the largest task of the wave needs. Smaller tasks are padded with zeros.
// In a matrix whose rows are a task's rows of data, the rows beyond the task's own count are zero,
// so that products and sums need no counts. Where these zeros would make a system singular, the
// padded diagonal is set to one (add_diagonal). A set of rows has the layout of Wave::outputs. In
// Set::all, the support rows are [0, rows(support)), and the query rows begin at rows(support) for
// every task; the padding of the support rows is between them.
//
// The public functions check shapes and then call the backend's do_... function. An output never
// shares its block with an input, unless a function allows it. Where a task's numbers are not
// finite, or its system is singular, its results are NaN, and the reduction counts the task as
// diverged.
#pragma once

#include <memory>
#include <optional>

#include "backend/backend.h"

namespace kshot::backend {

/// One matrix [rows, columns] per task, row-major, in a block of a wave.
struct Matrix {
  Block block;
  int rows = 0, columns = 0;
  explicit operator bool() const { return static_cast<bool>(block); }
};

/// A matrix, or its transpose, as a factor of a product or of a system.
struct Operand {
  Operand(const Matrix& m, bool transpose = false)  // NOLINT: a matrix is an operand
      : matrix(m), transposed(transpose) {}
  int rows() const { return transposed ? matrix.columns : matrix.rows; }
  int columns() const { return transposed ? matrix.rows : matrix.columns; }
  Matrix matrix;
  bool transposed;
};
inline Operand transposed(const Matrix& m) {
  return {m, true};
}

/// The side of the unknown on which the triangular factor stands.
enum class Side { left, right };

class LinearAlgebra {
 public:
  /// Uses the blocks of `wave`, which must outlive this object.
  explicit LinearAlgebra(Wave& wave) : wave_(wave) {}
  virtual ~LinearAlgebra() = default;
  LinearAlgebra(const LinearAlgebra&) = delete;
  LinearAlgebra& operator=(const LinearAlgebra&) = delete;

  /// Makes a matrix. Its contents are undefined. A matrix without elements has a block of width 1.
  Matrix matrix(int rows, int columns);
  /// Views the elements of m, in their row-major order, as a matrix [rows, columns]. Nothing is
  /// copied; rows * columns must equal the number of elements of m.
  static Matrix reshaped(const Matrix& m, int rows, int columns);

  // ---- rows and classes of the tasks ----
  /// dst [rows(set), targets] = the task's targets: one-hot labels or real numbers, zero in rows
  /// beyond the task's own. `set` is the support or the query set.
  void targets(const Matrix& dst, Set set);
  /// dst [rows(set), 1] = 1 in the task's own rows, 0 beyond.
  void row_indicator(const Matrix& dst, Set set);
  /// dst [1, classes] = 1 for the task's own classes, 0 beyond.
  void class_indicator(const Matrix& dst);

  // ---- copies, products, sums ----
  /// The part that copy_part copies: dst[dst_row + i, dst_column + j] = src[src_row + i,
  /// src_column + j] for i < rows, j < columns. The other elements of dst do not change.
  struct Part {
    int dst_row = 0, dst_column = 0;
    int src_row = 0, src_column = 0;
    int rows = 0, columns = 0;
  };
  void copy_part(const Matrix& dst, const Matrix& src, const Part& part);
  /// c = or += factor * a b.
  void product(const Matrix& c, double factor, const Operand& a, const Operand& b,
               bool accumulate = false);
  /// dst = or += factor * x * y, element by element. y has the shape of x, or one row, one column
  /// or one element, which is used for all rows or columns. dst may be x; dst may be y where y has
  /// the shape of x.
  void multiply(const Matrix& dst, double factor, const Matrix& x, const Matrix& y,
                bool accumulate = false);
  /// dst = or += factor * the sums of x * y, element by element (of x where y is empty). The sums
  /// are over columns where dst is [rows, 1], over rows where it is [1, columns], and over all
  /// elements where it is [1, 1].
  void sum(const Matrix& dst, double factor, const Matrix& x, const Matrix& y,
           bool accumulate = false);

  // ---- symmetric positive definite systems ----
  /// a [n, n] += factor * s on the diagonal, where s is [1, 1]. Where `rows` is given, n is
  /// rows(*rows), and the diagonal of rows that a task does not have is set to one instead.
  void add_diagonal(const Matrix& a, double factor, const Matrix& s, std::optional<Set> rows = {});
  /// dst [1, 1] = or += factor * the sum of the diagonal of a.
  void trace(const Matrix& dst, double factor, const Matrix& a, bool accumulate = false);
  /// Computes the lower triangular l, with zeros above the diagonal, such that l l^T = a. Only the
  /// lower triangle of a is read. Where a pivot is not positive, the factorization is repeated with
  /// a jitter on the diagonal: first cholesky_jitter(precision) times the largest diagonal element,
  /// then 10 times and 100 times as much. 1 is added to `jittered` [1, 1] for such a task. Where
  /// all jitters fail, l is NaN.
  void cholesky(const Matrix& l, const Matrix& a, const Matrix& jittered);
  /// In place: x = l^-1 x (left) or x = x l^-1 (right). l is lower triangular, or the transpose of
  /// a lower triangular matrix.
  void solve_triangular(const Operand& l, Side side, const Matrix& x);
  /// dst [1, 1] += factor * log det (l l^T) = factor * 2 sum log l_ii.
  void log_determinant(const Matrix& dst, double factor, const Matrix& l);
  /// l = the strictly lower part of f plus the exponential of its diagonal.
  void unpack_factor(const Matrix& l, const Matrix& f);
  /// g_f += pull-back of g_l through unpack_factor. l is the result of unpack_factor.
  void unpack_factor_pullback(const Matrix& g_f, const Matrix& l, const Matrix& g_l);

  // ---- similarities of rows ----
  /// dst_im = sum_j w_mj (a_ij - b_mj)^2, where dst is [rows of a, rows of b]. w has the shape of
  /// b; an empty w means ones.
  void distances(const Matrix& dst, const Matrix& a, const Matrix& b, const Matrix& w);
  /// Adds the pull-back of g = dL/d(distances) to those of g_a, g_b and g_w that are given. g_a and
  /// g_b may be the same matrix.
  void distances_pullback(const Matrix& g, const Matrix& a, const Matrix& b, const Matrix& w,
                          const Matrix& g_a, const Matrix& g_b, const Matrix& g_w);
  /// dst_im = a_i.b_m / (||a_i|| ||b_m|| + cosine_epsilon). The derivative of the length of a row
  /// is taken as zero where the row is zero.
  void cosines(const Matrix& dst, const Matrix& a, const Matrix& b);
  /// Adds the pull-back of g = dL/d(cosines) to those of g_a and g_b that are given. They may be
  /// the same matrix.
  void cosines_pullback(const Matrix& g, const Matrix& a, const Matrix& b, const Matrix& g_a,
                        const Matrix& g_b);

  // ---- losses ----
  // A loss is the sum over the task's own rows of a set, times `scale`. It is added to `loss`
  // [1, 1] where that is given. Gradients that are given are overwritten, with zeros in other rows.
  // y are the targets() of the set.
  /// Cross-entropy of logits [rows(set), classes] over the task's own classes. The gradient is zero
  /// for the other classes.
  void cross_entropy(const Matrix& loss, Set set, const Scale& scale, const Matrix& logits,
                     const Matrix& y, const Matrix& g_logits);
  /// Squared error, averaged over outputs (LossKind::mse).
  void squared_error(const Matrix& loss, Set set, const Scale& scale, const Matrix& outputs,
                     const Matrix& y, const Matrix& g_outputs);
  /// Negative log density of y under N(mean, variance), element by element, summed over outputs.
  /// The variance needs to be positive only in the task's own rows.
  void gaussian_nll(const Matrix& loss, Set set, const Scale& scale, const Matrix& mean,
                    const Matrix& variance, const Matrix& y, const Matrix& g_mean,
                    const Matrix& g_variance);

 protected:
  virtual void do_targets(const Matrix& dst, Set set) = 0;
  virtual void do_row_indicator(const Matrix& dst, Set set) = 0;
  virtual void do_class_indicator(const Matrix& dst) = 0;
  virtual void do_copy_part(const Matrix& dst, const Matrix& src, const Part& part) = 0;
  virtual void do_product(const Matrix& c, double factor, const Operand& a, const Operand& b,
                          bool accumulate) = 0;
  virtual void do_multiply(const Matrix& dst, double factor, const Matrix& x, const Matrix& y,
                           bool accumulate) = 0;
  virtual void do_sum(const Matrix& dst, double factor, const Matrix& x, const Matrix& y,
                      bool accumulate) = 0;
  virtual void do_add_diagonal(const Matrix& a, double factor, const Matrix& s,
                               std::optional<Set> rows) = 0;
  virtual void do_trace(const Matrix& dst, double factor, const Matrix& a, bool accumulate) = 0;
  virtual void do_cholesky(const Matrix& l, const Matrix& a, const Matrix& jittered) = 0;
  virtual void do_solve_triangular(const Operand& l, Side side, const Matrix& x) = 0;
  virtual void do_log_determinant(const Matrix& dst, double factor, const Matrix& l) = 0;
  virtual void do_unpack_factor(const Matrix& l, const Matrix& f) = 0;
  virtual void do_unpack_factor_pullback(const Matrix& g_f, const Matrix& l, const Matrix& g_l) = 0;
  virtual void do_distances(const Matrix& dst, const Matrix& a, const Matrix& b,
                            const Matrix& w) = 0;
  virtual void do_distances_pullback(const Matrix& g, const Matrix& a, const Matrix& b,
                                     const Matrix& w, const Matrix& g_a, const Matrix& g_b,
                                     const Matrix& g_w) = 0;
  virtual void do_cosines(const Matrix& dst, const Matrix& a, const Matrix& b) = 0;
  virtual void do_cosines_pullback(const Matrix& g, const Matrix& a, const Matrix& b,
                                   const Matrix& g_a, const Matrix& g_b) = 0;
  virtual void do_cross_entropy(const Matrix& loss, Set set, const Scale& scale,
                                const Matrix& logits, const Matrix& y, const Matrix& g_logits) = 0;
  virtual void do_squared_error(const Matrix& loss, Set set, const Scale& scale,
                                const Matrix& outputs, const Matrix& y,
                                const Matrix& g_outputs) = 0;
  virtual void do_gaussian_nll(const Matrix& loss, Set set, const Scale& scale, const Matrix& mean,
                               const Matrix& variance, const Matrix& y, const Matrix& g_mean,
                               const Matrix& g_variance) = 0;

  Wave& wave_;
};

/// Added to the product of the two lengths in LinearAlgebra::cosines.
inline constexpr double cosine_epsilon = 1e-8;
/// Number of jitters that LinearAlgebra::cholesky tries before it gives up. Each is ten times the
/// one before.
inline constexpr int cholesky_jitters = 3;
/// The first jitter, relative to the largest diagonal element: tens to hundreds of rounding errors.
inline constexpr double cholesky_jitter(Precision precision) {
  return precision == Precision::f64 ? 1e-13 : 1e-6;
}

}  // namespace kshot::backend
