// kernels/norm.cu on the emulator, compared with plain loops in double in this file. The forward
// pass is compared with its definition, the gradient with derivatives of the forward pass by dual
// numbers, and tangents with the loops on dual numbers.
//
// Tolerance: the inputs are the kernel's own, of magnitude 1, so that only its arithmetic differs.
// A mean of n numbers has an error of at most n roundings, x_hat has this error times `inverse`,
// and every derivative multiplies by one more `inverse`. This gives (n + 16) roundings times (1 +
// inverse)^p, with p = 1 for y, 2 for y' and g_x, 3 for g_x'.
#include "kernels/norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "backend/reference/dual.h"
#include "kshot/network.h"
#include "simt/device_array.h"
#include "simt/numbers.h"
#include "simt/orders.h"

namespace kshot::cuda {
namespace {

using backend::reference::Dual;
using simt::numbers;
using simt::With;

constexpr int rows = 4;
const std::vector<std::int32_t> counts = {4, 1, 0, 3};
constexpr int tasks = 4;

// The sizes have fewer, as many and more channels than a block has warps, and vectors, maps below
// and maps above 32 positions.
const std::vector<NormSize> sizes = {{3, 1}, {4, 6}, {5, 49}, {9, 4}};

// ---- plain loops, for the elements of one channel ----

template <class S>
struct Channel {
  std::vector<S> x, g;
  S scale, shift;
};

template <class S>
struct Forward {
  S mean = 0.0, inverse = 0.0;
  std::vector<S> x_hat, y;
};

template <class S>
Forward<S> forward(const Channel<S>& c) {
  using std::sqrt;
  Forward<S> f;
  S variance = 0.0;
  const S n = static_cast<double>(c.x.size());
  for (const S& x : c.x) f.mean += x / n;
  for (const S& x : c.x) variance += (x - f.mean) * (x - f.mean) / n;
  f.inverse = S(1.0) / sqrt(variance + S(norm_epsilon));
  for (const S& x : c.x) {
    f.x_hat.push_back((x - f.mean) * f.inverse);
    f.y.push_back(c.scale * f.x_hat.back() + c.shift);
  }
  return f;
}

template <class S>
struct Backward {
  std::vector<S> g_x;
  S g_scale = 0.0, g_shift = 0.0;
};

template <class S>
Backward<S> backward(const Channel<S>& c) {
  const Forward<S> f = forward(c);
  Backward<S> b;
  const S n = static_cast<double>(c.x.size());
  for (std::size_t i = 0; i < c.x.size(); ++i) {
    b.g_scale += c.g[i] * f.x_hat[i];
    b.g_shift += c.g[i];
  }
  for (std::size_t i = 0; i < c.x.size(); ++i) {
    b.g_x.push_back(c.scale * f.inverse * (c.g[i] - b.g_shift / n - f.x_hat[i] * (b.g_scale / n)));
  }
  return b;
}

Channel<Dual> dual(const Channel<double>& c, const Channel<double>& dot) {
  Channel<Dual> d;
  for (std::size_t i = 0; i < c.x.size(); ++i) {
    d.x.push_back({c.x[i], dot.x[i]});
    d.g.push_back({c.g[i], dot.g[i]});
  }
  d.scale = {c.scale, dot.scale};
  d.shift = {c.shift, dot.shift};
  return d;
}

// Tests the gradient of the loops, from which all others follow: it is the derivative of sum g y
// along every direction.
TEST(NormLoops, GradientIsThatOfTheForwardPass) {
  const Channel<double> c{numbers<double>(11, 1), numbers<double>(11, 2), 0.7, -0.2};
  const Backward<double> b = backward(c);
  const auto along = [&](const Channel<double>& direction) {
    const Forward<Dual> f = forward(dual(c, direction));
    double sum = 0.0;
    for (std::size_t i = 0; i < c.g.size(); ++i) sum += c.g[i] * f.y[i].tangent;
    return sum;
  };
  const Channel<double> zero{std::vector<double>(11, 0.0), std::vector<double>(11, 0.0), 0.0, 0.0};
  for (std::size_t i = 0; i < c.x.size(); ++i) {
    Channel<double> direction = zero;
    direction.x[i] = 1.0;
    EXPECT_NEAR(b.g_x[i], along(direction), 1e-14);
  }
  Channel<double> direction = zero;
  direction.scale = 1.0;
  EXPECT_NEAR(b.g_scale, along(direction), 1e-14);
  direction = zero;
  direction.shift = 1.0;
  EXPECT_NEAR(b.g_shift, along(direction), 1e-14);
}

// ---- on the device ----

// The inputs of all tasks on the host. A task's weights have the scale at `scale_at` and the shift
// at `shift_at`.
constexpr std::size_t scale_at = 3;
template <class T>
struct Data {
  NormSize size;
  std::size_t width, shift_at;
  std::vector<T> x, g, weights;

