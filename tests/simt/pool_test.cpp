// kernels/pool.cu on the emulator, compared with plain loops in this file. Max pooling copies, so
// it is exact. A mean of n numbers is within n + 1 roundings of the mean of their magnitudes.
#include "kernels/pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kshot/error.h"
#include "kshot/random.h"
#include "simt/device_array.h"
#include "simt/orders.h"

namespace kshot::cuda {
namespace {

using simt::With;
using testing::HasSubstr;

constexpr int rows = 3;
const std::vector<std::int32_t> counts = {3, 0, 1, 2};
const std::vector<std::int32_t> all_rows = {3, 3, 3, 3};
constexpr int tasks = 4;

// The cases have odd sizes, windows of 1, 2 and 3, and several blocks per task.
const std::vector<PoolSize> sizes = {{3, 6, 4, 2}, {2, 5, 7, 2}, {1, 3, 3, 3},
                                     {2, 8, 7, 3}, {4, 2, 2, 1}, {5, 9, 8, 2}};

// There are only a few different values, so that windows hold equal ones.
template <class T>
std::vector<T> numbers(int n, std::uint64_t seed, double steps = 1e6) {
  RandomStream stream({.seed = seed});
  std::vector<T> values(static_cast<std::size_t>(n));
  for (T& value : values) {
    value = static_cast<T>(std::round(static_cast<double>(stream.uniform(-1.0f, 1.0f)) * steps) /
                           steps);
  }
  return values;
}

bool is_own(int map, int channels, const std::vector<std::int32_t>& valid) {
  const int row = map / channels;
  return row % rows < valid[static_cast<std::size_t>(row / rows)];
}

template <class T>
class Pool : public testing::Test {
 protected:
  template <class Body>
  static void each(Body body) {
    for (const simt::Settings& order : simt::all_orders()) {
      const With with(order);
      for (const PoolSize& size : sizes) {
        SCOPED_TRACE(std::to_string(size.height) + " x " + std::to_string(size.width));
        DeviceArray<std::int32_t> device_counts(counts);
        body(size, RowExtent{tasks, rows, device_counts.data()}, counts);
        body(size, RowExtent{tasks, rows, nullptr}, all_rows);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(Pool, Scalars);

TYPED_TEST(Pool, MaxItsGatherAndScatter) {
  using T = TypeParam;
  this->each([](const PoolSize& s, const RowExtent& extent, const std::vector<std::int32_t>& own) {
    const int out_height = s.height / s.size, out_width = s.width / s.size;
    const int maps = tasks * rows * s.channels, in = s.height * s.width,
              out = out_height * out_width;
    const auto x = numbers<T>(maps * in, 1, 2.0), x_dot = numbers<T>(maps * in, 2),
               g_y = numbers<T>(maps * out, 3);
    std::vector<T> y(static_cast<std::size_t>(maps * out), T(7)), y_dot = y;
    std::vector<T> g_x(static_cast<std::size_t>(maps * in), T(7));
    DeviceArray<T> dx(x), dx_dot(x_dot), dg_y(g_y), dy(y), dy_dot(y), dg_x(g_x);
    DeviceArray<std::uint8_t> winner(y.size());
    max_pool_forward(dy.data(), winner.data(), dx.data(), s, extent, nullptr);
    max_pool_gather(dy_dot.data(), winner.data(), dx_dot.data(), s, extent, nullptr);
    max_pool_scatter(dg_x.data(), winner.data(), dg_y.data(), s, extent, nullptr);
    for (int map = 0; map < maps; ++map) {
      if (!is_own(map, s.channels, own)) continue;
      for (int i = 0; i < in; ++i) g_x[static_cast<std::size_t>(map * in + i)] = 0;
      for (int oy = 0; oy < out_height; ++oy) {
        for (int ox = 0; ox < out_width; ++ox) {
          std::size_t best = 0;
          for (int w = 0; w < s.size * s.size; ++w) {
            const int at = (oy * s.size + w / s.size) * s.width + ox * s.size + w % s.size;
            const auto i = static_cast<std::size_t>(map * in + at);
            if (w == 0 || x[i] > x[best]) best = i;
          }
          const auto o = static_cast<std::size_t>(map * out + oy * out_width + ox);
          y[o] = x[best];
          y_dot[o] = x_dot[best];
          g_x[best] = g_y[o];
        }
      }
    }
    ASSERT_EQ(dy.host(), y);
    ASSERT_EQ(dy_dot.host(), y_dot);
    ASSERT_EQ(dg_x.host(), g_x);
  });
}

TYPED_TEST(Pool, MeanAndItsGradient) {
  using T = TypeParam;
  this->each([](const PoolSize& s, const RowExtent& extent, const std::vector<std::int32_t>& own) {
    const int maps = tasks * rows * s.channels, positions = s.height * s.width;
    const auto x = numbers<T>(maps * positions, 1), g_y = numbers<T>(maps, 2);
    DeviceArray<T> dx(x), dg_y(g_y), dy(std::vector<T>(g_y.size(), T(7))),
        dg_x(std::vector<T>(x.size(), T(7)));
    mean_forward(dy.data(), dx.data(), s.channels, positions, extent, nullptr);
    mean_backward(dg_x.data(), dg_y.data(), s.channels, positions, extent, nullptr);
    const std::vector<T> y = dy.host(), g_x = dg_x.host();
    const double unit = 0.5 * std::numeric_limits<T>::epsilon();
    for (int map = 0; map < maps; ++map) {
      const auto o = static_cast<std::size_t>(map);
      const bool is_task = is_own(map, s.channels, own);
      double sum = 0.0, magnitude = 0.0;
      for (int p = 0; p < positions; ++p) {
        const auto i = static_cast<std::size_t>(map * positions + p);
        sum += static_cast<double>(x[i]);
        magnitude += std::abs(static_cast<double>(x[i]));
        const double g = static_cast<double>(g_y[o]) / positions;
        ASSERT_NEAR(static_cast<double>(g_x[i]), is_task ? g : 7.0, unit * std::abs(g));
      }
      ASSERT_NEAR(static_cast<double>(y[o]), is_task ? sum / positions : 7.0,
                  2.0 * (positions + 1) * unit * magnitude / positions);
    }
  });
}

TEST(PoolNan, WinsSoThatADivergedTaskIsSeen) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  DeviceArray<float> x({1.0f, nan, 3.0f, 2.0f, 0.0f, 1.0f, nan, 5.0f}), y(2);
  DeviceArray<std::uint8_t> winner(2);
  max_pool_forward(y.data(), winner.data(), x.data(), {2, 2, 2, 2}, {1, 1, nullptr}, nullptr);
  const std::vector<float> got = y.host();
  const std::vector<std::uint8_t> who = winner.host();
  EXPECT_TRUE(std::isnan(got[0]));
  EXPECT_TRUE(std::isnan(got[1]));
  EXPECT_EQ(who[0], 1);
  EXPECT_EQ(who[1], 2);
}

TEST(PoolErrors, WindowThatDoesNotFit) {
  try {
    max_pool_gather<float>(nullptr, nullptr, nullptr, {1, 3, 5, 4}, {1, 1, nullptr}, nullptr);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("max_pool of 3 x 5: window 4, expected"));
  }
}

}  // namespace
}  // namespace kshot::cuda
