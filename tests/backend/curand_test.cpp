// Compares our Philox core with cuRAND's, bit for bit. cuRAND's header compiles for the host, but
// only builds with the CUDA toolkit have it.
#ifdef KSHOT_HAS_CURAND

#include <cuda_runtime.h>
#define QUALIFIERS static inline  // This macro of cuRAND makes its functions host functions.
#include <curand_philox4x32_x.h>
#undef QUALIFIERS

#include <gtest/gtest.h>

#include <array>
#include <cstdint>

#include "kshot/random.h"

namespace kshot::testing {
namespace {

using PhiloxWords = std::array<std::uint32_t, 4>;

PhiloxWords curand_words(const PhiloxWords& counter, const std::array<std::uint32_t, 2>& key) {
  const uint4 words =
      curand_Philox4x32_10({counter[0], counter[1], counter[2], counter[3]}, {key[0], key[1]});
  return {words.x, words.y, words.z, words.w};
}

TEST(Curand, PhiloxGivesTheSameBitsForAnyCounterAndKey) {
  // Each single bit of the counter and of the key is set in turn, so that no input is ignored.
  for (int bit = 0; bit < 192; ++bit) {
    PhiloxWords counter{};
    std::array<std::uint32_t, 2> key{};
    const auto word = static_cast<std::size_t>(bit / 32);
    const std::uint32_t one = 1u << (bit % 32);
    word < 4 ? counter[word] = one : key[word - 4] = one;
    EXPECT_EQ(philox4x32(counter, key), curand_words(counter, key)) << "bit " << bit;
  }
  // Words of one stream serve as counters and keys of another.
  for (std::uint32_t i = 0; i < 1000; ++i) {
    const PhiloxWords counter = philox4x32({i, 0, 0, 0}, {1, 2});
    const PhiloxWords words = philox4x32({i, 0, 0, 1}, {1, 2});
    const std::array<std::uint32_t, 2> key{words[0], words[1]};
    EXPECT_EQ(philox4x32(counter, key), curand_words(counter, key)) << "number " << i;
  }
}

TEST(Curand, OurKeysAddressItsGenerator) {
  const RandomKey key{0x123456789abcdefull, Purpose::noise_inner, 11, 5, 3, 2};
  for (std::uint32_t quad = 0; quad < 64; ++quad) {
    EXPECT_EQ(philox4x32(key.counter(quad), key.key()), curand_words(key.counter(quad), key.key()));
  }
}

}  // namespace
}  // namespace kshot::testing

#endif
