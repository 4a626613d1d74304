// kernels/linear_algebra.cu on the emulator, compared with plain loops in double or with the
// definition of a result: L L^T = A, L X = B.
#include "kernels/linear_algebra.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "simt/device_array.h"
#include "simt/numbers.h"
#include "simt/orders.h"

namespace kshot::cuda {
namespace {

using simt::numbers;
using simt::With;

std::size_t count_of(int n) {
  return static_cast<std::size_t>(n);
}

template <class T>
class LinearAlgebraKernels : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(LinearAlgebraKernels, Scalars);

/// Matrices [tasks, rows, columns] without padding.
template <class T>
TaskMatrix<T> matrix(DeviceArray<T>& from, int rows, int columns) {
  return {from.data(), rows, columns, count_of(rows * columns)};
}
template <class T>
TaskMatrix<const T> read(DeviceArray<T>& from, int rows, int columns) {
  return {from.data(), rows, columns, count_of(rows * columns)};
}

/// Positive definite matrices M M^T / n + 1/4 of [tasks, n, n].
template <class T>
std::vector<T> positive(int n, int tasks, std::uint64_t seed) {
  const std::vector<double> m = numbers<double>(count_of(tasks * n * n), seed);
  std::vector<T> a(m.size());
  for (int t = 0; t < tasks; ++t) {
    const double* of_task = m.data() + count_of(t * n * n);
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < n; ++j) {
        double sum = i == j ? 0.25 : 0.0;
        for (int k = 0; k < n; ++k) sum += of_task[i * n + k] * of_task[j * n + k] / n;
        a[count_of((t * n + i) * n + j)] = static_cast<T>(sum);
      }
    }
  }
  return a;
}

/// The smallest n whose matrix does not fit into a block's shared memory, and smaller ones.
template <class T>
std::vector<int> orders_of_matrices() {
  return {1, 2, 5, 33, sizeof(T) == 4 ? 157 : 111};
}

/// A sum of n products of order 1 is within n + 4 roundings. So are both sides of a backward stable
/// factorization or solve.
template <class T>
double tolerance(int n) {
  return 4.0 * (n + 4) * static_cast<double>(std::numeric_limits<T>::epsilon());
}

TYPED_TEST(LinearAlgebraKernels, CholeskyGivesAFactorOfTheMatrix) {
  using T = TypeParam;
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    for (const int n : orders_of_matrices<T>()) {
      if (n > 50 && order.order != simt::Order::descending) continue;  // would take seconds
      SCOPED_TRACE(n);
      const int tasks = n > 50 ? 1 : 3;
      const std::vector<T> a = positive<T>(n, tasks, 1);
      DeviceArray<T> device(a), factor(a.size()), jittered(std::vector<T>(count_of(tasks), T(3)));
      cholesky<T>(matrix(factor, n, n), read(device, n, n), matrix(jittered, 1, 1),
                  {T(1), T(10), 2}, tasks, nullptr);
      EXPECT_EQ(jittered.host(), std::vector<T>(count_of(tasks), T(3))) << "no jitter was needed";
      const std::vector<T> l = factor.host();
      for (int t = 0; t < tasks; ++t) {
        const auto at = [&](int i, int j) {
          return static_cast<double>(l[count_of((t * n + i) * n + j)]);
        };
        for (int i = 0; i < n; ++i) {
          for (int j = 0; j < n; ++j) {
            if (j > i) {
              ASSERT_EQ(at(i, j), 0.0);
            }
            double sum = 0.0;
            for (int k = 0; k < n; ++k) sum += at(i, k) * at(j, k);
            ASSERT_NEAR(sum, static_cast<double>(a[count_of((t * n + i) * n + j)]), tolerance<T>(n))
                << i << ", " << j;
          }
        }
      }
    }
  }
}

TYPED_TEST(LinearAlgebraKernels, JitterIsBoundedAndCountedByTask) {
  using T = TypeParam;
  // The upper triangle is not read.
  const T nan = std::numeric_limits<T>::quiet_NaN(), no = nan;
  const std::vector<T> a = {4, no, 2,   5,   // positive definite
                            4, no, 4,   4,   // singular: the second pivot is exactly zero
                            1, no, 8,   1,   // indefinite: no jitter of the rule is large enough
                            1, no, nan, 1,   // not a number
                            1, no, 1.5, 1};  // positive definite with the second jitter
  constexpr int tasks = 5;
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    DeviceArray<T> device(a), factor(a.size()), jittered(std::vector<T>(tasks, T(0)));
    cholesky<T>(matrix(factor, 2, 2), read(device, 2, 2), matrix(jittered, 1, 1),
                {T(0.25), T(4), 2}, tasks, nullptr);
    const std::vector<T> l = factor.host();
    EXPECT_EQ(jittered.host(), (std::vector<T>{0, 1, 1, 1, 1}));
    // l l^T = a + the jitter on the diagonal
    const double expected[][3] = {{4, 2, 5}, {5, 4, 5}, {}, {}, {2, 1.5, 2}};
    for (const int t : {0, 1, 4}) {
      const T* const of = l.data() + 4 * t;
      EXPECT_EQ(of[1], T(0));
      EXPECT_NEAR(of[0] * of[0], expected[t][0], 2e-6);
      EXPECT_NEAR(of[2] * of[0], expected[t][1], 2e-6);
      EXPECT_NEAR(of[2] * of[2] + of[3] * of[3], expected[t][2], 2e-6);
    }
    for (const int t : {2, 3}) {
      for (const int i : {0, 2, 3}) EXPECT_TRUE(std::isnan(l[count_of(4 * t + i)])) << t << i;
    }
  }
}

