#include "backend/linear_algebra.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

namespace kshot::backend {
namespace {

/// Throws std::logic_error where m is missing or is not [rows, columns].
void check(const char* operation, const Matrix& m, int rows, int columns) {
  if (m && m.rows == rows && m.columns == columns) return;
  throw std::logic_error(fmt::format("{}: a matrix of {} x {}{}, expected {} x {}", operation,
                                     m.rows, m.columns, m ? "" : " without a block", rows,
                                     columns));
}
void check_if_given(const char* operation, const Matrix& m, int rows, int columns) {
  if (m) check(operation, m, rows, columns);
}
void check_distinct(const char* operation, const Matrix& a, const Matrix& b) {
  if (a && b && a.block.id == b.block.id) {
    throw std::logic_error(fmt::format("{}: output and input share a block", operation));
  }
}

}  // namespace

Matrix LinearAlgebra::matrix(int rows, int columns) {
  if (rows < 0 || columns < 0) throw std::logic_error("a matrix of negative size");
  const std::size_t size = static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
  return {wave_.block(std::max<std::size_t>(1, size)), rows, columns};
}

Matrix LinearAlgebra::reshaped(const Matrix& m, int rows, int columns) {
  if (static_cast<long>(rows) * columns != static_cast<long>(m.rows) * m.columns) {
    throw std::logic_error("a matrix reshaped to another number of elements");
  }
  return {m.block, rows, columns};
}

void LinearAlgebra::targets(const Matrix& dst, Set set) {
  if (set == Set::all) throw std::logic_error("targets: of the support or the query set");
  check("targets", dst, wave_.rows(set), dst.columns);
  do_targets(dst, set);
}

void LinearAlgebra::row_indicator(const Matrix& dst, Set set) {
  check("row_indicator", dst, wave_.rows(set), 1);
  do_row_indicator(dst, set);
}

void LinearAlgebra::class_indicator(const Matrix& dst) {
  check("class_indicator", dst, 1, dst.columns);
  do_class_indicator(dst);
}

void LinearAlgebra::copy_part(const Matrix& dst, const Matrix& src, const Part& part) {
  check_distinct("copy_part", dst, src);
  const auto inside = [](int first, int count, int size) {
    return first >= 0 && count >= 0 && first + count <= size;
  };
  if (!dst || !src || !inside(part.dst_row, part.rows, dst.rows) ||
      !inside(part.dst_column, part.columns, dst.columns) ||
      !inside(part.src_row, part.rows, src.rows) ||
      !inside(part.src_column, part.columns, src.columns)) {
    throw std::logic_error("copy_part: outside of a matrix");
  }
  if (part.rows > 0 && part.columns > 0) do_copy_part(dst, src, part);
}

void LinearAlgebra::product(const Matrix& c, double factor, const Operand& a, const Operand& b,
                            bool accumulate) {
  check("product", c, a.rows(), b.columns());
  check("product", b.matrix, b.transposed ? b.matrix.rows : a.columns(),
        b.transposed ? a.columns() : b.matrix.columns);
  check("product", a.matrix, a.matrix.rows, a.matrix.columns);
  check_distinct("product", c, a.matrix);
  check_distinct("product", c, b.matrix);
  do_product(c, factor, a, b, accumulate);
}

void LinearAlgebra::multiply(const Matrix& dst, double factor, const Matrix& x, const Matrix& y,
                             bool accumulate) {
  check("multiply", x, x.rows, x.columns);
  check("multiply", dst, x.rows, x.columns);
  check("multiply", y, y.rows == 1 ? 1 : x.rows, y.columns == 1 ? 1 : x.columns);
  if (y.rows != x.rows || y.columns != x.columns) check_distinct("multiply", dst, y);
  do_multiply(dst, factor, x, y, accumulate);
}

void LinearAlgebra::sum(const Matrix& dst, double factor, const Matrix& x, const Matrix& y,
                        bool accumulate) {
  check("sum", x, x.rows, x.columns);
  check_if_given("sum", y, x.rows, x.columns);
  check("sum", dst, dst.rows == 1 ? 1 : x.rows, dst.columns == 1 ? 1 : x.columns);
  if (dst.rows == x.rows && dst.columns == x.columns && x.rows != 1 && x.columns != 1) {
    throw std::logic_error("sum: the result has the size of the summands");
  }
  check_distinct("sum", dst, x);
  check_distinct("sum", dst, y);
  do_sum(dst, factor, x, y, accumulate);
}

void LinearAlgebra::add_diagonal(const Matrix& a, double factor, const Matrix& s,
                                 std::optional<Set> rows) {
  const int n = rows ? wave_.rows(*rows) : a.rows;
  check("add_diagonal", a, n, n);
  check("add_diagonal", s, 1, 1);
  check_distinct("add_diagonal", a, s);
  do_add_diagonal(a, factor, s, rows);
}

void LinearAlgebra::trace(const Matrix& dst, double factor, const Matrix& a, bool accumulate) {
  check("trace", a, a.rows, a.rows);
  check("trace", dst, 1, 1);
  check_distinct("trace", dst, a);
  do_trace(dst, factor, a, accumulate);
}

void LinearAlgebra::cholesky(const Matrix& l, const Matrix& a, const Matrix& jittered) {
  check("cholesky", a, a.rows, a.rows);
  check("cholesky", l, a.rows, a.rows);
  check("cholesky", jittered, 1, 1);
  check_distinct("cholesky", l, a);
  do_cholesky(l, a, jittered);
}

void LinearAlgebra::solve_triangular(const Operand& l, Side side, const Matrix& x) {
  const int n = side == Side::left ? x.rows : x.columns;
  check("solve_triangular", l.matrix, n, n);
  check("solve_triangular", x, x.rows, x.columns);
  check_distinct("solve_triangular", x, l.matrix);
  do_solve_triangular(l, side, x);
}

void LinearAlgebra::log_determinant(const Matrix& dst, double factor, const Matrix& l) {
  check("log_determinant", l, l.rows, l.rows);
  check("log_determinant", dst, 1, 1);
  check_distinct("log_determinant", dst, l);
  do_log_determinant(dst, factor, l);
}

void LinearAlgebra::unpack_factor(const Matrix& l, const Matrix& f) {
  check("unpack_factor", f, f.rows, f.rows);
  check("unpack_factor", l, f.rows, f.rows);
  check_distinct("unpack_factor", l, f);
  do_unpack_factor(l, f);
}

void LinearAlgebra::unpack_factor_pullback(const Matrix& g_f, const Matrix& l, const Matrix& g_l) {
  check("unpack_factor_pullback", l, l.rows, l.rows);
  check("unpack_factor_pullback", g_f, l.rows, l.rows);
  check("unpack_factor_pullback", g_l, l.rows, l.rows);
  check_distinct("unpack_factor_pullback", g_f, l);
  check_distinct("unpack_factor_pullback", g_f, g_l);
  do_unpack_factor_pullback(g_f, l, g_l);
}

void LinearAlgebra::distances(const Matrix& dst, const Matrix& a, const Matrix& b,
                              const Matrix& w) {
  check("distances", a, a.rows, a.columns);
  check("distances", b, b.rows, a.columns);
  check_if_given("distances", w, b.rows, b.columns);
  check("distances", dst, a.rows, b.rows);
  for (const Matrix* m : {&a, &b, &w}) check_distinct("distances", dst, *m);
  do_distances(dst, a, b, w);
}

void LinearAlgebra::distances_pullback(const Matrix& g, const Matrix& a, const Matrix& b,
                                       const Matrix& w, const Matrix& g_a, const Matrix& g_b,
                                       const Matrix& g_w) {
  const char* const name = "distances_pullback";
  check(name, a, a.rows, a.columns);
  check(name, b, b.rows, a.columns);
  check_if_given(name, w, b.rows, b.columns);
  check(name, g, a.rows, b.rows);
  check_if_given(name, g_a, a.rows, a.columns);
  check_if_given(name, g_b, b.rows, b.columns);
  check_if_given(name, g_w, b.rows, b.columns);
  for (const Matrix* out : {&g_a, &g_b, &g_w}) {
    for (const Matrix* in : {&g, &a, &b, &w}) check_distinct(name, *out, *in);
  }
  do_distances_pullback(g, a, b, w, g_a, g_b, g_w);
}

void LinearAlgebra::cosines(const Matrix& dst, const Matrix& a, const Matrix& b) {
  check("cosines", a, a.rows, a.columns);
  check("cosines", b, b.rows, a.columns);
  check("cosines", dst, a.rows, b.rows);
  check_distinct("cosines", dst, a);
  check_distinct("cosines", dst, b);
  do_cosines(dst, a, b);
}

void LinearAlgebra::cosines_pullback(const Matrix& g, const Matrix& a, const Matrix& b,
                                     const Matrix& g_a, const Matrix& g_b) {
  const char* const name = "cosines_pullback";
  check(name, a, a.rows, a.columns);
  check(name, b, b.rows, a.columns);
  check(name, g, a.rows, b.rows);
  check_if_given(name, g_a, a.rows, a.columns);
  check_if_given(name, g_b, b.rows, b.columns);
  for (const Matrix* out : {&g_a, &g_b}) {
    for (const Matrix* in : {&g, &a, &b}) check_distinct(name, *out, *in);
  }
  do_cosines_pullback(g, a, b, g_a, g_b);
}

namespace {

/// Checks a loss of outputs [rows(set), columns] against targets of the same shape.
void check_loss(const char* operation, const Wave& wave, const Matrix& loss, Set set,
                const Matrix& outputs, const Matrix& y, const Matrix& g) {
  if (set == Set::all) {
    throw std::logic_error(fmt::format("{}: of the support or the query set", operation));
  }
  check_if_given(operation, loss, 1, 1);
  check(operation, outputs, wave.rows(set), outputs.columns);
  check(operation, y, outputs.rows, outputs.columns);
  check_if_given(operation, g, outputs.rows, outputs.columns);
  for (const Matrix* in : {&outputs, &y}) check_distinct(operation, g, *in);
}

}  // namespace

void LinearAlgebra::cross_entropy(const Matrix& loss, Set set, const Scale& scale,
                                  const Matrix& logits, const Matrix& y, const Matrix& g_logits) {
  check_loss("cross_entropy", wave_, loss, set, logits, y, g_logits);
  do_cross_entropy(loss, set, scale, logits, y, g_logits);
}

void LinearAlgebra::squared_error(const Matrix& loss, Set set, const Scale& scale,
                                  const Matrix& outputs, const Matrix& y, const Matrix& g_outputs) {
  check_loss("squared_error", wave_, loss, set, outputs, y, g_outputs);
  do_squared_error(loss, set, scale, outputs, y, g_outputs);
}

void LinearAlgebra::gaussian_nll(const Matrix& loss, Set set, const Scale& scale,
                                 const Matrix& mean, const Matrix& variance, const Matrix& y,
                                 const Matrix& g_mean, const Matrix& g_variance) {
  check_loss("gaussian_nll", wave_, loss, set, mean, y, g_mean);
  check_loss("gaussian_nll", wave_, loss, set, variance, y, g_variance);
  check_distinct("gaussian_nll", g_mean, variance);
  check_distinct("gaussian_nll", g_variance, mean);
  check_distinct("gaussian_nll", g_mean, g_variance);
  do_gaussian_nll(loss, set, scale, mean, variance, y, g_mean, g_variance);
}

}  // namespace kshot::backend
