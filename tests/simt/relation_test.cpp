// kernels/relation.cu on the emulator, compared with loops over all pairs in double. Gradients are
// compared with central differences of these loops, which are exact unless a relu's kink lies
// within the step.
#include "kernels/relation.h"

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
using Numbers = std::vector<double>;

template <class T>
void expect_near(const std::vector<T>& got, const Numbers& expected, double tolerance,
                 const char* what) {
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(static_cast<double>(got[i]), expected[i], tolerance) << what << ", element " << i;
  }
}

struct Size {
  int rows, inputs, outputs;
};
// The sizes have several first rows in a tile, second rows in several tiles, and widths of more
// than a tile and than a word.
const std::vector<Size> sizes = {{5, 35, 33}, {40, 2, 3}, {9, 3, 66}};
constexpr int tasks = 4;

std::vector<std::int32_t> counts_of(const Size& s) {
  return {s.rows, 0, 1, s.rows - 2};
}

struct Parameters {
  Numbers left, right, weight, bias;
};

/// The mean of every own row, and zero in the other rows.
Numbers written_out(const Parameters& p, const Size& s) {
  const auto rows = static_cast<std::size_t>(s.rows), inputs = static_cast<std::size_t>(s.inputs),
             outputs = static_cast<std::size_t>(s.outputs);
  Numbers mean(tasks * rows * outputs, 0.0);
  for (std::size_t t = 0; t < tasks; ++t) {
    const auto n = static_cast<std::size_t>(counts_of(s)[t]);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) {
        Numbers h;
        for (std::size_t k = 0; k < inputs; ++k) {
          h.push_back(std::max(
              0.0, p.left[(t * rows + i) * inputs + k] + p.right[(t * rows + j) * inputs + k]));
        }
        for (std::size_t o = 0; o < outputs; ++o) {
          double y = p.bias[o];
          for (std::size_t k = 0; k < inputs; ++k) y += p.weight[o * inputs + k] * h[k];
          mean[(t * rows + i) * outputs + o] += std::max(0.0, y) / static_cast<double>(n);
        }
      }
    }
  }
  return mean;
}

template <class T>
class Relation : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(Relation, Scalars);

