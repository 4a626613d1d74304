// kernels/product.cu on the emulator, compared with plain loops in double. A sum of n products is
// within n + 1 roundings of the sum of their magnitudes.
#include "kernels/product.h"

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

struct Size {
  int m, n, k, batch;
};
// The cases have less than a tile of any kind, more than one of every kind, a vector, and a depth
// of 0.
const std::vector<Size> sizes = {{5, 3, 1, 3}, {70, 33, 9, 1}, {33, 66, 17, 2},
                                 {1, 4, 6, 2}, {4, 1, 8, 2},   {3, 2, 0, 2}};

template <class T>
class Products : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(Products, Scalars);

// All four layouts are tested. Flags switch the bias, the row sums and a second pair of factors on
// and off.
TYPED_TEST(Products, AgainstLoops) {
  using T = TypeParam;
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    for (const Size& s : sizes) {
      for (int flags = 0; flags < 8; ++flags) {
        const bool a_across = (flags & 1) != 0, b_across = (flags & 2) != 0;
        const bool full = (flags & 4) != 0;
        if (full && order.order == simt::Order::random && order.seed > 1) continue;
        SCOPED_TRACE(std::to_string(s.m) + " x " + std::to_string(s.n) + " x " +
                     std::to_string(s.k) + ", flags " + std::to_string(flags));
        const auto m = static_cast<std::size_t>(s.m), n = static_cast<std::size_t>(s.n),
                   k = static_cast<std::size_t>(s.k), batch = static_cast<std::size_t>(s.batch);
        // The whole batch has one b. The strides of c are larger than necessary.
        const std::size_t c_row = n + 2, c_batch = m * c_row + m + 3;
        const auto a = numbers<T>(batch * m * k + 1, 1), a2 = numbers<T>(batch * m * k + 1, 2),
                   b = numbers<T>(k * n + 1, 3), b2 = numbers<T>(k * n + 1, 4),
                   bias = numbers<T>(n, 5), before = numbers<T>(batch * c_batch, 6);
        DeviceArray<T> da(a), da2(a2), db(b), db2(b2), dbias(bias), dc(before);
        const auto factors = [&](DeviceArray<T>& x, DeviceArray<T>& y) -> Factors<T> {
          Matrix<T> left{x.data(), k, 1, m * k}, right{y.data(), n, 1, 0};
          if (a_across) left = {x.data(), 1, m, m * k};
          if (b_across) right = {y.data(), 1, k, 0};
          return {left, right};
        };
        Product<T> p;
        p.m = s.m;
        p.n = s.n;
        p.k = s.k;
        p.batch = s.batch;
        p.first = factors(da, db);
        p.c = dc.data();
        p.c_row = c_row;
        p.c_batch = c_batch;
        p.accumulate = a_across;
        if (full) {
          p.second = factors(da2, db2);
          p.row_sums = dc.data() + m * c_row;
          p.bias = dbias.data();
          p.alpha = T(0.75);
        }
        multiply_matrices(p, nullptr);
        const std::vector<T> got = dc.host();

        std::vector<double> expected(before.begin(), before.end()), magnitude(before.size(), 0.0);
        const auto at = [&](const std::vector<T>& x, std::size_t first, std::size_t i,
                            std::size_t j, std::size_t rows, std::size_t columns, bool across) {
          return static_cast<double>(x[first + (across ? j * rows + i : i * columns + j)]);
        };
        const auto put = [&](std::size_t to, double value, double sum) {
          expected[to] = value + (p.accumulate ? expected[to] : 0.0);
          magnitude[to] = sum + std::abs(expected[to]) + 1.0;
        };
        for (std::size_t e = 0; e < batch; ++e) {
          for (std::size_t i = 0; i < m; ++i) {
            double row = 0.0;
            for (std::size_t l = 0; l < k; ++l) row += at(a, e * m * k, i, l, m, k, a_across);
            if (full) put(e * c_batch + m * c_row + i, 0.75 * row, static_cast<double>(k));
            for (std::size_t j = 0; j < n; ++j) {
              double sum = 0.0, sizes_of = 0.0;
              const auto add = [&](double x) {
                sum += x;
                sizes_of += std::abs(x);
              };
              for (std::size_t l = 0; l < k; ++l) {
                add(at(a, e * m * k, i, l, m, k, a_across) * at(b, 0, l, j, k, n, b_across));
                if (!full) continue;
                add(at(a2, e * m * k, i, l, m, k, a_across) * at(b2, 0, l, j, k, n, b_across));
              }
              put(e * c_batch + i * c_row + j,
                  full ? 0.75 * sum + static_cast<double>(bias[j]) : sum, sizes_of);
            }
          }
        }
        const double unit = (2.0 * s.k + 4.0) * std::numeric_limits<T>::epsilon();
        for (std::size_t i = 0; i < got.size(); ++i) {
          ASSERT_NEAR(static_cast<double>(got[i]), expected[i], unit * magnitude[i])
              << "element " << i;
        }
      }
    }
  }
}

// The bits of a row do not depend on its tile.
TYPED_TEST(Products, ARowHasTheSameBitsInABatchOfAnyLength) {
  using T = TypeParam;
  constexpr int k = 19, n = 40, most = 130;
  const auto a = numbers<T>(most * k, 1), b = numbers<T>(k * n, 2);
  DeviceArray<T> da(a), db(b);
  std::vector<T> longest;
  for (const int m : {130, 64, 33, 7, 1}) {
    DeviceArray<T> dc(static_cast<std::size_t>(m * n));
    Product<T> p;
    p.m = m;
    p.n = n;
    p.k = k;
    p.first = {{da.data(), k}, {db.data(), n}};
    p.c = dc.data();
    p.c_row = n;
    multiply_matrices(p, nullptr);
    std::vector<T> got = dc.host();
    if (longest.empty()) longest = got;
    EXPECT_TRUE(std::equal(got.begin(), got.end(), longest.begin())) << m << " rows";
  }
}

}  // namespace
}  // namespace kshot::cuda
