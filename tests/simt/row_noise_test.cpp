// kernels/row_noise.cu on the emulator. The noise must be that of kshot/random.h, number by number.
// Signs and sums with them are exact. The other results are compared with formulas in double within
// the roundings of a few operations, and derivatives with central differences of these formulas.
#include "kernels/row_noise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kshot/random.h"
#include "simt/device_array.h"
#include "simt/orders.h"

namespace kshot::cuda {
namespace {

using simt::With;

constexpr int tasks = 3, rows = 4;
const std::vector<std::int32_t> counts = {4, 0, 3};
// Task 0 has support and query rows, task 1 has no rows, and task 2 has only support rows.
const std::vector<std::int32_t> support = {2, 0, 3};
const RandomKey key{.seed = 11,
                    .purpose = Purpose::rows_inner_support,
                    .step = 5,
                    .task = 9,
                    .inner_step = 2,
                    .sample = 1};

std::size_t at(int i) {
  return static_cast<std::size_t>(i);
}

/// The noise of a layer within that of its rows, and the layer's size.
struct Case {
  int channels = 1, positions = 1;
  std::size_t width = 0, offset = 0;
  int features() const { return channels * positions; }
};
// The noise lies within one quad, or across quads and windows, and begins at different offsets.
const std::vector<Case> cases = {{1, 1, 1, 0},       {5, 7, 90, 60},     {40, 1, 163, 41},
                                 {130, 3, 700, 127}, {1030, 1, 2100, 3}, {2200, 1, 2300, 97}};

enum class Kind { whole, split, given };
constexpr Kind kinds[] = {Kind::whole, Kind::split, Kind::given};

/// The noise of the layer's element `e` in a task's row, by random.h.
double expected_noise(const Case& c, Kind kind, int task, int row, int e, bool sign) {
  RandomKey of_row = key;
  of_row.task += static_cast<std::uint32_t>(task);
  int in_stream = row;
  if (kind == Kind::split && row >= support[at(task)]) {
    in_stream -= support[at(task)];
    of_row.purpose = Purpose::rows_inner_query;
  }
  const std::uint64_t element = at(in_stream) * c.width + c.offset + at(e);
  return static_cast<double>(sign ? sign_element(of_row, element)
                                  : normal_element(of_row, element));
}

std::vector<double> numbers(int n, std::uint64_t seed, float low = -1.0f, float high = 1.0f) {
  RandomStream stream({.seed = seed});
  std::vector<double> values(at(n));
  for (double& value : values) value = static_cast<double>(stream.uniform(low, high));
  return values;
}

template <class T>
class RowNoiseTest : public testing::Test {
 protected:
  /// Calls body(case, noise on the device, element -> expected noise of [tasks, rows, ...],
  /// extent).
  template <class Body>
  static void each(bool sign, const Body& body) {
    for (const simt::Settings& order : simt::all_orders()) {
      const With with(order);
      for (const Case& c : cases) {
        for (const Kind kind : kinds) {
          SCOPED_TRACE(std::to_string(c.channels) + " x " + std::to_string(c.positions) +
                       ", kind " + std::to_string(static_cast<int>(kind)));
          const int of_row = sign ? c.channels : c.features();
          std::vector<double> want(at(tasks * rows * of_row));
          std::vector<T> given(at(tasks * rows) * (c.width + at(of_row)), T(7));
          const std::size_t width = c.width + (kind == Kind::given ? at(of_row) : 0);
          for (int i = 0; i < tasks * rows * of_row; ++i) {
            const int row = i / of_row, e = i % of_row;
            want[at(i)] = expected_noise(c, kind, row / rows, row % rows, e, sign);
            given[at(row) * width + c.offset + at(e)] = static_cast<T>(want[at(i)]);
          }
          DeviceArray<std::int32_t> device_counts(counts), device_support(support);
          DeviceArray<T> device_given(given);
          RowNoise<T> noise;
          noise.key = key;
          noise.width = width;
          noise.offset = c.offset;
          if (kind == Kind::split) {
            noise.support = device_support.data();
            noise.query = Purpose::rows_inner_query;
          }
          if (kind == Kind::given) noise.given = device_given.data();
          body(c, noise, want, RowExtent{tasks, rows, device_counts.data()});
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
  static bool is_own(int i, int features) {
    const int row = i / features;
    return row % rows < counts[at(row / rows)];
  }
  static std::vector<T> as(const std::vector<double>& values) {
    return {values.begin(), values.end()};
  }
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(RowNoiseTest, Scalars);

TYPED_TEST(RowNoiseTest, SignsAreThoseOfTheRowsChannels) {
  using T = TypeParam;
  this->each(true, [](const Case& c, const RowNoise<T>& noise, const std::vector<double>& signs,
                      const RowExtent& extent) {
    const int features = c.features(), n = tasks * rows * features;
    const auto x = RowNoiseTest<T>::as(numbers(n, 1)), x_dot = RowNoiseTest<T>::as(numbers(n, 2));
    const auto before = RowNoiseTest<T>::as(numbers(n, 3));
    DeviceArray<T> dx(x), dx_dot(x_dot);
    for (const bool accumulate : {false, true}) {
      DeviceArray<T> y(before), y_dot(before), alone(before);
      const SignSize size{c.channels, c.positions};
      multiply_signs<T>({y.data(), y_dot.data()}, {dx.data(), dx_dot.data()}, accumulate, noise,
                        size, extent, nullptr);
      multiply_signs<T>({alone.data(), nullptr}, {dx.data(), nullptr}, accumulate, noise, size,
                        extent, nullptr);
      const std::vector<T> got = y.host(), got_dot = y_dot.host();
      ASSERT_EQ(alone.host(), got);
      for (int i = 0; i < n; ++i) {
        T want = before[at(i)], want_dot = want;
        if (RowNoiseTest<T>::is_own(i, features)) {
          const T sign = static_cast<T>(signs[at(i / c.positions)]);
          want = (accumulate ? want : T(0)) + sign * x[at(i)];
          want_dot = (accumulate ? want_dot : T(0)) + sign * x_dot[at(i)];
        }
        ASSERT_EQ(got[at(i)], want) << "element " << i;
        ASSERT_EQ(got_dot[at(i)], want_dot) << "element " << i;
      }
    }
  });
}

TYPED_TEST(RowNoiseTest, DeviationsAndTheirDerivatives) {
  using T = TypeParam;
  this->each(false, [](const Case& c, const RowNoise<T>& noise, const std::vector<double>& zeta,
                       const RowExtent& extent) {
    const int features = c.features(), n = tasks * rows * features;
    const auto v = RowNoiseTest<T>::as(numbers(n, 1, 0.2f, 2.0f));
    const auto v_dot = RowNoiseTest<T>::as(numbers(n, 2)), g = RowNoiseTest<T>::as(numbers(n, 3)),
               g_dot = RowNoiseTest<T>::as(numbers(n, 4)),
               before = RowNoiseTest<T>::as(numbers(n, 5));
    DeviceArray<T> dv(v), dv_dot(v_dot), dg(g), dg_dot(g_dot), y(before), y_dot(before),
        g_v(before), g_v_dot(before), plain_y(before), plain_g(before);
    deviate<T>({y.data(), y_dot.data()}, {dv.data(), dv_dot.data()}, noise, features, extent,
               nullptr);
    deviate_pullback<T>({g_v.data(), g_v_dot.data()}, {dg.data(), dg_dot.data()},
                        {dv.data(), dv_dot.data()}, noise, features, extent, nullptr);
    deviate<T>({plain_y.data(), nullptr}, {dv.data(), nullptr}, noise, features, extent, nullptr);
    deviate_pullback<T>({plain_g.data(), nullptr}, {dg.data(), nullptr}, {dv.data(), nullptr},
                        noise, features, extent, nullptr);
    const std::vector<T> got = y.host(), got_dot = y_dot.host(), got_g = g_v.host(),
                         got_g_dot = g_v_dot.host();
    ASSERT_EQ(plain_y.host(), got);
    ASSERT_EQ(plain_g.host(), got_g);
    // Errors of differences: rounding 1e-16 * 6 / 1e-5, truncation 1e-10 times a third derivative
    // below 300.
    const double h = 1e-5;
    const double tolerance = 8.0 * std::numeric_limits<T>::epsilon() + 1e-7;
    for (int i = 0; i < n; ++i) {
      const auto number = [&](const std::vector<T>& of) { return static_cast<double>(of[at(i)]); };
      if (!RowNoiseTest<T>::is_own(i, features)) {
        ASSERT_EQ(got[at(i)], before[at(i)]);
        ASSERT_EQ(got_dot[at(i)], before[at(i)]);
        ASSERT_EQ(got_g[at(i)], before[at(i)]);
        ASSERT_EQ(got_g_dot[at(i)], before[at(i)]);
        continue;
      }
      const double z = zeta[at(i)];
      const auto deviation = [&](double t) { return std::sqrt(number(v) + t * number(v_dot)) * z; };
      const auto gradient = [&](double t) {
        const double moved = number(v) + t * number(v_dot);
        return (number(g) + t * number(g_dot)) * z * (std::sqrt(moved + h) - std::sqrt(moved - h)) /
               (2.0 * h);
      };
      const double larger = 1.0 + std::abs(z) * 12.0;  // derivatives for variances of at least 0.2
      ASSERT_NEAR(number(got), number(before) + deviation(0.0), tolerance * larger);
      ASSERT_NEAR(number(got_dot), number(before) + (deviation(h) - deviation(-h)) / (2.0 * h),
                  tolerance * larger);
      ASSERT_NEAR(number(got_g), gradient(0.0), tolerance * larger);
      const double wide = 1e-3;  // step for differences of differences
      ASSERT_NEAR(number(got_g_dot), (gradient(wide) - gradient(-wide)) / (2.0 * wide),
                  (tolerance + 1e-4) * larger);
    }
  });
}

TYPED_TEST(RowNoiseTest, NoVarianceHasNoDerivativeAndNanPasses) {
  using T = TypeParam;
  const T nan = std::numeric_limits<T>::quiet_NaN(), tiny = std::numeric_limits<T>::min();
  DeviceArray<T> v(std::vector<T>{T(0), tiny, nan, T(4)}), v_dot(std::vector<T>(4, T(3))),
      g(std::vector<T>(4, T(2))), y(std::vector<T>(4, T(1))), y_dot(std::vector<T>(4, T(1))),
      zeta(std::vector<T>(4, T(5))), g_v(4), g_v_dot(4);
  RowNoise<T> noise;
  noise.width = 4;
  noise.given = zeta.data();
  const RowExtent extent{1, 1, nullptr};
  deviate<T>({y.data(), y_dot.data()}, {v.data(), v_dot.data()}, noise, 4, extent, nullptr);
  deviate_pullback<T>({g_v.data(), g_v_dot.data()}, {g.data(), g.data()}, {v.data(), v_dot.data()},
                      noise, 4, extent, nullptr);
  const std::vector<T> values[] = {y.host(), y_dot.host(), g_v.host(), g_v_dot.host()};
  const T zero[] = {1, 1, 0, 0};
  // At v = 4, h = 1 / (2 sqrt(v)) = 1/4: 1 + 2 * 5, 1 + 3/4 * 5, 2/4 * 5, (2/4 - 2 * 2/64 * 3) * 5
  const T four[] = {T(11), T(4.75), T(2.5), T(1.5625)};
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(values[i][0], zero[i]);
    EXPECT_EQ(values[i][1], zero[i]) << "a variance that is too small for its derivatives";
    EXPECT_TRUE(std::isnan(values[i][2])) << "a task that diverged is to be seen";
    EXPECT_EQ(values[i][3], four[i]);
  }
}

TYPED_TEST(RowNoiseTest, SquaresAndTheirPullback) {
  using T = TypeParam;
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    constexpr int features = 90, n = tasks * rows * features;  // two blocks per task
    const auto x = this->as(numbers(n, 1)), x_dot = this->as(numbers(n, 2)),
               g = this->as(numbers(n, 3)), g_dot = this->as(numbers(n, 4)),
               before = this->as(numbers(n, 5));
    DeviceArray<std::int32_t> device_counts(counts);
    const RowExtent extent{tasks, rows, device_counts.data()};
    DeviceArray<T> dx(x), dx_dot(x_dot), dg(g), dg_dot(g_dot), y(before), y_dot(before),
        g_x(before), g_x_dot(before), still(before), data_dot(before);
    square<T>({y.data(), y_dot.data()}, {dx.data(), dx_dot.data()}, features, extent, nullptr);
    square<T>({still.data(), data_dot.data()}, {dx.data(), nullptr}, features, extent, nullptr);
    square_pullback<T>({g_x.data(), g_x_dot.data()}, {dg.data(), dg_dot.data()},
                       {dx.data(), dx_dot.data()}, features, extent, nullptr);
    const std::vector<T> got[] = {y.host(),       y_dot.host(), g_x.host(),
                                  g_x_dot.host(), still.host(), data_dot.host()};
    const double tolerance = 4.0 * std::numeric_limits<T>::epsilon();
    for (int i = 0; i < n; ++i) {
      const auto number = [&](const std::vector<T>& of) { return static_cast<double>(of[at(i)]); };
      const double b = number(before), a = number(x), a_dot = number(x_dot);
      const bool own = this->is_own(i, features);
      const double want[] = {own ? a * a : b,
                             own ? 2 * a * a_dot : b,
                             b + (own ? 2 * a * number(g) : 0),
                             b + (own ? 2 * (a * number(g_dot) + a_dot * number(g)) : 0),
                             own ? a * a : b,
                             own ? 0 : b};
      for (int k = 0; k < 6; ++k) ASSERT_NEAR(number(got[k]), want[k], tolerance * 4.0) << k;
    }
  }
}

}  // namespace
}  // namespace kshot::cuda
