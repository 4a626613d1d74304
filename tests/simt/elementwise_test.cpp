// kernels/elementwise.cu on the emulator, compared with the formulas in double in this file. Inputs
// are given in the kernel's own precision, so that only its arithmetic differs. It has a few
// roundings of numbers of order one, hence a tolerance of 8 units in the last place, relative and
// absolute.
#include "kernels/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "kshot/random.h"
#include "simt/device_array.h"
#include "simt/numbers.h"
#include "simt/orders.h"

namespace kshot::cuda {
namespace {

using simt::numbers;
using simt::With;

// 3 tasks. The widths are less than a quad, multiples of nothing, and several blocks per task.
const std::vector<int> widths = {1, 5, 77, 2100};
constexpr int tasks = 3;

template <class T>
void expect_near(const std::vector<T>& got, const std::vector<double>& expected, const char* what,
                 double roundings = 8) {
  ASSERT_EQ(got.size(), expected.size());
  const double unit = roundings * std::numeric_limits<T>::epsilon();
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(static_cast<double>(got[i]), expected[i], unit * (1.0 + std::abs(expected[i])))
        << what << ", element " << i;
  }
}

template <class T>
class Elementwise : public testing::Test {
 protected:
  // Runs `body(extent)` for each width in each order.
  template <class Body>
  static void each(Body body) {
    for (const simt::Settings& order : simt::all_orders()) {
      const With with(order);
      for (const int width : widths) body(Extent{tasks, width});
    }
  }
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(Elementwise, Scalars);

TYPED_TEST(Elementwise, Algebra) {
  using T = TypeParam;
  this->each([](Extent extent) {
    const std::size_t n = extent.count();
    const auto x1 = numbers<T>(n, 1), x2 = numbers<T>(n, 2), y = numbers<T>(n, 3);
    const T a = T(0.75);
    DeviceArray<T> dx1(x1), dx2(x2), sum(y), product(y), power(n), constant(n);
    axpy(sum.data(), a, dx1.data(), n, nullptr);
    multiply_add(product.data(), a, dx1.data(), dx2.data(), n, nullptr);
    exponential(power.data(), dx1.data(), n, nullptr);
    fill(constant.data(), a, n, nullptr);
    std::vector<double> expected_sum, expected_product, expected_power;
    for (std::size_t i = 0; i < n; ++i) {
      const double u = x1[i], v = x2[i], w = y[i];
      expected_sum.push_back(w + 0.75 * u);
      expected_product.push_back(w + 0.75 * u * v);
      expected_power.push_back(std::exp(u));
    }
    expect_near(sum.host(), expected_sum, "axpy");
    expect_near(product.host(), expected_product, "multiply_add");
    expect_near(power.host(), expected_power, "exponential");
    expect_near(constant.host(), std::vector<double>(n, 0.75), "fill");
  });
}

TYPED_TEST(Elementwise, BroadcastAndRates) {
  using T = TypeParam;
  this->each([](Extent extent) {
    const std::size_t n = extent.count(), width = static_cast<std::size_t>(extent.width);
    const auto shared = numbers<T>(width, 1), x = numbers<T>(n, 2), grad = numbers<T>(n, 3);
    DeviceArray<T> ds(shared), dx(x), dg(grad), spread(n), scaled(n), stepped(n), by_number(x);
    broadcast(spread.data(), ds.data(), extent, nullptr);
    rate_multiply(scaled.data(), {.vector = ds.data()}, dx.data(), extent, nullptr);
    rate_step(stepped.data(), dx.data(), {.vector = ds.data()}, dg.data(), extent, nullptr);
    rate_step(by_number.data(), by_number.data(), {.value = T(0.5)}, dg.data(), extent, nullptr);
    std::vector<double> expected_spread, expected_scaled, expected_stepped, expected_by_number;
    for (std::size_t i = 0; i < n; ++i) {
      const double rate = shared[i % width], u = x[i], g = grad[i];
      expected_spread.push_back(rate);
      expected_scaled.push_back(rate * u);
      expected_stepped.push_back(u - rate * g);
      expected_by_number.push_back(u - 0.5 * g);
    }
    expect_near(spread.host(), expected_spread, "broadcast");
    expect_near(scaled.host(), expected_scaled, "rate_multiply");
    expect_near(stepped.host(), expected_stepped, "rate_step by vector");
    expect_near(by_number.host(), expected_by_number, "rate_step by number, in place");
  });
}

TYPED_TEST(Elementwise, SamplesAndTheirDerivatives) {
  using T = TypeParam;
  this->each([](Extent extent) {
    const std::size_t n = extent.count(), width = static_cast<std::size_t>(extent.width);
    const auto mu = numbers<T>(n, 1), sigma = numbers<T>(n, 2, 0.1f, 1.0f), g = numbers<T>(n, 3),
               v_s = numbers<T>(n, 4), before = numbers<T>(n, 5);
    RandomKey key{.seed = 7,
                  .purpose = Purpose::noise_inner,
                  .step = 11,
                  .task = 100,
                  .inner_step = 3,
                  .sample = 2};
    DeviceArray<T> dmu(mu), dsigma(sigma), dg(g), dv(v_s), phi(n), unstored(n), eps(n), again(n),
        g_mu(before), g_s(before), u(n);
    draw_sample(phi.data(), eps.data(), dmu.data(), dsigma.data(), key, extent, nullptr);
    draw_sample<T>(unstored.data(), nullptr, dmu.data(), dsigma.data(), key, extent, nullptr);
    sample(again.data(), eps.data(), dmu.data(), dsigma.data(), n, nullptr);
    sample_pullback(g_mu.data(), g_s.data(), T(0.25), dg.data(), eps.data(), dsigma.data(), n,
                    nullptr);
    sample_direction(u.data(), dg.data(), dv.data(), eps.data(), dsigma.data(), n, nullptr);
    const std::vector<T> noise = eps.host();
    std::vector<double> expected_phi, expected_g_mu, expected_g_s, expected_u;
    for (std::size_t i = 0; i < n; ++i) {
      RandomKey of_task = key;
      of_task.task = 100 + static_cast<std::uint32_t>(i / width);
      const double e = normal_element(of_task, i % width);
      ASSERT_EQ(static_cast<double>(noise[i]), e) << "the same bits on every backend";
      const double sd = sigma[i], gi = g[i];
      expected_phi.push_back(static_cast<double>(mu[i]) + sd * e);
      expected_g_mu.push_back(static_cast<double>(before[i]) + 0.25 * gi);
      expected_g_s.push_back(static_cast<double>(before[i]) + 0.25 * gi * e * sd);
      expected_u.push_back(gi + sd * e * static_cast<double>(v_s[i]));
    }
    expect_near(phi.host(), expected_phi, "draw_sample");
    EXPECT_EQ(unstored.host(), phi.host());
    expect_near(again.host(), expected_phi, "sample");
    expect_near(g_mu.host(), expected_g_mu, "sample_pullback, mu");
    expect_near(g_s.host(), expected_g_s, "sample_pullback, s");
    expect_near(u.host(), expected_u, "sample_direction");
  });
}

TYPED_TEST(Elementwise, KlAndItsDerivatives) {
  using T = TypeParam;
  this->each([](Extent extent) {
    const std::size_t n = extent.count(), width = static_cast<std::size_t>(extent.width);
    const auto mu = numbers<T>(n, 1), s = numbers<T>(n, 2, -0.5f, 0.5f), mu_p = numbers<T>(n, 3),
               s_p = numbers<T>(n, 4, -0.5f, 0.5f), v_mu = numbers<T>(n, 5), v_s = numbers<T>(n, 6),
               before = numbers<T>(n, 7);
    const std::vector<std::int32_t> counts = {1, 2, 5};
    DeviceArray<T> dmu(mu), ds(s), dmu_p(mu_p), ds_p(s_p), dv_mu(v_mu), dv_s(v_s),
        value(std::vector<T>(tasks, T(1))), g_mu(before), g_s(before), gp_mu(before), gp_s(before),
        r_mu(before), r_s(before), rp_mu(before), rp_s(before), alone(before);
    DeviceArray<std::int32_t> dcounts(counts);
    const GaussianPair<T> pair{
        dmu.data(), ds.data(), dmu_p.data(), ds_p.data(), {T(0.5), dcounts.data()}};
    kl(pair, value.data(), g_mu.data(), g_s.data(), gp_mu.data(), gp_s.data(), extent, nullptr);
    kl<T>(pair, nullptr, alone.data(), nullptr, nullptr, nullptr, extent, nullptr);
    kl_hvp(pair, dv_mu.data(), dv_s.data(), r_mu.data(), r_s.data(), rp_mu.data(), rp_s.data(),
           extent, nullptr);
    std::vector<double> expected_value(tasks, 0.0), expected_g_mu, expected_g_s, expected_gp_mu,
        expected_gp_s, expected_r_mu, expected_r_s, expected_rp_mu, expected_rp_s;
    for (std::size_t i = 0; i < n; ++i) {
      const double m = mu[i], a = s[i], mp = mu_p[i], ap = s_p[i], b = before[i], vm = v_mu[i],
                   vs = v_s[i];
      const double scale = 0.5 / counts[i / width];
      const double var = std::exp(2 * a), var_p = std::exp(2 * ap), d = m - mp;
      expected_value[i / width] += scale * (ap - a + (var + d * d) / (2 * var_p) - 0.5);
      expected_g_mu.push_back(b + scale * d / var_p);
      expected_g_s.push_back(b + scale * (var / var_p - 1));
      expected_gp_mu.push_back(b - scale * d / var_p);
      expected_gp_s.push_back(b + scale * (1 - (var + d * d) / var_p));
      expected_r_mu.push_back(b + scale * vm / var_p);
      expected_r_s.push_back(b + scale * 2 * var / var_p * vs);
      expected_rp_mu.push_back(b - scale * vm / var_p);
      expected_rp_s.push_back(b - scale * (2 * d / var_p * vm + 2 * var / var_p * vs));
    }
    for (double& x : expected_value) x += 1.0;
    // A thread adds width / 256 terms, then 13 partial sums follow. Each addition rounds.
    expect_near(value.host(), expected_value, "value", 8.0 + extent.width / 256.0 + 13.0);
    expect_near(g_mu.host(), expected_g_mu, "gradient, mu");
    expect_near(g_s.host(), expected_g_s, "gradient, s");
    expect_near(gp_mu.host(), expected_gp_mu, "gradient, prior mu");
    expect_near(gp_s.host(), expected_gp_s, "gradient, prior s");
    expect_near(alone.host(), expected_g_mu, "gradient alone");
    expect_near(r_mu.host(), expected_r_mu, "product, mu");
    expect_near(r_s.host(), expected_r_s, "product, s");
    expect_near(rp_mu.host(), expected_rp_mu, "product, prior mu");
    expect_near(rp_s.host(), expected_rp_s, "product, prior s");
  });
}

// The block fixes the order of the sum, so no order of threads changes a bit.
TYPED_TEST(Elementwise, KlHasTheSameBitsInEveryOrder) {
  using T = TypeParam;
  const Extent extent{tasks, 2100};
  const auto mu = numbers<T>(extent.count(), 1), zero = std::vector<T>(extent.count(), T(0));
  std::vector<T> first;
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    DeviceArray<T> dmu(mu), dzero(zero), value(std::vector<T>(tasks, T(0)));
    kl<T>({dmu.data(), dmu.data(), dzero.data(), dzero.data(), {}}, value.data(), nullptr, nullptr,
          nullptr, nullptr, extent, nullptr);
    if (first.empty()) first = value.host();
    EXPECT_EQ(value.host(), first);
  }
}

}  // namespace
}  // namespace kshot::cuda