TYPED_TEST(Relation, PairsAndTheirGradients) {
  using T = TypeParam;
  for (const Size& s : sizes) {
    SCOPED_TRACE(std::to_string(s.rows) + " rows");
    const auto rows = static_cast<std::size_t>(s.rows), inputs = static_cast<std::size_t>(s.inputs),
               outputs = static_cast<std::size_t>(s.outputs);
    const auto left = numbers<T>(tasks * rows * inputs, 1),
               right = numbers<T>(tasks * rows * inputs, 2),
               weight = numbers<T>(outputs * inputs, 3), bias = numbers<T>(outputs, 4),
               g_mean = numbers<T>(tasks * rows * outputs, 5);
    const auto twice = [](const std::vector<T>& x) { return Numbers(x.begin(), x.end()); };
    Parameters at{twice(left), twice(right), twice(weight), twice(bias)};
    const Numbers mean = written_out(at, s), g = twice(g_mean);
    const auto objective = [&](std::size_t task) {
      const Numbers y = written_out(at, s);
      double sum = 0.0;
      for (std::size_t i = task * rows * outputs; i < (task + 1) * rows * outputs; ++i) {
        sum += g[i] * y[i];
      }
      return sum;
    };
    constexpr double h = 1e-6;
    const auto difference = [&](double& x, std::size_t task) {
      const double before = x;
      x = before + h;
      const double above = objective(task);
      x = before - h;
      const double below = objective(task);
      x = before;
      return (above - below) / (2.0 * h);
    };
    // Only some of the elements are compared; -1 marks the others.
    Numbers g_left(left.size(), -1.0), g_right(left.size(), -1.0);
    Numbers g_weight(tasks * weight.size(), -1.0), g_bias(tasks * bias.size(), -1.0);
    const auto choose = [](std::size_t i) { return i % 7 == 0; };
    for (std::size_t i = 0; i < left.size(); ++i) {
      if (!choose(i)) continue;
      g_left[i] = difference(at.left[i], i / (rows * inputs));
      g_right[i] = difference(at.right[i], i / (rows * inputs));
    }
    for (std::size_t i = 0; i < g_weight.size(); ++i) {
      if (choose(i / 5)) g_weight[i] = difference(at.weight[i % weight.size()], i / weight.size());
    }
    for (std::size_t i = 0; i < g_bias.size(); ++i) {
      g_bias[i] = difference(at.bias[i % bias.size()], i / bias.size());
    }
    // The tolerance is for roundings of sums of up to 40 x 35 terms of order one.
    const double tolerance = std::is_same_v<T, double> ? 1e-7 : 2e-4;
    const auto close = [&](const std::vector<T>& got, const Numbers& expected, double before,
                           const char* what) {
      for (std::size_t i = 0; i < got.size(); ++i) {
        if (expected[i] == -1.0) continue;
        ASSERT_NEAR(static_cast<double>(got[i]) - before, expected[i], tolerance)
            << what << ", element " << i;
      }
    };
    for (const simt::Settings& order : simt::all_orders()) {
      const With with(order);
      DeviceArray<T> dl(left), dr(right), dw(weight), db(bias), dg(g_mean), dmean(mean.size()),
          dgl(left.size()), dgr(left.size()), dgw(std::vector<T>(g_weight.size(), T(0.5))),
          dgb(std::vector<T>(g_bias.size(), T(0.5)));
      DeviceArray<std::int32_t> counts(counts_of(s));
      Pairs<T> pairs;
      pairs.left = dl.data();
      pairs.right = dr.data();
      pairs.weight = dw.data();
      pairs.bias = db.data();
      pairs.inputs = s.inputs;
      pairs.outputs = s.outputs;
      pairs.rows = {tasks, s.rows, counts.data()};
      DeviceArray<std::uint32_t> open(tasks * rows * rows *
                                      static_cast<std::size_t>(open_words(s.outputs)));
      pairs.open = open.data();
      pairs_forward(dmean.data(), pairs, nullptr);
      expect_near(dmean.host(), mean, tolerance, "mean");
      pairs_input_gradient(dgl.data(), dgr.data(), dg.data(), pairs, nullptr);
      close(dgl.host(), g_left, 0.0, "left");
      close(dgr.host(), g_right, 0.0, "right");
      pairs_weight_gradient<T>({dgw.data(), weight.size()}, {dgb.data(), bias.size()}, dg.data(),
                               pairs, nullptr);
      close(dgw.host(), g_weight, 0.5, "weight");
      close(dgb.host(), g_bias, 0.5, "bias");
      pairs.bias = nullptr;
      pairs_forward(dmean.data(), pairs, nullptr);
      Parameters without = at;
      without.bias.assign(outputs, 0.0);
      expect_near(dmean.host(), written_out(without, s), tolerance, "mean without bias");
    }
  }
}

