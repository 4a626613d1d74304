// Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011). Seed, purpose, step, task
// and sample identify a number, so that it is the same on every backend, for any wave size, thread
// count and order.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

/// Marks the functions that device code calls too.
#ifdef __CUDACC__
#define KSHOT_HOST_DEVICE __host__ __device__
#else
#define KSHOT_HOST_DEVICE
#endif

namespace kshot {

/// The purpose of a stream of numbers. It is part of the counter, so that two purposes never share
/// a number.
enum class Purpose : std::uint32_t {
  episode = 0,         ///< Classes, examples, rotations and amplitudes of a task.
  initialisation = 1,  ///< Initial weights.
  noise_inner = 2,     ///< Samples of the inner loop.
  noise_outer = 3,     ///< Samples of the outer loss.
  dropout = 4,         ///< Dropout of features.
  bootstrap = 5,       ///< Resamples of bootstrap intervals.
  noise_hyper = 6,     ///< One draw per step, which all tasks share.
  // Noise of single rows under Gaussian weights (flipout's signs, local's normals). Support and
  // query rows have separate streams, so that a row's noise does not depend on the number of other
  // rows.
  rows_inner_support = 8,   ///< Noise of support rows in the inner loop.
  rows_inner_query = 9,     ///< Noise of query rows in the inner loop.
  rows_outer_support = 10,  ///< Noise of support rows in the outer loss.
  rows_outer_query = 11,    ///< Noise of query rows in the outer loss.
  noise_latent = 12,        ///< The draw of a generator's latents.
  noise_decoder = 13,       ///< The draw of weights from latents, one per inner step.
  user = 15,                ///< Numbers of the caller's own code.
};

/// Philox4x32-10: returns four words from a 128-bit counter and a 64-bit key.
KSHOT_HOST_DEVICE constexpr std::array<std::uint32_t, 4> philox4x32(
    std::array<std::uint32_t, 4> c, std::array<std::uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = 0xD2511F53ull * c[0];
    const std::uint64_t p1 = 0xCD9E8D57ull * c[2];
    c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<std::uint32_t>(p0)};
    k[0] += 0x9E3779B9u;
    k[1] += 0xBB67AE85u;
  }
  return c;
}

/// The address of a stream. Two different addresses with the same seed never give the same stream.
/// `step` must be below 2^60; the other fields may have any value.
struct RandomKey {
  std::uint64_t seed = 0;           ///< Seed of the run.
  Purpose purpose = Purpose::user;  ///< Purpose of the numbers.
  std::uint64_t step = 0;           ///< Meta-step.
  std::uint32_t task = 0;           ///< Global index of the task in the meta-batch.
  std::uint32_t inner_step = 0;     ///< Inner step, from 0.
  std::uint32_t sample = 0;         ///< Number of the posterior sample, from 0.

  /// The key of Philox: the seed, changed by the higher bits of inner step, sample and step. The
  /// counter holds 16 bits of the inner step, 16 bits of the sample and 28 bits of the step. The
  /// higher bits are zero in nearly all work. They change the key by a bijection that maps zero to
  /// zero (SplitMix64's finaliser, Steele et al. 2014).
  KSHOT_HOST_DEVICE constexpr std::array<std::uint32_t, 2> key() const {
    std::uint64_t high = (static_cast<std::uint64_t>(inner_step >> 16) << 48) |
                         (static_cast<std::uint64_t>(sample >> 16) << 32) |
                         static_cast<std::uint32_t>(step >> 28);
    high = (high ^ (high >> 30)) * 0xBF58476D1CE4E5B9ull;
    high = (high ^ (high >> 27)) * 0x94D049BB133111EBull;
    high ^= high >> 31;
    const std::uint64_t k = seed ^ high;
    return {static_cast<std::uint32_t>(k), static_cast<std::uint32_t>(k >> 32)};
  }
  /// The counter of Philox for four words of the stream.
  KSHOT_HOST_DEVICE constexpr std::array<std::uint32_t, 4> counter(std::uint32_t quad) const {
    return {quad, (inner_step << 16) | (sample & 0xffffu), task,
            (static_cast<std::uint32_t>(step) << 4) | static_cast<std::uint32_t>(purpose)};
  }
};

/// The place of one element of a noise vector in the stream. Element e is word (e >> 4) & 3 of the
/// counter's quad 16 (e >> 6) + (e & 15): 16 neighbouring quads give 64 neighbouring elements, so
/// that SIMD lanes and CUDA threads write contiguous elements.
struct NoiseAddress {
  std::uint32_t quad;  ///< Argument of RandomKey::counter.
  int word;            ///< Index of the word that Philox gives for this quad, 0 to 3.
};
/// Returns the place of an element of a noise vector.
KSHOT_HOST_DEVICE constexpr NoiseAddress noise_address(std::uint64_t element) {
  return {static_cast<std::uint32_t>(((element >> 6) << 4) | (element & 15)),
          static_cast<int>((element >> 4) & 3)};
}

