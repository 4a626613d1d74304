// kernels/factors.cu on the emulator, compared with plain loops in double. A sum of n products is
// within n + 1 roundings of the sum of their magnitudes.
#include "kernels/factors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "kernels/reduction.h"
#include "simt/device_array.h"
#include "simt/numbers.h"
#include "simt/orders.h"

namespace kshot::cuda {
namespace {

using simt::numbers;
using simt::With;

template <class T>
class Factors : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(Factors, Scalars);

/// Factors of `count` terms for many tasks. Every other term also has a gradient of the bias.
template <class T>
struct Problem {
  int rows, out, in, count, tasks;
  std::vector<std::vector<T>> g, x;

  Problem(int r, int o, int i, int n, int t) : rows(r), out(o), in(i), count(n), tasks(t) {
    for (int k = 0; k < count; ++k) {
      g.push_back(numbers<T>(size(out), 10 + static_cast<std::uint64_t>(k)));
      x.push_back(numbers<T>(size(in), 60 + static_cast<std::uint64_t>(k)));
    }
  }
  std::size_t size(int width) const { return static_cast<std::size_t>(tasks * rows * width); }
  static bool to_bias(int k) { return k % 2 == 0; }
  static T scale(int k) { return k == 0 ? T(1) : T(-0.75) * static_cast<T>(k); }
};

constexpr std::size_t gap = 3;  // between the sums of two consecutive runs

/// The sums of weights, then of the bias, of each run. `before` is the previous content.
template <class T>
std::vector<T> sums_of(const Problem<T>& p, int tasks, const std::vector<std::int32_t>& diverged,
                       bool accumulate = false, T before = T(7)) {
  const auto weights = static_cast<std::size_t>(p.out * (p.in + 1)),
             stride = weights + static_cast<std::size_t>(p.out) + gap,
             runs = static_cast<std::size_t>((tasks + run_tasks - 1) / run_tasks);
  std::vector<std::unique_ptr<DeviceArray<T>>> arrays;
  FactorSums<T> s;
  for (int k = 0; k < p.count; ++k) {
    const auto k_at = static_cast<std::size_t>(k);
    for (const std::vector<T>* of : {&p.g[k_at], &p.x[k_at]}) {
      const std::size_t used =
          of->size() / static_cast<std::size_t>(p.tasks) * static_cast<std::size_t>(tasks);
      std::vector<T> values(of->begin(), of->begin() + static_cast<std::ptrdiff_t>(used));
      if (values.empty()) values.emplace_back();  // empty arrays cannot be allocated
      arrays.push_back(std::make_unique<DeviceArray<T>>(values));
    }
    s.pairs[k] = {arrays[2 * k_at]->data(), arrays[2 * k_at + 1]->data(), p.scale(k), p.to_bias(k)};
  }
  DeviceArray<std::int32_t> flags(diverged);
  DeviceArray<T> sums(std::vector<T>(runs * stride, before));
  s.count = p.count;
  s.size = {tasks, p.rows, p.out, p.in};
  s.diverged = flags.data();
  s.sums = sums.data();
  s.bias_sums = sums.data() + weights;
  s.stride = stride;
  s.row = static_cast<std::size_t>(p.in) + 1;
  s.accumulate = accumulate;
  sum_factors(s, nullptr);
  return sums.host();
}

// The cases have less than a tile and more than one of every kind, runs that are not full, tasks
// without rows, no terms, and several terms.
TYPED_TEST(Factors, SumsAgainstLoops) {
  using T = TypeParam;
  const Problem<T> problems[] = {{5, 70, 33, 3, 35}, {1, 3, 66, 1, 16}, {3, 33, 5, 2, 7},
                                 {2, 4, 3, 0, 20},   {0, 4, 3, 1, 20},  {9, 1, 1, 4, 33}};
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    for (const Problem<T>& p : problems) {
      SCOPED_TRACE(std::to_string(p.rows) + " rows, " + std::to_string(p.out) + " x " +
                   std::to_string(p.in) + ", " + std::to_string(p.count) + " terms");
      std::vector<std::int32_t> diverged(static_cast<std::size_t>(p.tasks), 0);
      diverged[2] = diverged.back() = 1;
      // The factors of a diverged task may hold anything.
      Problem<T> spoilt = p;
      for (auto* all : {&spoilt.g, &spoilt.x}) {
        for (std::vector<T>& of : *all) {
          const std::size_t of_task = of.size() / static_cast<std::size_t>(p.tasks);
          for (std::size_t i = 2 * of_task; i < 3 * of_task; ++i) {
            of[i] = i % 2 == 0 ? std::numeric_limits<T>::quiet_NaN()
                               : std::numeric_limits<T>::infinity();
          }
        }
      }
      for (const bool accumulate : {false, true}) {
        const std::vector<T> got = sums_of(spoilt, p.tasks, diverged, accumulate);
        const auto rows = static_cast<std::size_t>(p.rows), out = static_cast<std::size_t>(p.out),
                   in = static_cast<std::size_t>(p.in), weights = out * (in + 1),
                   stride = weights + out + gap;
        std::vector<double> want(got.size(), 7.0);
        for (std::size_t run = 0; run * stride < got.size(); ++run) {
          for (std::size_t o = 0; o < out; ++o) {
            for (std::size_t i = 0; i <= in; ++i) {  // the last one is the bias
              double sum = 0.0;
              for (std::size_t t = run * run_tasks;
                   t < std::min<std::size_t>((run + 1) * run_tasks, diverged.size()); ++t) {
                if (diverged[t] != 0) continue;
                for (std::size_t k = 0; k < p.g.size(); ++k) {
                  for (std::size_t r = 0; r < rows; ++r) {
                    const double g = static_cast<double>(p.scale(static_cast<int>(k))) *
                                     static_cast<double>(p.g[k][(t * rows + r) * out + o]);
                    if (i < in) sum += g * static_cast<double>(p.x[k][(t * rows + r) * in + i]);
                    if (i == in && Problem<T>::to_bias(static_cast<int>(k))) sum += g;
                  }
                }
              }
              want[run * stride + (i < in ? o * (in + 1) + i : weights + o)] =
                  sum + (accumulate ? 7.0 : 0.0);
            }
          }
        }
        const double terms = 16.0 * p.rows * p.count;
        const double tolerance =  // scales are below 3
            3.0 * (terms + 2.0) * (terms + 7.0) * std::numeric_limits<T>::epsilon();
        for (std::size_t i = 0; i < got.size(); ++i) {
          ASSERT_NEAR(static_cast<double>(got[i]), want[i], tolerance) << "element " << i;
        }
      }
    }
  }
}

TYPED_TEST(Factors, ARunHasTheSameBitsAmongAnyNumberOfOthers) {
  using T = TypeParam;
  const Problem<T> p{3, 40, 19, 3, 80};
  std::vector<std::int32_t> diverged(80, 0);
  diverged[5] = diverged[21] = 1;
  const std::vector<T> all = sums_of(p, 80, diverged);
  for (const int tasks : {16, 32, 64}) {
    const std::vector<T> some = sums_of(p, tasks, diverged);
    EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin())) << tasks << " tasks";
  }
  // Missing tasks count like diverged ones.
  std::vector<std::int32_t> without(80, 0);
  std::fill(without.begin() + 7, without.end(), 1);
  const std::vector<T> seven = sums_of(p, 7, without), of_sixteen = sums_of(p, 16, without);
  EXPECT_EQ(seven, of_sixteen);
}

