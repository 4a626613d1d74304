// kernels/normal.h gives the numbers of kshot/random.h, bit by bit.
#include "kernels/normal.h"

#include <gtest/gtest.h>

#include <vector>

namespace kshot::cuda {
namespace {

using Bits = std::array<std::uint32_t, 2>;

Bits bits(const NormalPair& pair) {
  return {bits_of_float(pair.cosine), bits_of_float(pair.sine)};
}

void expect_same(std::uint32_t a, std::uint32_t b) {
  ASSERT_EQ(bits(normal_pair(a, b)), bits(box_muller(a, b))) << a << ", " << b;
}

TEST(Normal, PairsAreTheHosts) {
  // Radii: one in 37 of all 2^23, and the numbers around every power of two and around sqrt(2)
  // times it, where the exponent changes. Angles: all over the circle.
  for (std::uint32_t i = 0; i < (1u << 23); i += 37) expect_same(i << 9, i * 0x9E3779B9u);
  for (int exponent = 0; exponent < 24; ++exponent) {
    const std::uint32_t power = (1u << exponent) >> 1;
    const auto middle = static_cast<std::uint32_t>(1.41421356 * power);
    for (const std::uint32_t at : {power, middle}) {
      for (std::uint32_t near = 0; near < 9; ++near) {
        expect_same((at + near - 4) << 9, 0x12345678u * (near + 1));
      }
    }
  }
  // Angles where quadrants meet, and halfway between, where an angle is rounded to the next
  // quadrant.
  for (std::uint32_t eighth = 0; eighth < 8; ++eighth) {
    for (std::uint32_t near = 0; near < 1025; ++near) {
      expect_same(0x89abcdefu * near, (eighth << 29) + near - 512);
    }
  }
}

TEST(Normal, WordsAreTheHosts) {
  const RandomKey key{0x0123456789abcdefull, Purpose::noise_inner, 7, 3, 2, 5};
  const PhiloxKeys keys = philox_keys(key);
  for (std::uint32_t quad = 0; quad < 1000; ++quad) {
    const auto c = key.counter(quad * 4000037u);
    const PhiloxWords words = philox_words({c[0], c[1], c[2], c[3]}, keys);
    const std::array<std::uint32_t, 4> got = {words.a, words.b, words.c, words.d};
    ASSERT_EQ(got, philox4x32(c, key.key())) << quad;
  }
}

}  // namespace
}  // namespace kshot::cuda