// 19 tasks are two runs. The rows of diverged tasks may hold anything.
TYPED_TEST(Relation, SumsOfRuns) {
  using T = TypeParam;
  constexpr int all = 19, rows = 3, inputs = 5, outputs = 40;
  constexpr std::size_t weights = inputs * outputs, stride = weights + outputs + 1;
  auto left = numbers<T>(all * rows * inputs, 1);
  const auto right = numbers<T>(all * rows * inputs, 2), weight = numbers<T>(weights, 3),
             bias = numbers<T>(outputs, 4), g_mean = numbers<T>(all * rows * outputs, 5);
  std::vector<std::int32_t> counts(all, rows), diverged(all, 0);
  counts[0] = counts[4] = counts[16] = 1;
  counts[1] = counts[18] = 0;
  diverged[3] = diverged[17] = 1;
  for (const std::size_t task : {3, 17}) {
    left[task * rows * inputs + 1] = std::numeric_limits<T>::quiet_NaN();
  }
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    DeviceArray<T> dl(left), dr(right), dw(weight), db(bias), dg(g_mean),
        mean(all * rows * outputs), of_task(std::vector<T>(all * stride, T(0)));
    DeviceArray<std::int32_t> dcounts(counts), flags(diverged);
    DeviceArray<std::uint32_t> open(all * rows * rows * 2);
    Pairs<T> pairs;
    pairs.left = dl.data();
    pairs.right = dr.data();
    pairs.weight = dw.data();
    pairs.bias = db.data();
    pairs.inputs = inputs;
    pairs.outputs = outputs;
    pairs.rows = {all, rows, dcounts.data()};
    pairs.open = open.data();
    pairs_forward(mean.data(), pairs, nullptr);
    pairs_weight_gradient<T>({of_task.data(), stride}, {of_task.data() + weights, stride},
                             dg.data(), pairs, nullptr);
    const std::vector<T> each = of_task.host();
    const auto sums = [&](int count) {
      const std::size_t runs = count > 16 ? 2 : 1;
      DeviceArray<T> to(std::vector<T>(runs * stride, T(9)));
      Pairs<T> some = pairs;
      some.rows.tasks = count;
      pairs_run_gradient<T>({to.data(), stride}, {to.data() + weights, stride}, dg.data(), some,
                            flags.data(), nullptr);
      return to.host();
    };
    const std::vector<T> got = sums(all);
    const double tolerance = 16.0 * 9.0 * 16.0 * std::numeric_limits<T>::epsilon();
    for (std::size_t i = 0; i < 2 * stride; ++i) {
      const std::size_t run = i / stride, element = i % stride;
      double want = element < stride - 1 ? 0.0 : 9.0;  // numbers between two runs are not touched
      for (std::size_t t = 16 * run;
           element < stride - 1 && t < std::min<std::size_t>(16 * run + 16, all); ++t) {
        if (diverged[t] == 0) want += static_cast<double>(each[t * stride + element]);
      }
      ASSERT_NEAR(static_cast<double>(got[i]), want, tolerance) << "element " << i;
    }
    const std::vector<T> first = sums(16);
    EXPECT_TRUE(std::equal(first.begin(), first.end(), got.begin()));
  }
}

// In a layout of more rows, the results of a task have the same bits.
TYPED_TEST(Relation, OwnRowsAlone) {
  using T = TypeParam;
  constexpr int own = 5, inputs = 11, outputs = 40;
  const auto left = numbers<T>(own * inputs, 1), right = numbers<T>(own * inputs, 2),
             weight = numbers<T>(outputs * inputs, 3), g_mean = numbers<T>(own * outputs, 4);
  std::vector<std::vector<T>> first;
  for (const int rows : {5, 7, 33}) {
    const auto padded = [&](const std::vector<T>& x, int width) {
      std::vector<T> result(static_cast<std::size_t>(rows * width),
                            std::numeric_limits<T>::quiet_NaN());
      std::copy(x.begin(), x.end(), result.begin());
      return result;
    };
    const auto all = static_cast<std::size_t>(rows);
    DeviceArray<T> dl(padded(left, inputs)), dr(padded(right, inputs)), dw(weight),
        dg(padded(g_mean, outputs)), mean(all * outputs), gl(all * inputs), gr(all * inputs),
        gw(std::vector<T>(weight.size(), T(0)));
    DeviceArray<std::int32_t> counts(std::vector<std::int32_t>{own});
    DeviceArray<std::uint32_t> open(all * all * 2);
    Pairs<T> pairs;
    pairs.left = dl.data();
    pairs.right = dr.data();
    pairs.weight = dw.data();
    pairs.inputs = inputs;
    pairs.outputs = outputs;
    pairs.rows = {1, rows, counts.data()};
    pairs.open = open.data();
    pairs_forward(mean.data(), pairs, nullptr);
    pairs_input_gradient(gl.data(), gr.data(), dg.data(), pairs, nullptr);
    pairs_weight_gradient<T>({gw.data(), weight.size()}, {}, dg.data(), pairs, nullptr);
    std::vector<std::vector<T>> got;
    for (auto* array : {&mean, &gl, &gr, &gw}) {
      std::vector<T> host = array->host();
      const std::size_t of_row = host.size() / all;
      if (array != &gw) {
        for (std::size_t i = own * of_row; i < host.size(); ++i) ASSERT_EQ(host[i], T(0));
        host.resize(own * of_row);
      }
      got.push_back(std::move(host));
    }
    if (first.empty()) first = got;
    EXPECT_EQ(got, first) << rows << " rows";
  }
}

