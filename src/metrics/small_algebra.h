// Dense linear algebra on one small matrix in double precision, for the baselines: vectors,
// Cholesky factors and triangular solves. Matrices are row-major. Sums have a fixed order, so that
// results are deterministic.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace kshot::metrics {

/// sum_i a_i b_i. The lengths must be equal.
double dot(std::span<const double> a, std::span<const double> b);
/// sum_i (a_i - b_i)^2, which is exactly 0 for equal vectors.
double squared_distance(std::span<const double> a, std::span<const double> b);
/// y += scale * x.
void add_scaled(std::span<double> y, double scale, std::span<const double> x);

/// Replaces the lower triangle of a symmetric positive definite A [n, n] by its Cholesky factor L,
/// A = L L^T. Only the lower triangle is read and written. Returns false where A is not positive
/// definite in double precision; `a` is then invalid.
bool cholesky(std::span<double> a, std::size_t n);
/// Solves in place: b = L^-1 b, b [n].
void solve_lower(std::span<const double> l, std::size_t n, std::span<double> b);
/// Solves in place: b = L^-T b, b [n].
void solve_lower_transposed(std::span<const double> l, std::size_t n, std::span<double> b);

}  // namespace kshot::metrics