/// Returns x and hides from the compiler how x was computed. The compiler then contracts no product
/// in x with a sum of x, whatever -ffp-contract says. The function costs no instruction on the
/// processors that are named here, and a store and a load on others.
inline float opaque(float x) {
#if defined(__GNUC__) && defined(__SSE__)
  __asm__("" : "+x"(x));
  return x;
#elif defined(__GNUC__) && defined(__aarch64__)
  __asm__("" : "+w"(x));
  return x;
#elif defined(__GNUC__)
  __asm__("" : "+m"(x));
  return x;
#else
  volatile float y = x;
  return y;
#endif
}

/// Returns a * b + c with both roundings, in every translation unit and on every machine. No
/// compiler replaces this by a fused multiply-add.
KSHOT_HOST_DEVICE inline float product_sum(float a, float b, float c) {
#ifdef __CUDA_ARCH__
  return __fadd_rn(__fmul_rn(a, b), c);
#else
  return opaque(a * b) + c;
#endif
}

/// Two independent standard normal numbers.
struct NormalPair {
  float cosine,  ///< Radius times the cosine of the angle.
      sine;      ///< Radius times the sine of the angle.
};
/// Makes two standard normal numbers z from two words (Box-Muller), |z| <= 5.77. The computation is
/// in single precision and has only IEEE operations (with fused multiply-add and square root), so
/// that all backends give the same bits.
KSHOT_HOST_DEVICE inline NormalPair box_muller(std::uint32_t a, std::uint32_t b) {
  // radius sqrt(-2 log u), u = (a >> 9 + 1/2) 2^-23 in (0, 1)
  const float u = std::fma(static_cast<float>(a >> 9), 0x1p-23f, 0x1p-24f);
  std::uint32_t bits;
  static_assert(sizeof bits == sizeof u);
  __builtin_memcpy(&bits, &u, sizeof bits);
  std::int32_t exponent = static_cast<std::int32_t>(bits >> 23) - 126;
  bits = (bits & 0x007fffffu) | 0x3f000000u;
  float m;
  __builtin_memcpy(&m, &bits, sizeof m);  // [1/2, 1)
  if (m < 0.707106781186547524f) {
    exponent -= 1;
    m = m + m;
  }
  m -= 1.0f;
  const float m2 = m * m;  // log(1 + m): Cephes logf
  float p = 7.0376836292e-2f;
  p = std::fma(p, m, -1.1514610310e-1f);
  p = std::fma(p, m, 1.1676998740e-1f);
  p = std::fma(p, m, -1.2420140846e-1f);
  p = std::fma(p, m, 1.4249322787e-1f);
  p = std::fma(p, m, -1.6668057665e-1f);
  p = std::fma(p, m, 2.0000714765e-1f);
  p = std::fma(p, m, -2.4999993993e-1f);
  p = std::fma(p, m, 3.3333331174e-1f);
  const float e = static_cast<float>(exponent);
  float y = (p * m) * m2;
  y = std::fma(e, -2.12194440e-4f, y);
  y = std::fma(m2, -0.5f, y);
  float log_u = m + y;
  log_u = std::fma(e, 0.693359375f, log_u);
  const float radius = std::sqrt(-2.0f * log_u);
  // angle 2 pi t, t = b 2^-32 in [-1/2, 1/2); quadrant q = round(4 t), rest r in [-1/8, 1/8]
  const float t = static_cast<float>(static_cast<std::int32_t>(b)) * 0x1p-32f;
  const float shifted = std::fma(t, 4.0f, 12582912.0f);  // 1.5 * 2^23: rounds to an integer
  std::uint32_t q;
  __builtin_memcpy(&q, &shifted, sizeof q);
  const float r = std::fma(shifted - 12582912.0f, -0.25f, t) * 6.283185307179586f;
  const float r2 = r * r;
  float s = -1.9515295891e-4f;  // Cephes sinf, cosf on [-pi/4, pi/4]
  s = std::fma(s, r2, 8.3321608736e-3f);
  s = std::fma(s, r2, -1.6666654611e-1f);
  s = std::fma(s * r2, r, r);
  float c = 2.443315711809948e-5f;
  c = std::fma(c, r2, -1.388731625493765e-3f);
  c = std::fma(c, r2, 4.166664568298827e-2f);
  c = std::fma(c * r2, r2, std::fma(r2, -0.5f, 1.0f));
  float sine = (q & 1) ? c : s;
  float cosine = (q & 1) ? s : c;
  if (q & 2) sine = -sine;
  if ((q + 1) & 2) cosine = -cosine;
  return {radius * cosine, radius * sine};
}

