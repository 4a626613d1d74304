// The emulated tensor core, and kernels/tensor_core.h on it, compared with closed forms.
#include "emulator/tensor_core.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "kshot/random.h"
#include "simt/device_array.h"
#include "simt/kernels/good.h"
#include "simt/orders.h"

namespace kshot::cuda {
namespace {

using simt::With;

std::array<float, 8> first(float x) {
  return {x};
}

// Small integers are exact whatever is truncated, so every element shows whether its lane is right.
TEST(TensorCore, MultipliesByThePublishedFragments) {
  std::vector<float> a(16 * 8), b(8 * 8), c(16 * 8);
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i * 7 % 31) - 15;
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(i * 5 % 23) - 11;
  for (std::size_t i = 0; i < c.size(); ++i) c[i] = static_cast<float>(i) - 64;
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    DeviceArray<float> on_a(a), on_b(b), on_c(c), on_d(c.size());
    tensor_product(on_d.data(), on_a.data(), on_b.data(), on_c.data(), nullptr);
    const std::vector<float> d = on_d.host();
    for (std::size_t row = 0; row < 16; ++row) {
      for (std::size_t column = 0; column < 8; ++column) {
        float sum = c[row * 8 + column];
        for (std::size_t k = 0; k < 8; ++k) sum += a[row * 8 + k] * b[k * 8 + column];
        ASSERT_EQ(d[row * 8 + column], sum) << row << ", " << column;
      }
    }
  }
}

// A second source for the assignment of elements to lanes: CUTLASS 4.7,
// MMA_Traits<SM80_16x8x8_F32TF32TF32F32_TN> (include/cute/atom/mma_traits_sm80.hpp), whose operands
// reach the same instruction in the order of their values (include/cute/arch/mma_sm80.hpp). Its
// layouts map (thread, value) to the index m + 16 k of a, n + 8 k of b, m + 16 n of c and d.
std::size_t cute_a(std::size_t t, std::size_t v) {  // ((4,8),(2,2)):((16,1),(8,64))
  return t % 4 * 16 + t / 4 + v % 2 * 8 + v / 2 * 64;
}
std::size_t cute_b(std::size_t t, std::size_t v) {  // ((4,8),2):((8,1),32)
  return t % 4 * 8 + t / 4 + v * 32;
}
std::size_t cute_c(std::size_t t, std::size_t v) {  // ((4,8),(2,2)):((32,1),(16,8))
  return t % 4 * 32 + t / 4 + v % 2 * 16 + v / 2 * 8;
}

TEST(TensorCore, MultipliesByTheLayoutsOfCutlass) {
  std::vector<float> a(16 * 8), b(8 * 8), c(16 * 8);  // exact, as above, and no two rows are equal
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i * 11 % 61) - 30;
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(i * 13 % 47) - 23;
  for (std::size_t i = 0; i < c.size(); ++i) c[i] = static_cast<float>(i * i % 101);
  const auto fragments = [](const std::vector<float>& from, std::size_t values, auto layout) {
    std::vector<float> of_lanes;
    for (std::size_t t = 0; t < 32; ++t) {
      for (std::size_t v = 0; v < values; ++v) of_lanes.push_back(from.at(layout(t, v)));
    }
    return of_lanes;
  };
  DeviceArray<float> on_a(fragments(a, 4, cute_a)), on_b(fragments(b, 2, cute_b)),
      on_c(fragments(c, 4, cute_c)), on_d(c.size());
  multiply_fragments(on_d.data(), on_a.data(), on_b.data(), on_c.data(), nullptr);
  const std::vector<float> d = on_d.host();
  for (std::size_t t = 0; t < 32; ++t) {
    for (std::size_t v = 0; v < 4; ++v) {
      const std::size_t place = cute_c(t, v), m = place % 16, n = place / 16;
      float sum = c[place];
      for (std::size_t k = 0; k < 8; ++k) sum += a[m + 16 * k] * b[n + 8 * k];
      EXPECT_EQ(d[t * 4 + v], sum) << "lane " << t << ", value " << v;
    }
  }
}

