// kernels/task_matrix.cu and kernels/similarity.cu on the emulator, compared with plain loops in
// double, in every order of threads and at sizes beyond a warp's lanes and a block's warps.
// tests/backend tests the meaning of the operations together with every other backend's.
#include "kernels/task_matrix.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/similarity.h"
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

constexpr int tasks = 2;

/// A matrix [tasks, rows, columns] on the device, and its numbers on the host.
template <class T>
struct Values {
  int rows, columns;
  std::vector<T> host;
  DeviceArray<T> device;
  Values(int r, int c, std::uint64_t seed)
      : rows(r), columns(c), host(numbers<T>(count_of(tasks * r * c), seed)), device(host) {}
  TaskMatrix<T> out() { return {device.data(), rows, columns, count_of(rows * columns)}; }
  TaskMatrix<const T> in() { return {device.data(), rows, columns, count_of(rows * columns)}; }
  double at(int t, int i, int j) const {
    return static_cast<double>(host[count_of((t * rows + i) * columns + j)]);
  }
};

/// The tolerance of sums of n numbers of order 1, in any order.
template <class T>
double tolerance(int n) {
  return 4.0 * (n + 4) * static_cast<double>(std::numeric_limits<T>::epsilon());
}

template <class T, class Want>
void expect_near(Values<T>& got, const Want& want, double tolerance) {
  const std::vector<T> host = got.device.host();
  for (int t = 0; t < tasks; ++t) {
    for (int i = 0; i < got.rows; ++i) {
      for (int j = 0; j < got.columns; ++j) {
        const std::size_t at = count_of((t * got.rows + i) * got.columns + j);
        ASSERT_NEAR(static_cast<double>(host[at]), want(t, i, j), tolerance)
            << t << ", " << i << ", " << j;
      }
    }
  }
}

template <class T>
class TaskMatrices : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(TaskMatrices, Scalars);

TYPED_TEST(TaskMatrices, SumsBeyondAWarpAndABlock) {
  using T = TypeParam;
  constexpr int rows = 11, columns = 37;
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    Values<T> x(rows, columns, 1), y(rows, columns, 2);
    const auto sum = [&](int t, int row, int column, bool with_y) {
      double total = 0.0;
      for (int i = row < 0 ? 0 : row; i < (row < 0 ? rows : row + 1); ++i) {
        for (int j = column < 0 ? 0 : column; j < (column < 0 ? columns : column + 1); ++j) {
          total += x.at(t, i, j) * (with_y ? y.at(t, i, j) : 1.0);
        }
      }
      return total;
    };
    for (const bool with_y : {false, true}) {
      const TaskMatrix<const T> factor = with_y ? y.in() : TaskMatrix<const T>{};
      Values<T> by_row(rows, 1, 3), by_column(1, columns, 4), all(1, 1, 5);
      for (Values<T>* dst : {&by_row, &by_column, &all}) {
        sum_elements<T>(dst->out(), T(0.5), x.in(), factor, true, tasks, nullptr);
      }
      const double most = tolerance<T>(rows * columns);
      expect_near(
          by_row,
          [&](int t, int i, int) { return by_row.at(t, i, 0) + 0.5 * sum(t, i, -1, with_y); },
          most);
      expect_near(
          by_column,
          [&](int t, int, int j) { return by_column.at(t, 0, j) + 0.5 * sum(t, -1, j, with_y); },
          most);
      expect_near(
          all, [&](int t, int, int) { return all.at(t, 0, 0) + 0.5 * sum(t, -1, -1, with_y); },
          most);
    }
  }
}

TYPED_TEST(TaskMatrices, LossesBeyondABlocksThreads) {
  using T = TypeParam;
  constexpr int rows = 300, columns = 3;
  const std::vector<std::int32_t> own = {300, 257}, ways = {2, 3};
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    DeviceArray<std::int32_t> counts(own), classes(ways);
    Values<T> outputs(rows, columns, 1), y(rows, columns, 2), g(rows, columns, 3), loss(1, 1, 4);
    cross_entropy<T>({loss.out(),
                      {T(2), counts.data()},
                      {tasks, rows, counts.data()},
                      outputs.in(),
                      y.in(),
                      g.out()},
                     classes.data(), nullptr);
    const auto probability = [&](int t, int i, int m) {
      double total = 0.0;
      for (int k = 0; k < ways[count_of(t)]; ++k) total += std::exp(outputs.at(t, i, k));
      return std::exp(outputs.at(t, i, m)) / total;
    };
    expect_near(
        loss,
        [&](int t, int, int) {
          double total = 0.0;
          for (int i = 0; i < own[count_of(t)]; ++i) {
            double row = 0.0, chosen = 0.0;
            for (int m = 0; m < ways[count_of(t)]; ++m) {
              row += std::exp(outputs.at(t, i, m));
              chosen += y.at(t, i, m) * outputs.at(t, i, m);
            }
            // y need not sum to one, because the largest logit is also subtracted where y
            // multiplies.
            double largest = outputs.at(t, i, 0), of_y = 0.0;
            for (int m = 1; m < ways[count_of(t)]; ++m) {
              largest = std::max(largest, outputs.at(t, i, m));
            }
            for (int m = 0; m < ways[count_of(t)]; ++m) of_y += y.at(t, i, m);
            total += std::log(row) - largest - chosen + of_y * largest;
          }
          return loss.at(t, 0, 0) + 2.0 * total / own[count_of(t)];
        },
        tolerance<T>(rows));
    expect_near(
        g,
        [&](int t, int i, int m) {
          if (i >= own[count_of(t)] || m >= ways[count_of(t)]) return 0.0;
          return 2.0 / own[count_of(t)] * (probability(t, i, m) - y.at(t, i, m));
        },
        tolerance<T>(columns));
  }
}