  Data(NormSize s, std::uint64_t seed)
      : size(s),
        width(2 * static_cast<std::size_t>(s.channels) + 6),
        shift_at(static_cast<std::size_t>(s.channels) + 4),
        x(numbers<T>(elements(), seed)),
        g(numbers<T>(elements(), seed + 1)),
        weights(numbers<T>(width * tasks, seed + 2)) {}
  std::size_t channels() const { return static_cast<std::size_t>(size.channels); }
  std::size_t positions() const { return static_cast<std::size_t>(size.positions); }
  std::size_t elements() const { return tasks * rows * channels() * positions(); }
  // The indices of the elements of one task's channel.
  std::vector<std::size_t> indices(std::size_t task, std::size_t channel) const {
    std::vector<std::size_t> all;
    for (std::size_t row = 0; row < static_cast<std::size_t>(counts[task]); ++row) {
      for (std::size_t p = 0; p < positions(); ++p) {
        all.push_back(((task * rows + row) * channels() + channel) * positions() + p);
      }
    }
    return all;
  }
  Channel<double> channel(std::size_t task, std::size_t c) const {
    Channel<double> data;
    for (const std::size_t i : indices(task, c)) {
      data.x.push_back(static_cast<double>(x[i]));
      data.g.push_back(static_cast<double>(g[i]));
    }
    data.scale = static_cast<double>(weights[task * width + scale_at + c]);
    data.shift = static_cast<double>(weights[task * width + shift_at + c]);
    return data;
  }
};

template <class T>
struct Device {
  DeviceArray<T> x, g, weights;
  std::size_t width, shift_offset;
  explicit Device(const Data<T>& h)
      : x(h.x), g(h.g), weights(h.weights), width(h.width), shift_offset(h.shift_at) {}
  TaskTensor<const T> scale() { return {weights.data() + scale_at, width}; }
  TaskTensor<const T> shift() { return {weights.data() + shift_offset, width}; }
};

template <class T>
class Norm : public testing::Test {
 protected:
  template <class Body>
  static void each(Body body) {
    for (const simt::Settings& order : simt::all_orders()) {
      const With with(order);
      for (const NormSize& size : sizes) {
        SCOPED_TRACE(std::to_string(size.channels) + " x " + std::to_string(size.positions));
        DeviceArray<std::int32_t> device_counts(counts);
        body(Data<T>(size, 1), Data<T>(size, 11), RowExtent{tasks, rows, device_counts.data()});
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(Norm, Scalars);

template <class T>
double bound(std::size_t n, double inverse, int p) {
  return 0.5 * std::numeric_limits<T>::epsilon() * (static_cast<double>(n) + 16.0) *
         std::pow(1.0 + inverse, p);
}

// Calls body(task, channel, its elements, data, tangents) for all tasks and channels.
template <class T, class Body>
void each_channel(const Data<T>& h, const Data<T>& dot, const Body& body) {
  for (std::size_t task = 0; task < tasks; ++task) {
    for (std::size_t c = 0; c < h.channels(); ++c) {
      body(task, c, h.indices(task, c), h.channel(task, c), dot.channel(task, c));
    }
  }
}

// Expects the previous content, 7, in elements of rows that are not a task's own.
template <class T>
void expect_untouched(const Data<T>& h, const std::vector<T>& got) {
  const std::size_t features = h.channels() * h.positions();
  for (std::size_t i = 0; i < got.size(); ++i) {
    const std::size_t row = i / features;
    if (static_cast<int>(row % rows) >= counts[row / rows]) {
      ASSERT_EQ(got[i], T(7)) << i;
    }
  }
}

TYPED_TEST(Norm, ForwardAndItsTangent) {
  using T = TypeParam;
  this->each([](const Data<T>& h, const Data<T>& dot, const RowExtent& extent) {
    Device<T> d(h), d_dot(dot);
    const std::vector<T> sevens(h.elements(), T(7));
    DeviceArray<T> mean(tasks * h.channels()), inverse(mean.size()), slope(mean.size());
    DeviceArray<T> x_hat(sevens), y(sevens), x_hat_dot(sevens), y_dot(sevens), still(sevens),
        still_hat(sevens);
    norm_forward<T>(
        {d.x.data(), d.scale(), d.shift(), mean.data(), inverse.data(), x_hat.data(), y.data()},
        NormSource::batch, h.size, extent, nullptr);
    norm_forward_tangent<T>({x_hat.data(), inverse.data(), d_dot.x.data(), d.scale(), d_dot.scale(),
                             d_dot.shift(), slope.data(), x_hat_dot.data(), y_dot.data()},
                            h.size, extent, nullptr);
    norm_forward_tangent<T>({x_hat.data(), inverse.data(), nullptr, d.scale(), d_dot.scale(),
                             d_dot.shift(), slope.data(), still_hat.data(), still.data()},
                            h.size, extent, nullptr);
    const auto got_x_hat = x_hat.host(), got_y = y.host(), got_x_hat_dot = x_hat_dot.host(),
               got_y_dot = y_dot.host(), got_still = still.host(), got_mean = mean.host(),
               got_inverse = inverse.host();
    each_channel(
        h, dot,
        [&](std::size_t task, std::size_t c, const std::vector<std::size_t>& at,
            const Channel<double>& data, const Channel<double>& data_dot) {
          if (at.empty()) return;
          const Forward<Dual> f = forward(dual(data, data_dot));
          const double k = f.inverse.value;
          const auto tolerance = [&](int p) { return bound<T>(at.size(), k, p); };
          ASSERT_NEAR(static_cast<double>(got_mean[task * h.channels() + c]), f.mean.value,
                      tolerance(0));
          ASSERT_NEAR(static_cast<double>(got_inverse[task * h.channels() + c]), k, tolerance(2));
          for (std::size_t i = 0; i < at.size(); ++i) {
            ASSERT_NEAR(static_cast<double>(got_x_hat[at[i]]), f.x_hat[i].value, tolerance(1));
            ASSERT_NEAR(static_cast<double>(got_y[at[i]]), f.y[i].value, tolerance(1));
            ASSERT_NEAR(static_cast<double>(got_x_hat_dot[at[i]]), f.x_hat[i].tangent,
                        tolerance(2));
            ASSERT_NEAR(static_cast<double>(got_y_dot[at[i]]), f.y[i].tangent, tolerance(2));
            ASSERT_NEAR(static_cast<double>(got_still[at[i]]),
                        data_dot.scale * f.x_hat[i].value + data_dot.shift, tolerance(1));
          }
        });
    for (const auto* array : {&got_x_hat, &got_y, &got_x_hat_dot, &got_y_dot, &got_still}) {
      expect_untouched(h, *array);
    }
  });
}

// The statistics come from other rows. The pass is in place, as in a network without gradient.
TYPED_TEST(Norm, ForwardWithGivenStatistics) {
  using T = TypeParam;
  this->each([](const Data<T>& h, const Data<T>& dot, const RowExtent& extent) {
    Device<T> d(h), others(dot);
    DeviceArray<T> mean(tasks * h.channels()), inverse(mean.size());
    const RowExtent full{tasks, rows, nullptr};
    norm_forward<T>({others.x.data(), others.scale(), others.shift(), mean.data(), inverse.data(),
                     nullptr, others.x.data()},
                    NormSource::batch, h.size, full, nullptr);
    const auto means = mean.host(), inverses = inverse.host();
    norm_forward<T>(
        {d.x.data(), d.scale(), d.shift(), mean.data(), inverse.data(), nullptr, d.x.data()},
        NormSource::given, h.size, extent, nullptr);
    const std::vector<T> got = d.x.host();
    EXPECT_EQ(mean.host(), means);
    EXPECT_EQ(inverse.host(), inverses);
    std::vector<bool> is_own(got.size(), false);
    each_channel(h, dot,
                 [&](std::size_t task, std::size_t c, const std::vector<std::size_t>& at,
                     const Channel<double>& data, const Channel<double>&) {
                   const double m = static_cast<double>(means[task * h.channels() + c]);
                   const double k = static_cast<double>(inverses[task * h.channels() + c]);
                   for (std::size_t i = 0; i < at.size(); ++i) {
                     is_own[at[i]] = true;
                     ASSERT_NEAR(static_cast<double>(got[at[i]]),
                                 data.scale * (data.x[i] - m) * k + data.shift,
                                 4 * std::numeric_limits<T>::epsilon() * (1.0 + 2.0 * k));
                   }
                 });
    for (std::size_t i = 0; i < got.size(); ++i) {
      if (!is_own[i]) {
        ASSERT_EQ(got[i], h.x[i]);
      }
    }
  });
}

TYPED_TEST(Norm, BackwardAndItsTangent) {
  using T = TypeParam;
  this->each([](const Data<T>& h, const Data<T>& dot, const RowExtent& extent) {
    Device<T> d(h), d_dot(dot);
    const std::vector<T> sevens(h.elements(), T(7)), before = numbers<T>(tasks * h.width, 5);
    DeviceArray<T> mean(tasks * h.channels()), inverse(mean.size()), slope(mean.size());
    DeviceArray<T> x_hat(h.elements()), y(h.elements()), x_hat_dot(h.elements()),
        y_dot(h.elements());
    norm_forward<T>(
        {d.x.data(), d.scale(), d.shift(), mean.data(), inverse.data(), x_hat.data(), y.data()},
        NormSource::batch, h.size, extent, nullptr);
    norm_forward_tangent<T>({x_hat.data(), inverse.data(), d_dot.x.data(), d.scale(), d_dot.scale(),
                             d_dot.shift(), slope.data(), x_hat_dot.data(), y_dot.data()},
                            h.size, extent, nullptr);
    for (const bool accumulate : {false, true}) {
      DeviceArray<T> g_x(sevens), both_g_x(sevens), g_x_dot(sevens), g(before), both_g(before),
          g_dot(before);
      const auto scale_of = [&](DeviceArray<T>& a) {
        return TaskTensor<T>{a.data() + scale_at, h.width};
      };
      const auto shift_of = [&](DeviceArray<T>& a) {
        return TaskTensor<T>{a.data() + h.shift_at, h.width};
      };
      NormBackward<T> pass{d.g.data(), x_hat.data(), inverse.data(), d.scale(),
                           g_x.data(), scale_of(g),  shift_of(g),    accumulate};
      norm_backward<T>(pass, h.size, extent, nullptr);
      pass.g_x = both_g_x.data();
      pass.g_scale = scale_of(both_g);
      pass.g_shift = shift_of(both_g);
      norm_backward_tangent<T>({pass, d_dot.g.data(), x_hat_dot.data(), slope.data(), d_dot.scale(),
                                g_x_dot.data(), scale_of(g_dot), shift_of(g_dot), accumulate},
                               h.size, extent, nullptr);
      const auto got_g_x = g_x.host(), got_g_x_dot = g_x_dot.host(), got_g = g.host(),
                 got_g_dot = g_dot.host();
      EXPECT_EQ(both_g_x.host(), got_g_x);
      EXPECT_EQ(both_g.host(), got_g);
      std::vector<double> expected(before.begin(), before.end()), expected_dot = expected;
      std::vector<double> allowed(before.size(), 0.0), allowed_dot = allowed;
      each_channel(
          h, dot,
          [&](std::size_t task, std::size_t c, const std::vector<std::size_t>& at,
              const Channel<double>& data, const Channel<double>& data_dot) {
            const Channel<Dual> both = dual(data, data_dot);
            const Backward<Dual> b = backward(both);
            const double k = at.empty() ? 0.0 : forward(data).inverse;
            const auto tolerance = [&](int p) { return bound<T>(at.size(), k, p); };
            for (std::size_t i = 0; i < at.size(); ++i) {
              ASSERT_NEAR(static_cast<double>(got_g_x[at[i]]), b.g_x[i].value, tolerance(2));
              ASSERT_NEAR(static_cast<double>(got_g_x_dot[at[i]]), b.g_x[i].tangent, tolerance(3));
            }
            const auto n = static_cast<double>(at.size());
            const auto put = [&](std::size_t offset, const Dual& value, int p) {
              const std::size_t i = task * h.width + offset + c;
              const double base = accumulate ? expected[i] : 0.0;
              expected[i] = base + value.value;
              expected_dot[i] = base + value.tangent;
              allowed[i] = (1.0 + n) * tolerance(p);
              allowed_dot[i] = (1.0 + n) * tolerance(p + 1);
            };
            put(scale_at, b.g_scale, 1);
            put(h.shift_at, b.g_shift, 0);
          });
      for (std::size_t i = 0; i < expected.size(); ++i) {
        ASSERT_NEAR(static_cast<double>(got_g[i]), expected[i], allowed[i]) << i;
        ASSERT_NEAR(static_cast<double>(got_g_dot[i]), expected_dot[i], allowed_dot[i]) << i;
      }
      expect_untouched(h, got_g_x);
      expect_untouched(h, got_g_x_dot);
    }
  });
}

// The gradient is in place of that of the output, as in the passes of a network, and gradients of
// the weights are not computed.
TYPED_TEST(Norm, BackwardInPlace) {
  using T = TypeParam;
  this->each([](const Data<T>& h, const Data<T>& dot, const RowExtent& extent) {
    Device<T> d(h), d_dot(dot), copy(h);
    DeviceArray<T> mean(tasks * h.channels()), inverse(mean.size()), slope(mean.size());
    DeviceArray<T> x_hat(h.elements()), y(h.elements()), x_hat_dot(h.elements()), apart(h.g),
        apart_dot(dot.g);
    norm_forward<T>(
        {d.x.data(), d.scale(), d.shift(), mean.data(), inverse.data(), x_hat.data(), y.data()},
        NormSource::batch, h.size, extent, nullptr);
    norm_forward_tangent<T>({x_hat.data(), inverse.data(), d_dot.x.data(), d.scale(), d_dot.scale(),
                             d_dot.shift(), slope.data(), x_hat_dot.data(), y.data()},
                            h.size, extent, nullptr);
    const auto run = [&](T* g, T* g_dot, T* g_x, T* g_x_dot) {
      norm_backward_tangent<T>({{g, x_hat.data(), inverse.data(), d.scale(), g_x, {}, {}, false},
                                g_dot,
                                x_hat_dot.data(),
                                slope.data(),
                                d_dot.scale(),
                                g_x_dot,
                                {},
                                {},
                                false},
                               h.size, extent, nullptr);
    };
    run(d.g.data(), d_dot.g.data(), apart.data(), apart_dot.data());
    run(d.g.data(), d_dot.g.data(), d.g.data(), d_dot.g.data());
    EXPECT_EQ(d.g.host(), apart.host());
    EXPECT_EQ(d_dot.g.host(), apart_dot.host());
    norm_backward<T>(
        {copy.g.data(), x_hat.data(), inverse.data(), d.scale(), copy.g.data(), {}, {}, false},
        h.size, extent, nullptr);
    EXPECT_EQ(copy.g.host(), apart.host());
  });
}

}  // namespace
}  // namespace kshot::cuda