// 1 + 2^-11 has one bit more than TF32. A number that is not rounded before is truncated.
TEST(TensorCore, SeesNoMoreThanTf32) {
  std::vector<float> a(16 * 8, 0.0f), b(8 * 8, 0.0f), zero(16 * 8, 0.0f);
  a[0] = 1.0f + 0x1p-11f;
  a[8] = 1.0f + 0x1p-10f;
  b[0] = 1.0f;
  DeviceArray<float> on_a(a), on_b(b), on_c(zero), on_d(zero.size());
  tensor_product(on_d.data(), on_a.data(), on_b.data(), on_c.data(), nullptr);
  EXPECT_EQ(on_d.host()[0], 1.0f);
  EXPECT_EQ(on_d.host()[8], 1.0f + 0x1p-10f);
}

TEST(TensorCore, CutsWhereItAdds) {
  constexpr std::array<float, 8> ones{1, 1, 1, 1, 1, 1, 1, 1};
  std::array<float, 8> small;
  small.fill(0x1p-24f);
  // Each product is below the last bit of 1, 2^-23. All of them together are four times this bit.
  EXPECT_EQ(simt::multiply_add(1.0f, small, ones), 1.0f);
  EXPECT_EQ(simt::multiply_add(0.0f, small, ones), 0x1p-21f);
  small.fill(0x1.8p-23f);
  EXPECT_EQ(simt::multiply_add(1.0f, small, ones), 1.0f + 8 * 0x1p-23f);
  EXPECT_EQ(simt::multiply_add(-1.0f, small, ones), -1.0f + 8 * 0x1p-23f);
  // The sum of two floats is truncated, not rounded: 2 + 3 * 2^-23.
  EXPECT_EQ(simt::multiply_add(1.0f + 0x1p-23f, first(1.0f + 0x1p-22f), ones), 2.0f + 0x1p-22f);
  // NaN and infinity are passed on.
  constexpr float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(simt::multiply_add(1.0f, first(infinity), ones), infinity);
  EXPECT_TRUE(std::isnan(simt::multiply_add(-infinity, first(infinity), ones)));
}

TEST(TensorCore, SplitsIntoTwoOfTf32) {
  RandomStream stream({.seed = 3});
  std::vector<float> x = {0.0f,
                          1.0f,
                          -1.0f,
                          1.0f + 0x1p-11f,
                          1.0f + 0x1p-11f - 0x1p-23f,
                          -1.0f - 0x1p-11f,
                          0x1.fffffep0f,
                          0x1.000ffep5f,
                          -0x1.ffeffep-9f};
  while (x.size() < 1000) x.push_back(std::ldexp(stream.uniform(-1.0f, 1.0f), x.size() % 40 - 20));
  DeviceArray<float> on_x(x), on_hi(x.size()), on_lo(x.size());
  split(on_hi.data(), on_lo.data(), on_x.data(), static_cast<int>(x.size()), nullptr);
  const std::vector<float> hi = on_hi.host(), lo = on_lo.host();
  for (std::size_t i = 0; i < x.size(); ++i) {
    SCOPED_TRACE(x[i]);
    for (const float part : {hi[i], lo[i]}) {
      EXPECT_EQ(std::bit_cast<std::uint32_t>(part) & 0x1fffu, 0u) << "TF32 has 13 bits fewer";
    }
    const double value = static_cast<double>(x[i]), u = 0x1p-24;
    EXPECT_LE(std::abs(value - static_cast<double>(hi[i])), 0x1p-11 * std::abs(value));
    EXPECT_LE(std::abs(value - static_cast<double>(hi[i]) - static_cast<double>(lo[i])),
              2 * u * std::abs(value));
  }
  EXPECT_EQ(hi[3], 1.0f + 0x1p-10f) << "ties away from zero";
  EXPECT_EQ(hi[4], 1.0f) << "to nearest";
}

TEST(TensorCore, WhatIsNotFiniteStaysSo) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {infinity, -infinity, std::numeric_limits<float>::quiet_NaN(),
                                std::bit_cast<float>(0x7fffffffu)};
  DeviceArray<float> on_x(x), on_hi(x.size()), on_lo(x.size());
  split(on_hi.data(), on_lo.data(), on_x.data(), static_cast<int>(x.size()), nullptr);
  const std::vector<float> hi = on_hi.host(), lo = on_lo.host();
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_FALSE(std::isfinite(hi[i] + lo[i])) << i;
}

}  // namespace
}  // namespace kshot::cuda
