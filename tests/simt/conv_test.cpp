// kernels/conv.cu on the emulator, compared with plain loops in double in this file. Inputs are
// given in the kernel's own precision, so that only its sums differ. A sum of n products, in any
// order, is within n + 2 roundings of the sum of their magnitudes (Higham 2002, 3.1), which the
// loops compute too. Tensor cores add 28 roundings for splitting and adding (tensor_core.h). All
// products here are bilinear, so a central difference with step 1 is their exact tangent.
#include "kernels/conv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "kshot/error.h"
#include "kshot/random.h"
#include "simt/device_array.h"
#include "simt/orders.h"

namespace kshot::cuda {
namespace {

using simt::With;
using testing::HasSubstr;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

struct Case {
  ConvShape shape;
  int rows;                         // rows of the layout
  std::vector<std::int32_t> valid;  // own rows per task; empty: all rows of two tasks
};

ConvShape shape_of(int in_channels, int height, int width, int out_channels, int kernel, int stride,
                   int padding) {
  return {in_channels,
          height,
          width,
          out_channels,
          (height + 2 * padding - kernel) / stride + 1,
          (width + 2 * padding - kernel) / stride + 1,
          kernel,
          stride,
          padding};
}

// The cases have every tile of 32 and 64 on both sides, several tiles on a side, phases of
// different size, phases that no tap reaches, and a task without rows.
const std::vector<Case> cases = {
    {shape_of(3, 7, 6, 5, 3, 2, 1), 3, {3, 0, 1, 2}}, {shape_of(1, 5, 5, 33, 3, 1, 1), 3, {1, 3}},
    {shape_of(2, 6, 7, 40, 3, 1, 1), 2, {2, 1}},      {shape_of(4, 3, 5, 3, 1, 1, 0), 2, {}},
    {shape_of(2, 5, 4, 3, 1, 2, 0), 2, {2, 1}},       {shape_of(3, 6, 7, 2, 2, 3, 0), 2, {1, 2}},
    {shape_of(2, 9, 5, 2, 5, 1, 2), 2, {2, 1}},       {shape_of(1, 10, 10, 2, 4, 2, 3), 1, {1, 1}},
    {shape_of(100, 2, 2, 34, 1, 1, 0), 2, {2, 1}},    {shape_of(5, 4, 3, 70, 3, 2, 1), 1, {1, 1}},
};

std::vector<double> numbers(std::size_t n, std::uint64_t seed) {
  RandomStream stream({.seed = seed});
  std::vector<double> values(n);
  for (double& value : values) value = static_cast<double>(stream.uniform(-1.0f, 1.0f));
  return values;
}

template <class T>
std::vector<T> as(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

// ---- plain loops ----

struct Sum {
  double value = 0.0, magnitude = 0.0;
  int terms = 0;
  void add(double term) {
    value += term;
    magnitude += std::abs(term);
    ++terms;
  }
};

std::size_t in_size(const ConvShape& s) {
  return static_cast<std::size_t>(s.in_channels * s.in_height * s.in_width);
}
std::size_t out_size(const ConvShape& s) {
  return static_cast<std::size_t>(s.out_channels * s.out_height * s.out_width);
}
std::size_t weight_size(const ConvShape& s) {
  return static_cast<std::size_t>(s.out_channels * s.in_channels * s.kernel * s.kernel);
}

// Calls body(out, in, weight) with the indices of every product of one row.
template <class Body>
void each_product(const ConvShape& s, const Body& body) {
  for (int o = 0; o < s.out_channels; ++o)
    for (int i = 0; i < s.in_channels; ++i)
      for (int y = 0; y < s.out_height; ++y)
        for (int x = 0; x < s.out_width; ++x)
          for (int ky = 0; ky < s.kernel; ++ky)
            for (int kx = 0; kx < s.kernel; ++kx) {
              const int in_y = y * s.stride - s.padding + ky, in_x = x * s.stride - s.padding + kx;
              if (in_y < 0 || in_y >= s.in_height || in_x < 0 || in_x >= s.in_width) continue;
              body(static_cast<std::size_t>((o * s.out_height + y) * s.out_width + x),
                   static_cast<std::size_t>((i * s.in_height + in_y) * s.in_width + in_x),
                   static_cast<std::size_t>(((o * s.in_channels + i) * s.kernel + ky) * s.kernel +
                                            kx));
            }
}

// One task's data: features [rows, ...], kernel, bias.
struct Task {
  std::vector<double> x, g_y, weight, bias;
};

std::vector<Sum> forward(const ConvShape& s, std::size_t rows, const Task& t) {
  std::vector<Sum> y(rows * out_size(s));
  for (std::size_t row = 0; row < rows; ++row) {
    each_product(s, [&](std::size_t o, std::size_t i, std::size_t w) {
      y[row * out_size(s) + o].add(t.weight[w] * t.x[row * in_size(s) + i]);
    });
  }
  const auto plane = static_cast<std::size_t>(s.out_height * s.out_width);
  for (std::size_t i = 0; i < y.size(); ++i) y[i].add(t.bias[i % out_size(s) / plane]);
  return y;
}

std::vector<Sum> input_gradient(const ConvShape& s, std::size_t rows, const Task& t) {
  std::vector<Sum> g_x(rows * in_size(s));
  for (std::size_t row = 0; row < rows; ++row) {
    each_product(s, [&](std::size_t o, std::size_t i, std::size_t w) {
      g_x[row * in_size(s) + i].add(t.weight[w] * t.g_y[row * out_size(s) + o]);
    });
  }
  return g_x;
}

// The gradient of the kernel, followed by that of the bias.
std::vector<Sum> weight_gradient(const ConvShape& s, std::size_t rows, const Task& t) {
  std::vector<Sum> g(weight_size(s) + static_cast<std::size_t>(s.out_channels));
  const auto plane = static_cast<std::size_t>(s.out_height * s.out_width);
  for (std::size_t row = 0; row < rows; ++row) {
    each_product(s, [&](std::size_t o, std::size_t i, std::size_t w) {
      g[w].add(t.g_y[row * out_size(s) + o] * t.x[row * in_size(s) + i]);
    });
    for (std::size_t o = 0; o < out_size(s); ++o) {
      g[weight_size(s) + o / plane].add(t.g_y[row * out_size(s) + o]);
    }
  }
  return g;
}

// ---- all tasks, on the host and on the device ----

// before the kernel, and between the kernel and the bias
constexpr std::size_t weight_offset = 3, gap = 2;

struct Host {
  Case c;
  std::vector<std::int32_t> valid;
  std::size_t tasks, rows, width;  // width is the size of a task's vector of weights
  std::vector<double> x, g_y, weights;

  Host(const Case& c_, std::uint64_t seed) : c(c_), valid(c_.valid) {
    if (valid.empty()) valid = {c.rows, c.rows};
    tasks = valid.size();
    rows = static_cast<std::size_t>(c.rows);
    width = bias_offset() + static_cast<std::size_t>(c.shape.out_channels) + 1;
    x = numbers(tasks * rows * in_size(c.shape), seed);
    g_y = numbers(tasks * rows * out_size(c.shape), seed + 1);
    weights = numbers(tasks * width, seed + 2);
    // Numbers that must not be read are NaN.
    for (std::size_t task = 0; task < tasks; ++task) {
      for (std::size_t row = count(task); row < rows; ++row) {
        for (std::size_t i = 0; i < in_size(c.shape); ++i) {
          x[(task * rows + row) * in_size(c.shape) + i] = nan;
        }
        for (std::size_t i = 0; i < out_size(c.shape); ++i) {
          g_y[(task * rows + row) * out_size(c.shape) + i] = nan;
        }
      }
    }
  }
  std::size_t bias_offset() const { return weight_offset + weight_size(c.shape) + gap; }
  std::size_t count(std::size_t task) const { return static_cast<std::size_t>(valid[task]); }
  Task task(std::size_t t) const {
    const auto part = [](const std::vector<double>& from, std::size_t at, std::size_t n) {
      const auto begin = from.begin() + static_cast<std::ptrdiff_t>(at);
      return std::vector<double>(begin, begin + static_cast<std::ptrdiff_t>(n));
    };
    return {
        part(x, t * rows * in_size(c.shape), count(t) * in_size(c.shape)),
        part(g_y, t * rows * out_size(c.shape), count(t) * out_size(c.shape)),
        part(weights, t * width + weight_offset, weight_size(c.shape)),
        part(weights, t * width + bias_offset(), static_cast<std::size_t>(c.shape.out_channels))};
  }
};

template <class T>
struct Device {
  DeviceArray<T> x, g_y, weights;
  DeviceArray<std::int32_t> valid;
  std::size_t width, bias_offset;
  RowExtent rows;

  explicit Device(const Host& h)
      : x(as<T>(h.x)),
        g_y(as<T>(h.g_y)),
        weights(as<T>(h.weights)),
        valid(h.valid),
        width(h.width),
        bias_offset(h.bias_offset()),
        rows{static_cast<int>(h.tasks), h.c.rows, h.c.valid.empty() ? nullptr : valid.data()} {}
  TaskTensor<T> weight() { return {weights.data() + weight_offset, width}; }
  TaskTensor<T> bias() { return {weights.data() + bias_offset, width}; }
  TaskTensor<const T> read_weight() { return {weights.data() + weight_offset, width}; }
  TaskTensor<const T> read_bias() { return {weights.data() + bias_offset, width}; }
};

// a + b or a - b, for every array.
Task combined(const Task& a, const Task& b, double sign) {
  Task r = a;
  for (auto member : {&Task::x, &Task::g_y, &Task::weight, &Task::bias}) {
    for (std::size_t i = 0; i < (r.*member).size(); ++i) (r.*member)[i] += sign * (b.*member)[i];
  }
  return r;
}

// The derivative of f at a along b. The magnitudes and terms are bounds for the two products of the
// tangent.
template <class Function>
std::vector<Sum> tangent(const Function& f, const ConvShape& s, std::size_t rows, const Task& a,
                         const Task& b) {
  std::vector<Sum> up = f(s, rows, combined(a, b, 1.0)), down = f(s, rows, combined(a, b, -1.0));
  for (std::size_t i = 0; i < up.size(); ++i) {
    up[i].value = (up[i].value - down[i].value) / 2;
    up[i].magnitude += down[i].magnitude;
    up[i].terms *= 2;
  }
  return up;
}

// The scalar and the arithmetic of a kernel.
template <class T, Arithmetic a>
struct Way {
  using Scalar = T;
  static constexpr Arithmetic arithmetic = a;
  static constexpr int more_roundings = a == Arithmetic::split_tf32 ? 28 : 0;
};

template <class W>
void expect_sum(typename W::Scalar got, const Sum& expected, const std::string& what,
                double before = 0.0) {
  using T = typename W::Scalar;
  const double roundings =
      (expected.terms + 2 + W::more_roundings) * 0.5 * std::numeric_limits<T>::epsilon();
  // Loops in double have roundings of their own.
  const double own = std::numeric_limits<T>::epsilon() < 1e-10 ? 2.0 : 1.0;
  ASSERT_NEAR(static_cast<double>(got), before + expected.value,
              own * roundings * (expected.magnitude + std::abs(before)))
      << what;
}

// Expects features [tasks, rows, size] as in `reference` in valid rows, and `untouched` in the
// others.
template <class W, class Reference, class T = typename W::Scalar>
void expect_features(const std::vector<T>& got, const Host& h, std::size_t size, T untouched,
                     const std::string& what, const Reference& reference) {
  ASSERT_EQ(got.size(), h.tasks * h.rows * size);
  for (std::size_t task = 0; task < h.tasks; ++task) {
    const std::vector<Sum> expected = reference(task);
    ASSERT_EQ(expected.size(), h.count(task) * size);
    for (std::size_t i = 0; i < h.rows * size; ++i) {
      const T value = got[task * h.rows * size + i];
      const std::string where =
          what + ", task " + std::to_string(task) + ", element " + std::to_string(i);
      if (i < expected.size()) {
        expect_sum<W>(value, expected[i], where);
      } else {
        ASSERT_EQ(value, untouched) << where << ": a row that is not the task's";
      }
    }
  }
}

// Expects vectors of weights whose kernel and bias are those of `reference`, added to `before` if
// `accumulate` is set. The other numbers must be those of `before`.
template <class W, class Reference, class T = typename W::Scalar>
void expect_weights(const std::vector<T>& got, const std::vector<T>& before, bool accumulate,
                    const Host& h, const std::string& what, const Reference& reference) {
  const std::size_t kernel = weight_size(h.c.shape);
  const auto outs = static_cast<std::size_t>(h.c.shape.out_channels);
  for (std::size_t task = 0; task < h.tasks; ++task) {
    const std::vector<Sum> expected = reference(task);
    for (std::size_t i = 0; i < h.width; ++i) {
      const std::size_t at = task * h.width + i;
      const double base = accumulate ? static_cast<double>(before[at]) : 0.0;
      const std::string where =
          what + ", task " + std::to_string(task) + ", weight " + std::to_string(i);
      if (i >= weight_offset && i < weight_offset + kernel) {
        expect_sum<W>(got[at], expected[i - weight_offset], where, base);
      } else if (i >= h.bias_offset() && i < h.bias_offset() + outs) {
        expect_sum<W>(got[at], expected[kernel + i - h.bias_offset()], where, base);
      } else {
        ASSERT_EQ(got[at], before[at]) << where << ": not of this layer";
      }
    }
  }
}

template <class W>
class Conv : public testing::Test {
 protected:
  template <class Body>
  static void each(Body body) {
    for (const simt::Settings& order : simt::all_orders()) {
      const With with(order);
      for (std::size_t i = 0; i < cases.size(); ++i) {
        SCOPED_TRACE("case " + std::to_string(i));
        body(Host(cases[i], 10 * i + 1), Host(cases[i], 10 * i + 5));
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
};
using Ways = testing::Types<Way<float, Arithmetic::plain>, Way<float, Arithmetic::split_tf32>,
                            Way<double, Arithmetic::plain>>;
TYPED_TEST_SUITE(Conv, Ways);

TYPED_TEST(Conv, ForwardAndItsTangent) {
  using W = TypeParam;
  using T = typename W::Scalar;
  this->each([](const Host& h, const Host& dot) {
    const ConvShape& s = h.c.shape;
    Device<T> d(h), d_dot(dot);
    const std::vector<T> before(h.tasks * h.rows * out_size(s), T(7));
    DeviceArray<T> y(before), y_dot(before);
    conv_forward<T>(y.data(), {d.x.data(), d.read_weight()}, {}, d.read_bias(), s, d.rows,
                    W::arithmetic, nullptr);
    conv_forward<T>(y_dot.data(), {d.x.data(), d_dot.read_weight()},
                    {d_dot.x.data(), d.read_weight()}, d_dot.read_bias(), s, d.rows, W::arithmetic,
                    nullptr);
    expect_features<W>(y.host(), h, out_size(s), T(7), "y",
                       [&](std::size_t t) { return forward(s, h.count(t), h.task(t)); });
    expect_features<W>(y_dot.host(), h, out_size(s), T(7), "tangent of y", [&](std::size_t t) {
      return tangent(forward, s, h.count(t), h.task(t), dot.task(t));
    });
  });
}

TYPED_TEST(Conv, InputGradientAndItsTangent) {
  using W = TypeParam;
  using T = typename W::Scalar;
  this->each([](const Host& h, const Host& dot) {
    const ConvShape& s = h.c.shape;
    Device<T> d(h), d_dot(dot);
    const std::vector<T> before(h.tasks * h.rows * in_size(s), T(7));
    DeviceArray<T> g_x(before), g_x_dot(before);
    conv_input_gradient<T>(g_x.data(), {d.g_y.data(), d.read_weight()}, {}, s, d.rows,
                           W::arithmetic, nullptr);
    conv_input_gradient<T>(g_x_dot.data(), {d_dot.g_y.data(), d.read_weight()},
                           {d.g_y.data(), d_dot.read_weight()}, s, d.rows, W::arithmetic, nullptr);
    expect_features<W>(g_x.host(), h, in_size(s), T(7), "g_x",
                       [&](std::size_t t) { return input_gradient(s, h.count(t), h.task(t)); });
    expect_features<W>(g_x_dot.host(), h, in_size(s), T(7), "tangent of g_x", [&](std::size_t t) {
      return tangent(input_gradient, s, h.count(t), h.task(t), dot.task(t));
    });
  });
}

TYPED_TEST(Conv, WeightGradientAndItsTangent) {
  using W = TypeParam;
  using T = typename W::Scalar;
  this->each([](const Host& h, const Host& dot) {
    const ConvShape& s = h.c.shape;
    Device<T> d(h), d_dot(dot);
    const std::vector<T> before = as<T>(numbers(h.tasks * h.width, 99));
    for (const bool accumulate : {false, true}) {
      DeviceArray<T> g(before), g_dot(before);
      const TaskTensor<T> weight{g.data() + weight_offset, h.width};
      const TaskTensor<T> bias{g.data() + h.bias_offset(), h.width};
      const TaskTensor<T> weight_dot{g_dot.data() + weight_offset, h.width};
      const TaskTensor<T> bias_dot{g_dot.data() + h.bias_offset(), h.width};
      conv_weight_gradient<T>(weight, bias, {d.g_y.data(), d.x.data()}, {}, accumulate, s, d.rows,
                              W::arithmetic, nullptr);
      conv_weight_gradient<T>(weight_dot, bias_dot, {d_dot.g_y.data(), d.x.data()},
                              {d.g_y.data(), d_dot.x.data()}, accumulate, s, d.rows, W::arithmetic,
                              nullptr);
      expect_weights<W>(g.host(), before, accumulate, h, "g",
                        [&](std::size_t t) { return weight_gradient(s, h.count(t), h.task(t)); });
      expect_weights<W>(g_dot.host(), before, accumulate, h, "tangent of g", [&](std::size_t t) {
        return tangent(weight_gradient, s, h.count(t), h.task(t), dot.task(t));
      });
    }
  });
}

// One kernel is shared by all tasks, and there is no bias.
TYPED_TEST(Conv, SharedKernel) {
  using W = TypeParam;
  using T = typename W::Scalar;
  const Host h(cases[0], 1);
  const ConvShape& s = h.c.shape;
  Device<T> d(h);
  DeviceArray<T> y(std::vector<T>(h.tasks * h.rows * out_size(s), T(7)));
  conv_forward<T>(y.data(), {d.x.data(), {d.weight().data, 0}}, {}, {}, s, d.rows, W::arithmetic,
                  nullptr);
  expect_features<W>(y.host(), h, out_size(s), T(7), "y", [&](std::size_t t) {
    Task task = h.task(t);
    task.weight = h.task(0).weight;
    task.bias.assign(task.bias.size(), 0.0);
    return forward(s, h.count(t), task);
  });
}

// If tasks share the kernel, the positions of all tasks are numbered consecutively. Tasks of
// different size, several tasks in a tile, and tiles across tasks give the bits that each task has
// alone with a kernel of its own.
TYPED_TEST(Conv, TasksOfOneKernelHaveTheBitsThatEachHasAlone) {
  using W = TypeParam;
  using T = typename W::Scalar;
  const Host h({shape_of(3, 7, 6, 5, 3, 2, 1), 3, {3, 0, 1, 2, 3, 0, 0, 2, 1}}, 1);
  const ConvShape& s = h.c.shape;
  Device<T> d(h);
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    const auto run = [&](RowExtent rows, std::size_t first, std::size_t stride, bool back) {
      const std::size_t size = back ? in_size(s) : out_size(s);
      const std::size_t at = first * h.rows;
      DeviceArray<T> out(
          std::vector<T>(static_cast<std::size_t>(rows.tasks) * h.rows * size, T(7)));
      const TaskTensor<const T> weight{d.weight().data, stride}, bias{d.bias().data, stride};
      if (back) {
        conv_input_gradient<T>(out.data(), {d.g_y.data() + at * out_size(s), weight}, {}, s, rows,
                               W::arithmetic, nullptr);
      } else {
        conv_forward<T>(out.data(), {d.x.data() + at * in_size(s), weight}, {}, bias, s, rows,
                        W::arithmetic, nullptr);
      }
      return out.host();
    };
    for (const bool back : {false, true}) {
      const std::vector<T> together = run(d.rows, 0, 0, back);
      std::vector<T> alone;
      for (std::size_t t = 0; t < h.tasks; ++t) {
        const std::vector<T> one = run({1, h.c.rows, d.valid.data() + t}, t, h.width, back);
        alone.insert(alone.end(), one.begin(), one.end());
      }
      ASSERT_EQ(together, alone) << (back ? "input gradient" : "forward");
    }
  }
}

// A task has the same bits in a batch, alone, and in a layout of more rows, where tiles differ.
TYPED_TEST(Conv, BitsDoNotDependOnTheBatch) {
  using W = TypeParam;
  using T = typename W::Scalar;
  const Case batch{shape_of(2, 6, 7, 40, 3, 1, 1), 2, {1, 2}};
  const Host h(batch, 1);
  const ConvShape& s = h.c.shape;
  Device<T> d(h);
  const std::size_t n_out = 2 * out_size(s), n_in = 2 * in_size(s);
  const auto run = [&](RowExtent rows, const T* x, const T* g_y, const T* weights,
                       std::vector<T>& y, std::vector<T>& g) {
    const auto tasks = static_cast<std::size_t>(rows.tasks);
    const auto all = tasks * static_cast<std::size_t>(rows.rows);
    DeviceArray<T> device_y(std::vector<T>(all * out_size(s), T(0)));
    DeviceArray<T> device_g(std::vector<T>(tasks * h.width, T(0)));
    conv_forward<T>(device_y.data(), {x, {weights + weight_offset, h.width}}, {},
                    {weights + h.bias_offset(), h.width}, s, rows, W::arithmetic, nullptr);
    conv_weight_gradient<T>({device_g.data() + weight_offset, h.width},
                            {device_g.data() + h.bias_offset(), h.width}, {g_y, x}, {}, false, s,
                            rows, W::arithmetic, nullptr);
    y = device_y.host();
    g = device_g.host();
  };
  std::vector<T> y, g, y_alone, g_alone, y_wide, g_wide;
  run(d.rows, d.x.data(), d.g_y.data(), d.weights.data(), y, g);
  run({1, 2, nullptr}, d.x.data() + n_in, d.g_y.data() + n_out, d.weights.data() + h.width, y_alone,
      g_alone);
  std::vector<T> x = as<T>(h.x), g_y = as<T>(h.g_y);
  x.erase(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(n_in));
  g_y.erase(g_y.begin(), g_y.begin() + static_cast<std::ptrdiff_t>(n_out));
  x.resize(3 * in_size(s));
  g_y.resize(3 * out_size(s));
  DeviceArray<T> wide_x(x), wide_g_y(g_y);
  run({1, 3, d.valid.data() + 1}, wide_x.data(), wide_g_y.data(), d.weights.data() + h.width,
      y_wide, g_wide);
  y.erase(y.begin(), y.begin() + static_cast<std::ptrdiff_t>(n_out));
  g.erase(g.begin(), g.begin() + static_cast<std::ptrdiff_t>(h.width));
  y_wide.resize(n_out);
  EXPECT_EQ(y_alone, y);
  EXPECT_EQ(g_alone, g);
  EXPECT_EQ(y_wide, y);
  EXPECT_EQ(g_wide, g);
}

// ---- accuracy ----

/// The root mean square of the errors, compared with double.
struct Error2 {
  double square = 0.0;
  std::size_t count = 0;
  void add(double error) {
    square += error * error;
    ++count;
  }
  double rms() const { return std::sqrt(square / static_cast<double>(count)); }
};

/// All products of one problem: forward, input gradient and weight gradient, then their tangents.
template <class W>
std::vector<std::vector<float>> products(const Host& h, const Host& dot) {
  const ConvShape& s = h.c.shape;
  Device<float> d(h), d_dot(dot);
  const std::size_t rows = h.tasks * h.rows;
  std::vector<std::vector<float>> made;
  for (const bool tangent : {false, true}) {
    DeviceArray<float> y(std::vector<float>(rows * out_size(s))),
        g_x(std::vector<float>(rows * in_size(s))), g(std::vector<float>(h.tasks * h.width));
    const TaskTensor<float> weight{g.data(), h.width}, bias{g.data() + weight_size(s), h.width};
    using Product = ConvProduct<float>;
    using Outer = ConvOuterProduct<float>;
    Device<float>& other = tangent ? d_dot : d;
    conv_forward<float>(y.data(), {d.x.data(), other.read_weight()},
                        tangent ? Product{d_dot.x.data(), d.read_weight()} : Product{},
                        other.read_bias(), s, d.rows, W::arithmetic, nullptr);
    conv_input_gradient<float>(g_x.data(), {other.g_y.data(), d.read_weight()},
                               tangent ? Product{d.g_y.data(), d_dot.read_weight()} : Product{}, s,
                               d.rows, W::arithmetic, nullptr);
    conv_weight_gradient<float>(weight, bias, {other.g_y.data(), d.x.data()},
                                tangent ? Outer{d.g_y.data(), d_dot.x.data()} : Outer{}, false, s,
                                d.rows, W::arithmetic, nullptr);
    for (const auto& array : {y.host(), g_x.host(), g.host()}) made.push_back(array);
  }
  return made;
}

float one_tf32(double x) {
  const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(x));
  return std::bit_cast<float>((bits + 0x1000u) & 0xffffe000u);
}

// The errors are within FP32's bound (sums here have at least 32 terms). They are as small as those
// of FP32, and much smaller than those of one product in TF32: without one of the small products
// the error would be that of one product, or 0.7 of it.
TEST(ConvAccuracy, SplitTf32IsAsGoodAsFp32) {
  using Plain = Way<float, Arithmetic::plain>;
  using Split = Way<float, Arithmetic::split_tf32>;
  const Case c{shape_of(16, 6, 5, 18, 3, 1, 1), 3, {}};
  for (const bool positive : {false, true}) {  // sums that cancel, and sums that only grow
    Host h(c, 1), dot(c, 5);
    Host rounded = h, rounded_dot = dot;
    for (auto [host, one_way] : {std::pair{&h, &rounded}, std::pair{&dot, &rounded_dot}}) {
      for (auto member : {&Host::x, &Host::g_y, &Host::weights}) {
        for (std::size_t i = 0; i < (host->*member).size(); ++i) {
          double& value = (host->*member)[i];
          if (positive) value = std::abs(value);
          (one_way->*member)[i] = static_cast<double>(one_tf32(value));
        }
      }
    }
    const auto plain = products<Plain>(h, dot), split = products<Split>(h, dot);
    const ConvShape& s = c.shape;
    for (std::size_t which = 0; which < plain.size(); ++which) {
      const auto reference = [&](const Host& at, const Host& along, std::size_t t) {
        const auto of = [&](const auto& f) {
          return which < 3 ? f(s, at.count(t), at.task(t))
                           : tangent(f, s, at.count(t), at.task(t), along.task(t));
        };
        return which % 3 == 0   ? of(forward)
               : which % 3 == 1 ? of(input_gradient)
                                : of(weight_gradient);
      };
      Error2 of_plain, of_split, of_one_way;
      for (std::size_t t = 0; t < h.tasks; ++t) {
        const std::vector<Sum> exact = reference(h, dot, t);
        const std::vector<Sum> one_way = reference(rounded, rounded_dot, t);
        const std::size_t first = t * plain[which].size() / h.tasks;
        const std::size_t count = which % 3 == 2 ? weight_size(s) : exact.size();
        for (std::size_t i = 0; i < count; ++i) {
          ASSERT_GE(exact[i].terms, 32);
          const double error = static_cast<double>(split[which][first + i]) - exact[i].value;
          ASSERT_LE(std::abs(error), (exact[i].terms + 2) * 0x1p-24 * exact[i].magnitude);
          of_split.add(error);
          of_plain.add(static_cast<double>(plain[which][first + i]) - exact[i].value);
          of_one_way.add(one_way[i].value - exact[i].value);
        }
      }
      SCOPED_TRACE("product " + std::to_string(which) + (positive ? ", positive" : ""));
      EXPECT_LE(of_split.rms(), of_plain.rms());
      EXPECT_LE(of_split.rms(), of_one_way.rms() / 50);
    }
  }
}

TEST(ConvErrors, ShapesThatDoNotFit) {
  const auto message = [](const ConvShape& s, std::size_t stride) -> std::string {
    try {
      conv_weight_gradient<float>({nullptr, stride}, {}, {}, {}, false, s, {2, 1, nullptr},
                                  Arithmetic::plain, nullptr);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  ConvShape s = shape_of(1, 5, 5, 2, 3, 2, 1);
  EXPECT_THAT(message(s, 0), HasSubstr("expected one for each task"));
  s.out_width = 4;
  EXPECT_THAT(message(s, 9), HasSubstr("5 x 5 to 3 x 4: does not fit kernel 3, stride 2"));
  EXPECT_THAT(message(shape_of(1, 1, 1, 1, 3, 1, 0), 9), HasSubstr("does not fit"));
  s = shape_of(1 << 12, 64, 64, 1 << 12, 9, 1, 4);
  EXPECT_THAT(message(s, 9), HasSubstr("more than 2^30"));
}

}  // namespace
}  // namespace kshot::cuda