TYPED_TEST(Factors, KeptAndLookedAt) {
  using T = TypeParam;
  using Limits = std::numeric_limits<T>;
  constexpr int tasks = 8, rows = 3, out = 101, in = 2;
  const T root = std::sqrt(Limits::max());
  auto g = numbers<T>(tasks * rows * out, 1), x = numbers<T>(tasks * rows * in, 2);
  const auto of_g = [&](int task) { return static_cast<std::size_t>(task * rows * out); };
  const auto of_x = [&](int task) { return static_cast<std::size_t>(task * rows * in); };
  g[of_g(1) + 302] = Limits::quiet_NaN();
  x[of_x(2)] = Limits::infinity();
  g[of_g(3) + 7] = -Limits::infinity();
  // Neither factor is too large alone, but their product is.
  std::fill_n(g.begin() + static_cast<std::ptrdiff_t>(of_g(4)), rows * out, -root / T(16));
  std::fill_n(x.begin() + static_cast<std::ptrdiff_t>(of_x(4)), rows * in, root / T(16));
  // The sum of large gradients overflows for the bias, although x is small.
  std::fill_n(g.begin() + static_cast<std::ptrdiff_t>(of_g(5)), rows * out, Limits::max() / T(2));
  std::fill_n(x.begin() + static_cast<std::ptrdiff_t>(of_x(5)), rows * in, Limits::min());
  // The product is large, but far from the limit.
  std::fill_n(g.begin() + static_cast<std::ptrdiff_t>(of_g(6)), rows * out, root / T(1 << 12));
  std::fill_n(x.begin() + static_cast<std::ptrdiff_t>(of_x(6)), rows * in, -root / T(1 << 12));
  const std::vector<std::int32_t> want = {1, 1, 1, 1, 1, 1, 0, 0};
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    DeviceArray<T> dg(g), dx(x), to_g(g.size()), to_x(x.size());
    DeviceArray<std::int32_t> diverged(std::vector<std::int32_t>{1, 0, 0, 0, 0, 0, 0, 0});
    const FactorPair<T> from{dg.data(), dx.data(), T(-0.5), true};
    keep_factors<T>(diverged.data(), to_g.data(), to_x.data(), from, {tasks, rows, out, in},
                    nullptr);
    EXPECT_EQ(diverged.host(), want);
    const std::vector<T> kept_g = to_g.host(), kept_x = to_x.host();
    for (std::size_t i = 0; i < g.size(); ++i) {
      if (i == of_g(1) + 302) continue;  // NaN is not equal to itself
      ASSERT_EQ(kept_g[i], g[i]) << i;
    }
    EXPECT_EQ(kept_x, x);

    DeviceArray<std::int32_t> again(std::vector<std::int32_t>(tasks, 0));
    keep_factors<T>(again.data(), nullptr, nullptr, from, {tasks, rows, out, in}, nullptr);
    EXPECT_EQ(again.host(), (std::vector<std::int32_t>{0, 1, 1, 1, 1, 1, 0, 0}));
    // The scale of the term is included in the bound.
    DeviceArray<std::int32_t> scaled(std::vector<std::int32_t>(tasks, 0));
    keep_factors<T>(scaled.data(), nullptr, nullptr, {dg.data(), dx.data(), T(-4096)},
                    {tasks, rows, out, in}, nullptr);
    EXPECT_EQ(scaled.host(), (std::vector<std::int32_t>{0, 1, 1, 1, 1, 1, 1, 0}));
    DeviceArray<std::int32_t> flags(std::vector<std::int32_t>{0, 0, 0, 0, 0, 0, 0, 1});
    merge_diverged(flags.data(), again.data(), tasks, nullptr);
    EXPECT_EQ(flags.host(), (std::vector<std::int32_t>{0, 1, 1, 1, 1, 1, 0, 1}));
  }
}

TYPED_TEST(Factors, ColumnsAreCleared) {
  using T = TypeParam;
  DeviceArray<T> sums(std::vector<T>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
  clear_columns(sums.data(), 5, 2, 1, 3, nullptr);
  clear_columns(sums.data(), 5, 2, 4, 4, nullptr);
  EXPECT_EQ(sums.host(), (std::vector<T>{1, 0, 0, 4, 5, 6, 0, 0, 9, 10}));
}

}  // namespace
}  // namespace kshot::cuda