TYPED_TEST(LinearAlgebraKernels, TriangularSolvesGoBothWays) {
  using T = TypeParam;
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    for (const int n : orders_of_matrices<T>()) {
      if (n > 50 && order.order != simt::Order::descending) continue;  // would take seconds
      for (const int columns : {1, 5, 70}) {
        if (n > 50 && columns != 5) continue;
        SCOPED_TRACE(std::to_string(n) + ", " + std::to_string(columns) + " columns");
        const int tasks = n > 50 ? 1 : 2;
        std::vector<T> l = numbers<T>(count_of(tasks * n * n), 2);
        for (int t = 0; t < tasks; ++t) {
          for (int i = 0; i < n; ++i) {
            for (int j = 0; j < n; ++j) {
              T& of = l[count_of((t * n + i) * n + j)];
              of = j > i ? T(0) : j == i ? T(1) + of / T(2) : of / static_cast<T>(n);
            }
          }
        }
        const std::vector<T> b = numbers<T>(count_of(tasks * n * columns), 3);
        for (const bool transposed : {false, true}) {
          DeviceArray<T> factor(l), device(b);
          solve_triangular<T>({device.data(), count_of(n * columns), columns, columns, 1},
                              read(factor, n, n), transposed, tasks, nullptr);
          const std::vector<T> x = device.host();
          for (int t = 0; t < tasks; ++t) {
            for (int i = 0; i < n; ++i) {
              for (int j = 0; j < columns; ++j) {
                double sum = 0.0;
                for (int k = 0; k < n; ++k) {
                  const int row = transposed ? k : i, column = transposed ? i : k;
                  sum += static_cast<double>(l[count_of((t * n + row) * n + column)]) *
                         static_cast<double>(x[count_of((t * n + k) * columns + j)]);
                }
                ASSERT_NEAR(sum, static_cast<double>(b[count_of((t * n + i) * columns + j)]),
                            4 * tolerance<T>(n))
                    << i << ", " << j;
              }
            }
          }
        }
      }
    }
  }
}

// The results for vectors that lie one after another have the bits of those for vectors side by
// side.
TYPED_TEST(LinearAlgebraKernels, SolvesForRowsAsForColumns) {
  using T = TypeParam;
  constexpr int tasks = 2;
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    for (const int n : {1, 6, sizeof(T) == 4 ? 157 : 111}) {
      if (n > 50 && order.order != simt::Order::descending) continue;  // would take seconds
      for (const int count : {1, 37}) {
        if (n > 50 && count > 1) continue;
        SCOPED_TRACE(std::to_string(n) + ", " + std::to_string(count) + " vectors");
        const std::vector<T> columns = numbers<T>(count_of(tasks * n * count), 6);
        std::vector<T> rows(columns.size()), l = numbers<T>(count_of(tasks * n * n), 7);
        // elements above the diagonal are not read
        for (T& x : l) x = x / static_cast<T>(n) + T(1);
        const auto for_each = [&](const auto& body) {
          for (int t = 0; t < tasks; ++t) {
            for (int i = 0; i < n; ++i) {
              for (int v = 0; v < count; ++v) {
                body(count_of((t * count + v) * n + i), count_of((t * n + i) * count + v));
              }
            }
          }
        };
        for_each([&](std::size_t row, std::size_t column) { rows[row] = columns[column]; });
        for (const bool transposed : {false, true}) {
          DeviceArray<T> factor(l), by_column(columns), by_row(rows);
          solve_triangular<T>({by_column.data(), count_of(n * count), count, count, 1},
                              read(factor, n, n), transposed, tasks, nullptr);
          solve_triangular<T>({by_row.data(), count_of(n * count), count, 1, n}, read(factor, n, n),
                              transposed, tasks, nullptr);
          const std::vector<T> want = by_column.host(), got = by_row.host();
          for_each([&](std::size_t row, std::size_t column) {
            ASSERT_EQ(got[row], want[column]) << row;
          });
        }
      }
    }
  }
}

TYPED_TEST(LinearAlgebraKernels, ATaskHasTheSameBitsAloneAndInABatch) {
  using T = TypeParam;
  constexpr int n = 12, columns = 7, tasks = 3;
  const std::vector<T> a = positive<T>(n, tasks, 4), b = numbers<T>(tasks * n * columns, 5);
  const auto run = [&](const std::vector<T>& of_a, const std::vector<T>& of_b, int count) {
    DeviceArray<T> device(of_a), l(of_a.size()), x(of_b), sum(std::vector<T>(count_of(count), 0));
    cholesky<T>(matrix(l, n, n), read(device, n, n), {}, {}, count, nullptr);
    const TaskVectors<T> vectors{x.data(), n * columns, columns, columns, 1};
    solve_triangular<T>(vectors, read(l, n, n), false, count, nullptr);
    solve_triangular<T>(vectors, read(l, n, n), true, count, nullptr);
    log_determinant<T>(matrix(sum, 1, 1), T(0.5), read(l, n, n), count, nullptr);
    std::vector<T> solved = x.host();
    const std::vector<T> determinants = sum.host();
    for (int t = count; t-- > 0;) {
      solved.insert(solved.begin() + (t + 1) * n * columns, determinants[count_of(t)]);
    }
    return solved;
  };
  const std::vector<T> all = run(a, b, tasks);
  for (int t = 0; t < tasks; ++t) {
    const auto part = [t](const std::vector<T>& from, int size) {
      return std::vector<T>(from.begin() + t * size, from.begin() + (t + 1) * size);
    };
    EXPECT_EQ(run(part(a, n * n), part(b, n * columns), 1), part(all, n * columns + 1)) << t;
  }
}

}  // namespace
}  // namespace kshot::cuda