/// Returns the standard normal number of one element. Words 0 and 1 of a quad make the normals of
/// words 0 (cosine) and 1 (sine); words 2 and 3 make those of words 2 and 3.
KSHOT_HOST_DEVICE inline float normal_element(const RandomKey& key, std::uint64_t element) {
  const NoiseAddress at = noise_address(element);
  const auto words = philox4x32(key.counter(at.quad), key.key());
  const NormalPair pair =
      at.word < 2 ? box_muller(words[0], words[1]) : box_muller(words[2], words[3]);
  return (at.word & 1) ? pair.sine : pair.cosine;
}

/// Returns the random sign of element e: -1 where bit e & 31 of word (e >> 5) & 3 of the counter's
/// quad e >> 7 is set, else 1.
inline float sign_element(const RandomKey& key, std::uint64_t element) {
  const auto words = philox4x32(key.counter(static_cast<std::uint32_t>(element >> 7)), key.key());
  return ((words[(element >> 5) & 3] >> (element & 31)) & 1u) != 0 ? -1.0f : 1.0f;
}

/// Returns a uniform number in [0, 1) from the upper 24 bits of a word.
KSHOT_HOST_DEVICE constexpr float uniform_of(std::uint32_t word) {
  return static_cast<float>(word >> 8) * 0x1p-24f;
}

/// Returns uniform_of the element's word, in the order of noise_address.
KSHOT_HOST_DEVICE inline float uniform_element(const RandomKey& key, std::uint64_t element) {
  const NoiseAddress at = noise_address(element);
  const auto words = philox4x32(key.counter(at.quad), key.key());
  return uniform_of(words[static_cast<std::size_t>(at.word)]);
}

/// The result of below_of.
struct Below {
  std::uint32_t value;  ///< The integer.
  bool again;           ///< True: `value` is not valid, and another word must be drawn.
};
/// Makes an unbiased integer in [0, n), n > 0, from a word (Lemire 2019).
KSHOT_HOST_DEVICE constexpr Below below_of(std::uint32_t word, std::uint32_t n) {
  const std::uint64_t m = static_cast<std::uint64_t>(word) * n;
  const auto rest = static_cast<std::uint32_t>(m);
  return {static_cast<std::uint32_t>(m >> 32), rest < n && rest < (0u - n) % n};
}

/// Returns word i of a RandomStream, for code that reads a stream in another order.
KSHOT_HOST_DEVICE constexpr std::uint32_t stream_word(const RandomKey& key, std::uint32_t i) {
  const auto words = philox4x32(key.counter(i >> 2), key.key());
  const std::uint32_t low = (i & 1) != 0 ? words[1] : words[0];
  const std::uint32_t high = (i & 1) != 0 ? words[3] : words[2];
  return (i & 2) != 0 ? high : low;
}

/// Returns normal number i of a RandomStream from which only normal numbers are read.
KSHOT_HOST_DEVICE inline float stream_normal(const RandomKey& key, std::uint32_t i) {
  const std::uint32_t first = i & ~1u;
  const NormalPair pair = box_muller(stream_word(key, first), stream_word(key, first + 1));
  return (i & 1) != 0 ? pair.sine : pair.cosine;
}

/// A sequential reader of one stream (episodes, initialisation).
class RandomStream {
 public:
  /// Starts at the first word of the stream.
  KSHOT_HOST_DEVICE explicit RandomStream(const RandomKey& key) : key_(key) {}
  /// Returns the next word.
  KSHOT_HOST_DEVICE std::uint32_t word() {
    if (next_ == 4) {
      words_ = philox4x32(key_.counter(quad_++), key_.key());
      next_ = 0;
    }
    return words_[static_cast<std::size_t>(next_++)];
  }
  /// Returns a uniform number in [0, 1) with 24 bits.
  KSHOT_HOST_DEVICE float uniform() { return uniform_of(word()); }
  /// Returns a uniform number in [low, high).
  KSHOT_HOST_DEVICE float uniform(float low, float high) {
    return product_sum(high - low, uniform(), low);
  }
  /// Returns an unbiased uniform integer in [0, n), n > 0.
  KSHOT_HOST_DEVICE std::uint32_t below(std::uint32_t n) {
    while (true) {
      const Below drawn = below_of(word(), n);
      if (!drawn.again) return drawn.value;
    }
  }
  /// Returns a standard normal number.
  KSHOT_HOST_DEVICE float normal() {
    if (has_spare_) {
      has_spare_ = false;
      return spare_;
    }
    const std::uint32_t a = word();
    const NormalPair pair = box_muller(a, word());
    spare_ = pair.sine;
    has_spare_ = true;
    return pair.cosine;
  }

 private:
  RandomKey key_;
  std::uint32_t quad_ = 0;
  std::array<std::uint32_t, 4> words_{};
  int next_ = 4;
  bool has_spare_ = false;
  float spare_ = 0.0f;
};

}  // namespace kshot
