// Dense linear algebra of one small matrix in double, for baselines: vectors, Cholesky factors and
// triangular solves. Matrices are row-major. Deterministic: sums have one fixed order.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace kshot::metrics {

/// sum_i a_i b_i. The lengths are equal.
double dot(std::span<const double> a, std::span<const double> b);
/// sum_i (a_i - b_i)^2: exactly 0 for equal vectors.
double squared_distance(std::span<const double> a, std::span<const double> b);
/// y += scale * x.
void add_scaled(std::span<double> y, double scale, std::span<const double> x);

/// The lower triangle of A [n, n], symmetric positive definite, becomes its Cholesky factor L,
/// A = L L^T. Only the lower triangle is read and written. False where A is not positive definite
/// in double precision; A is then of no use any more.
bool cholesky(std::span<double> a, std::size_t n);
/// In place: b = L^-1 b, b [n].
void solve_lower(std::span<const double> l, std::size_t n, std::span<double> b);
/// In place: b = L^-T b, b [n].
void solve_lower_transposed(std::span<const double> l, std::size_t n, std::span<double> b);

}  // namespace kshot::metrics
