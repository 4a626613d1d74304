// kernels/decoder.cu on the emulator, compared with the formulas in double. Derivatives are
// compared with central differences of the formulas.
#include "kernels/decoder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "simt/device_array.h"
#include "simt/numbers.h"
#include "simt/orders.h"

namespace kshot::cuda {
namespace {

using simt::numbers;
using simt::With;
using Numbers = std::vector<double>;

// Every u is above zero, except a few that are far below, for which std is `least`.
constexpr double least = 1e-3;
constexpr int tasks = 3, groups = 2, latents_of = 3;

/// Values [..., 2, width]: means of order one, then u.
template <class T>
std::vector<T> means_and_exponents(std::size_t n, std::size_t width, std::uint64_t seed) {
  std::vector<T> values = numbers<T>(n, seed);
  for (std::size_t i = 0; i < n; ++i) {
    if (i / width % 2 == 0) continue;
    values[i] = static_cast<T>(0.2) + std::abs(values[i]);
    if (i % 5 == 0) values[i] = T(-2);
  }
  return values;
}

double deviation(double u, double offset) {
  return std::max(std::exp(u) - (1.0 - offset), least);
}

Numbers twice(const auto& x) {
  return Numbers(x.begin(), x.end());
}

template <class T>
void expect_near(const std::vector<T>& got, const Numbers& expected, double tolerance,
                 const char* what) {
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(static_cast<double>(got[i]), expected[i], tolerance * (1.0 + std::abs(expected[i])))
        << what << ", element " << i;
  }
}

/// The derivatives of f by all x_i.
Numbers differences(const std::function<double(const Numbers&)>& f, const Numbers& at) {
  constexpr double h = 1e-6;
  Numbers result, x = at;
  for (std::size_t i = 0; i < at.size(); ++i) {
    x[i] = at[i] + h;
    const double above = f(x);
    x[i] = at[i] - h;
    result.push_back((above - f(x)) / (2.0 * h));
    x[i] = at[i];
  }
  return result;
}

double dot(const Numbers& a, const Numbers& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

template <class T>
class Decoder : public testing::Test {
 protected:
  // Differences have rounding errors of 1e-16 * 100 / 1e-6; 1 / std reaches 1 / least.
  static constexpr double tolerance = std::is_same_v<T, double> ? 1e-6 : 2e-4;
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(Decoder, Scalars);

TYPED_TEST(Decoder, Latents) {
  using T = TypeParam;
  constexpr std::size_t width = 7;
  constexpr std::size_t n_z = tasks * groups * latents_of * width;
  constexpr std::size_t n_s = tasks * groups * 2 * width;
  const auto statistics = means_and_exponents<T>(n_s, width, 1);
  const auto eps = numbers<T>(n_z, 2), g_z = numbers<T>(n_z, 3), before = numbers<T>(n_s, 4);
  const Numbers e = twice(eps);
  const auto draw = [&](const Numbers& s, bool noise) {
    Numbers z;
    for (std::size_t i = 0; i < n_z; ++i) {
      const std::size_t m = i / (latents_of * width) * 2 * width + i % width;
      z.push_back(s[m] + (noise ? deviation(s[m + width], 0.0) * e[i] : 0.0));
    }
    return z;
  };
  const LatentSize size{tasks, groups, latents_of, width};
  const T floor = static_cast<T>(least);
  for (const bool noise : {true, false}) {
    const Numbers s = twice(statistics);
    Numbers expected =
        differences([&](const Numbers& x) { return dot(draw(x, noise), twice(g_z)); }, s);
    for (std::size_t i = 0; i < n_s; ++i) expected[i] += static_cast<double>(before[i]);
    for (const simt::Settings& order : simt::all_orders()) {
      const With with(order);
      DeviceArray<T> ds(statistics), de(eps), dg(g_z), dz(n_z), gs(before);
      const T* const at = noise ? de.data() : nullptr;
      latents<T>(dz.data(), ds.data(), at, floor, size, nullptr);
      latents_pullback<T>(gs.data(), ds.data(), at, dg.data(), floor, size, nullptr);
      expect_near(dz.host(), draw(s, noise), 4.0 * std::numeric_limits<T>::epsilon(), "latents");
      expect_near(gs.host(), expected, this->tolerance, "their gradient");
    }
  }
}

TYPED_TEST(Decoder, KlOfLatents) {
  using T = TypeParam;
  constexpr std::size_t width = 7;
  constexpr std::size_t of_z = groups * latents_of * width, of_s = groups * 2 * width;
  const auto statistics = means_and_exponents<T>(tasks * of_s, width, 1);
  const auto eps = numbers<T>(tasks * of_z, 2), before = numbers<T>(tasks * of_s, 4);
  const Numbers e = twice(eps), at = twice(statistics);
  const double weight = 0.75;
  // The KL of each task, [tasks]. z depends on the statistics.
  const auto kl = [&](const Numbers& s, bool sampled, Numbers* latents) {
    Numbers value(tasks, 0.0);
    for (std::size_t i = 0; i < tasks * of_z; ++i) {
      const std::size_t m = i / (latents_of * width) * 2 * width + i % width;
      const double std = deviation(s[m + width], 0.0), z = s[m] + std * e[i];
      if (latents) latents->push_back(z);
      if (!sampled && i / width % latents_of != 0) continue;
      value[i / of_z] += weight / static_cast<double>(sampled ? of_z : groups * width) *
                         (sampled ? -std::log(std) - 0.5 * e[i] * e[i] + 0.5 * z * z
                                  : -std::log(std) + 0.5 * (std * std + s[m] * s[m] - 1.0));
    }
    return value;
  };
  const LatentSize size{tasks, groups, latents_of, width};
  const T floor = static_cast<T>(least);
  for (const bool sampled : {true, false}) {
    Numbers z;
    Numbers value = kl(at, sampled, &z);
    for (double& v : value) v += 1.0;
    Numbers expected = differences(
        [&](const Numbers& s) {
          return dot(kl(s, sampled, nullptr), {1, 1, 1});
        },
        at);
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += static_cast<double>(before[i]);
    for (const simt::Settings& order : simt::all_orders()) {
      const With with(order);
      DeviceArray<T> ds(statistics), de(eps), dz(std::vector<T>(z.begin(), z.end())), gs(before),
          dv(std::vector<T>(tasks, T(1)));
      if (sampled) {
        sampled_kl<T>(dv.data(), gs.data(), T(weight), ds.data(), dz.data(), de.data(), floor, size,
                      nullptr);
      } else {
        analytic_kl<T>(dv.data(), gs.data(), T(weight), ds.data(), floor, size, nullptr);
      }
      expect_near(dv.host(), value, 40.0 * std::numeric_limits<T>::epsilon(), "value");
      expect_near(gs.host(), expected, this->tolerance, "gradient");
    }
  }
}

TYPED_TEST(Decoder, WeightsAndTheirDerivatives) {
  using T = TypeParam;
  constexpr std::size_t width = 11;
  constexpr std::size_t n_w = tasks * groups * width, n_eps = n_w * latents_of, n_out = 2 * n_eps;
  const auto out = means_and_exponents<T>(n_out, width, 1);
  const auto eps = numbers<T>(n_eps, 2), out_dot = numbers<T>(n_out, 3), g_w = numbers<T>(n_w, 4),
             g_w_dot = numbers<T>(n_w, 5);
  std::vector<T> offset = numbers<T>(width, 6);
  for (T& o : offset) o = std::abs(o);
  const Numbers at = twice(out), along = twice(out_dot), g = twice(g_w), g_dot = twice(g_w_dot);
  const auto decode = [&](const Numbers& x, bool noise) {
    Numbers w(n_w, 0.0);
    for (std::size_t i = 0; i < n_eps; ++i) {
      const std::size_t row = i / width, p = i % width;
      double value = x[row * 2 * width + p];
      if (noise) {
        value += deviation(x[(row * 2 + 1) * width + p], static_cast<double>(offset[p])) *
                 static_cast<double>(eps[i]);
      }
      w[row / latents_of * width + p] += value / latents_of;
    }
    return w;
  };
  const auto moved = [](const Numbers& x, const Numbers& by, double h) {
    Numbers result = x;
    for (std::size_t i = 0; i < x.size(); ++i) result[i] += h * by[i];
    return result;
  };
  const auto pull = [&](const Numbers& x, const Numbers& by, bool noise) {
    return differences([&](const Numbers& y) { return dot(decode(y, noise), by); }, x);
  };
  constexpr double h = 1e-6, coarse = 1e-3;  // step for a difference of differences
  for (const bool noise : {true, false}) {
    const Numbers above = decode(moved(at, along, h), noise),
                  below = decode(moved(at, along, -h), noise);
    Numbers tangent;
    for (std::size_t i = 0; i < n_w; ++i) tangent.push_back((above[i] - below[i]) / (2.0 * h));
    const Numbers gradient = pull(at, g, noise);
    const Numbers high = pull(moved(at, along, coarse), moved(g, g_dot, coarse), noise),
                  low = pull(moved(at, along, -coarse), moved(g, g_dot, -coarse), noise);
    Numbers second;
    for (std::size_t i = 0; i < n_out; ++i) second.push_back((high[i] - low[i]) / (2.0 * coarse));
    for (const simt::Settings& order : simt::all_orders()) {
      const With with(order);
      DeviceArray<T> d_out(out), d_eps(eps), d_offset(offset), d_dot(out_dot), dg(g_w),
          dgd(g_w_dot), w(n_w), w_dot(n_w), alone(n_out), g_out(n_out), g_out_dot(n_out);
      const Decoded<T> d{d_out.data(),
                         noise ? d_eps.data() : nullptr,
                         d_offset.data(),
                         static_cast<T>(least),
                         {tasks, groups, latents_of, width}};
      decoded_weights(w.data(), d, nullptr);
      decoded_tangent<T>(w_dot.data(), d, d_dot.data(), nullptr);
      decoded_pullback<T>({alone.data(), nullptr}, d, nullptr, {dg.data(), nullptr}, nullptr);
      decoded_pullback<T>({g_out.data(), g_out_dot.data()}, d, d_dot.data(),
                          {dg.data(), dgd.data()}, nullptr);
      expect_near(w.host(), decode(at, noise), 8.0 * std::numeric_limits<T>::epsilon(), "weights");
      expect_near(w_dot.host(), tangent, this->tolerance, "tangent");
      expect_near(alone.host(), gradient, this->tolerance, "gradient");
      EXPECT_EQ(g_out.host(), alone.host());
      // The truncation of the outer step is of order 1e-6, and so is the inner rounding divided by
      // this step.
      expect_near(g_out_dot.host(), second, std::max(this->tolerance, 1e-5), "its tangent");
    }
  }
}

}  // namespace
}  // namespace kshot::cuda