TYPED_TEST(Relation, Groups) {
  using T = TypeParam;
  constexpr int rows = 4, groups = 3, width = 5;
  const std::vector<std::int32_t> counts = {4, 3}, labels = {2, 0, 2, 1, 1, 0, 2, 9};
  const std::vector<std::int32_t> members = {1, 1, 2, 1, 1, 1};
  const auto x = numbers<T>(2 * rows * width, 1), g = numbers<T>(2 * groups * width, 2);
  Numbers mean(2 * groups * width, 0.0), g_x(x.size(), 0.0);
  for (std::size_t row = 0; row < 7; ++row) {
    const auto to = row / rows * groups + static_cast<std::size_t>(labels[row]);
    for (std::size_t i = 0; i < width; ++i) {
      mean[to * width + i] += static_cast<double>(x[row * width + i]) / members[to];
      g_x[row * width + i] = static_cast<double>(g[to * width + i]) / members[to];
    }
  }
  const double unit = 4.0 * std::numeric_limits<T>::epsilon();
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    DeviceArray<std::int32_t> dcounts(counts), dlabels(labels), dmembers(2 * groups), one(2);
    DeviceArray<T> dx(x), dg(g), dmean(mean.size()), dgx(x.size()), of_all(2 * width);
    Grouping by{dlabels.data(), dmembers.data(), groups, {2, rows, dcounts.data()}};
    count_members(dmembers.data(), by, nullptr);
    EXPECT_EQ(dmembers.host(), members);
    group_mean(dmean.data(), dx.data(), by, width, nullptr);
    expect_near(dmean.host(), mean, unit, "mean");
    group_mean_pullback(dgx.data(), dg.data(), by, width, nullptr);
    expect_near(dgx.host(), g_x, unit, "its gradient");

    Grouping all{nullptr, one.data(), 1, {2, rows, dcounts.data()}};
    count_members(one.data(), all, nullptr);
    EXPECT_EQ(one.host(), counts);
    group_mean(of_all.data(), dx.data(), all, width, nullptr);
    Numbers expected(2 * width, 0.0);
    for (std::size_t row = 0; row < 7; ++row) {
      for (std::size_t i = 0; i < width; ++i) {
        expected[row / rows * width + i] +=
            static_cast<double>(x[row * width + i]) / counts[row / 4];
      }
    }
    expect_near(of_all.host(), expected, unit, "mean of all");
  }
}

TYPED_TEST(Relation, JoinedRows) {
  using T = TypeParam;
  const std::vector<T> x = {1, 2, 3, 4, 5, 6}, y = {7, 8, 9};
  DeviceArray<T> dx(x), dy(y), out(9);
  join_rows<T>(out.data(), dx.data(), 2, dy.data(), 1, {3, 1, nullptr}, nullptr);
  EXPECT_EQ(out.host(), (std::vector<T>{1, 2, 7, 3, 4, 8, 5, 6, 9}));
}

}  // namespace
}  // namespace kshot::cuda