// The rows that are compared have more columns than a warp has lanes.
TYPED_TEST(TaskMatrices, SimilaritiesBeyondAWarp) {
  using T = TypeParam;
  constexpr int n = 4, m = 3, columns = 45;
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    Values<T> a(n, columns, 1), b(m, columns, 2), w(m, columns, 3), g(n, m, 4);
    Values<T> distance(n, m, 5), cosine(n, m, 6);
    distances<T>(distance.out(), a.in(), b.in(), w.in(), tasks, nullptr);
    cosines<T>(cosine.out(), a.in(), b.in(), T(1e-8), tasks, nullptr);
    const auto sum = [&](const auto& term) {
      double total = 0.0;
      for (int j = 0; j < columns; ++j) total += term(j);
      return total;
    };
    const auto length = [&](const Values<T>& of, int t, int row) {
      return std::sqrt(sum([&](int j) { return of.at(t, row, j) * of.at(t, row, j); }));
    };
    const auto inner = [&](int t, int i, int k) {
      return sum([&](int j) { return a.at(t, i, j) * b.at(t, k, j); });
    };
    const double most = tolerance<T>(columns);
    expect_near(
        distance,
        [&](int t, int i, int k) {
          return sum([&](int j) {
            const double d = a.at(t, i, j) - b.at(t, k, j);
            return w.at(t, k, j) * d * d;
          });
        },
        4 * most);
    expect_near(
        cosine,
        [&](int t, int i, int k) {
          return inner(t, i, k) / (length(a, t, i) * length(b, t, k) + 1e-8);
        },
        most);

    Values<T> g_a(n, columns, 7), g_b(m, columns, 8), g_w(m, columns, 9);
    distances_pullback<T>(g.in(), a.in(), b.in(), w.in(), g_a.out(), g_b.out(), g_w.out(), tasks,
                          nullptr);
    const auto d = [&](int t, int i, int k, int j) { return a.at(t, i, j) - b.at(t, k, j); };
    expect_near(
        g_a,
        [&](int t, int i, int j) {
          double total = g_a.at(t, i, j);
          for (int k = 0; k < m; ++k) total += 2 * g.at(t, i, k) * w.at(t, k, j) * d(t, i, k, j);
          return total;
        },
        most);
    expect_near(
        g_b,
        [&](int t, int k, int j) {
          double total = g_b.at(t, k, j);
          for (int i = 0; i < n; ++i) total -= 2 * g.at(t, i, k) * w.at(t, k, j) * d(t, i, k, j);
          return total;
        },
        most);
    expect_near(
        g_w,
        [&](int t, int k, int j) {
          double total = g_w.at(t, k, j);
          for (int i = 0; i < n; ++i) total += g.at(t, i, k) * d(t, i, k, j) * d(t, i, k, j);
          return total;
        },
        4 * most);

    Values<T> c_a(n, columns, 10), c_b(m, columns, 11);
    cosines_pullback<T>(g.in(), a.in(), b.in(), T(1e-8), c_a.out(), c_b.out(), tasks, nullptr);
    // The derivative by x of x.y / (|x| |y| + 1e-8).
    const auto slope = [&](double x, double y, double length_x, double length_y, double product) {
      const double scale = length_x * length_y + 1e-8;
      return y / scale - product / (scale * scale) * length_y * x / length_x;
    };
    expect_near(
        c_a,
        [&](int t, int i, int j) {
          double total = c_a.at(t, i, j);
          for (int k = 0; k < m; ++k) {
            total += g.at(t, i, k) * slope(a.at(t, i, j), b.at(t, k, j), length(a, t, i),
                                           length(b, t, k), inner(t, i, k));
          }
          return total;
        },
        most);
    expect_near(
        c_b,
        [&](int t, int k, int j) {
          double total = c_b.at(t, k, j);
          for (int i = 0; i < n; ++i) {
            total += g.at(t, i, k) * slope(b.at(t, k, j), a.at(t, i, j), length(b, t, k),
                                           length(a, t, i), inner(t, i, k));
          }
          return total;
        },
        most);
  }
}

}  // namespace
}  // namespace kshot::cuda
