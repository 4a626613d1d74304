#include "metrics/small_algebra.h"

#include <array>
#include <cmath>

namespace kshot::metrics {
namespace {

constexpr std::size_t kSums = 8;

/// Sums term(i) in eight running sums, which the compiler can hold in SIMD registers. A single sum
/// would have to wait for each addition.
template <typename Term>
double summed(std::size_t n, Term term) {
  std::array<double, kSums> sums{};
  std::size_t i = 0;
  for (; i + kSums <= n; i += kSums) {
    for (std::size_t j = 0; j < kSums; ++j) sums[j] += term(i + j);
  }
  double rest = 0.0;
  for (; i < n; ++i) rest += term(i);
  for (const double sum : sums) rest += sum;
  return rest;
}

}  // namespace

double dot(std::span<const double> a, std::span<const double> b) {
  const double* x = a.data();
  const double* y = b.data();
  return summed(a.size(), [=](std::size_t i) { return x[i] * y[i]; });
}

double squared_distance(std::span<const double> a, std::span<const double> b) {
  const double* x = a.data();
  const double* y = b.data();
  return summed(a.size(), [=](std::size_t i) { return (x[i] - y[i]) * (x[i] - y[i]); });
}

void add_scaled(std::span<double> y, double scale, std::span<const double> x) {
  for (std::size_t i = 0; i < y.size(); ++i) y[i] += scale * x[i];
}

bool cholesky(std::span<double> a, std::size_t n) {
  // The factor is computed row by row, so that both factors of each sum are contiguous.
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      const double rest = a[i * n + j] - dot(a.subspan(i * n, j), a.subspan(j * n, j));
      if (i != j) {
        a[i * n + j] = rest / a[j * n + j];
        continue;
      }
      if (!(rest > 0.0) || !std::isfinite(rest)) return false;
      a[i * n + i] = std::sqrt(rest);
    }
  }
  return true;
}

void solve_lower(std::span<const double> l, std::size_t n, std::span<double> b) {
  for (std::size_t i = 0; i < n; ++i) {
    b[i] = (b[i] - dot(l.subspan(i * n, i), b.first(i))) / l[i * n + i];
  }
}

void solve_lower_transposed(std::span<const double> l, std::size_t n, std::span<double> b) {
  for (std::size_t i = n; i-- > 0;) {
    b[i] /= l[i * n + i];
    add_scaled(b.first(i), -b[i], l.subspan(i * n, i));
  }
}

}  // namespace kshot::metrics
