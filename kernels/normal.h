// Standard normal numbers for device code that draws many of them. They have the bits of
// kshot/random.h, in half as many instructions.
//
// These instructions are saved: The keys of Philox's rounds are computed once per launch. A product
// of 32 by 32 bits is one instruction. Box-Muller's intermediate values are scaled by a power of
// two where that saves a product; this changes no bit. Exponent and fraction are separated by
// integer operations. The square root has no branch for arguments that do not occur (denormal,
// infinite).
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cmath>
#include <cstdint>

#include "kernels/runtime.h"
#include "kshot/random.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// The keys of Philox's ten rounds.
struct PhiloxKeys {
  std::uint32_t even[10], odd[10];
};
inline PhiloxKeys philox_keys(const RandomKey& key) {
  const auto [even, odd] = key.key();
  PhiloxKeys keys;
  for (std::uint32_t round = 0; round < 10; ++round) {
    keys.even[round] = even + round * 0x9E3779B9u;
    keys.odd[round] = odd + round * 0xBB67AE85u;
  }
  return keys;
}

#if defined(KSHOT_SIMT) || defined(__CUDACC__)

struct WideProduct {
  std::uint32_t low, high;
};
__device__ __forceinline__ WideProduct wide_product(std::uint32_t a, std::uint32_t b) {
#ifdef KSHOT_SIMT
  const std::uint64_t product = static_cast<std::uint64_t>(a) * b;
#else  // nvcc would make a product and a sum of a product of two 64-bit numbers
  std::uint64_t product;
  asm("mul.wide.u32 %0, %1, %2;" : "=l"(product) : "r"(a), "r"(b));
#endif
  return {static_cast<std::uint32_t>(product), static_cast<std::uint32_t>(product >> 32)};
}

/// philox4x32 of the counter (a, b, c, d). Several draws of one thread that share words of the
/// counter also share instructions of the first rounds, if the compiler sees the draws side by
/// side.
struct PhiloxWords {
  std::uint32_t a, b, c, d;
};
__device__ __forceinline__ PhiloxWords philox_words(PhiloxWords c, const PhiloxKeys& keys) {
  for (int round = 0; round < 10; ++round) {
    const WideProduct p0 = wide_product(c.a, 0xD2511F53u), p1 = wide_product(c.c, 0xCD9E8D57u);
    c = {p1.high ^ c.b ^ keys.even[round], p1.low, p0.high ^ c.d ^ keys.odd[round], p0.low};
  }
  return c;
}

__device__ __forceinline__ float float_of_bits(std::uint32_t bits) {
#ifdef KSHOT_SIMT
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
#else
  return __uint_as_float(bits);
#endif
}
__device__ __forceinline__ std::uint32_t bits_of_float(float x) {
#ifdef KSHOT_SIMT
  std::uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
#else
  return __float_as_uint(x);
#endif
}

/// The correctly rounded square root of a normal number: the instructions that nvcc makes of sqrtf,
/// without the branch for other numbers.
__device__ __forceinline__ float root_of_normal(float x) {
#ifdef KSHOT_SIMT
  return std::sqrt(x);
#else
  float reciprocal;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(x));
  const float root = x * reciprocal;
  return std::fma(std::fma(-root, root, x), 0.5f * reciprocal, root);
#endif
}

/// a + b. No compiler can contract the sum with the product that made a.
__device__ __forceinline__ float rounded_sum(float a, float b) {
#ifdef KSHOT_SIMT
  return a + b;
#else
  return __fadd_rn(a, b);
#endif
}

/// box_muller of kshot/random.h, where the formulas are explained.
__device__ __forceinline__ NormalPair normal_pair(std::uint32_t a, std::uint32_t b) {
  // u in (0, 1), computed by way of [1, 2); every step is exact
  const float u = float_of_bits((a >> 9) + 0x3f800000u) - 0x1.fffffep-1f;
  const std::uint32_t bits = bits_of_float(u);
  constexpr std::uint32_t half_root = 0x3f3504f3u;  // sqrt(1/2)
  const std::uint32_t exponent = (bits - half_root) & 0xff800000u;
  const float m = float_of_bits(bits - exponent) - 1.0f;  // [sqrt(1/2), sqrt(2)) - 1
  const float e = static_cast<float>(static_cast<std::int32_t>(exponent)) /* times 2^23 */;
  const float m2 = m * m;  // -2 log(1 + m)
  float p = -2.0f * 7.0376836292e-2f;
  p = std::fma(p, m, -2.0f * -1.1514610310e-1f);
  p = std::fma(p, m, -2.0f * 1.1676998740e-1f);
  p = std::fma(p, m, -2.0f * -1.2420140846e-1f);
  p = std::fma(p, m, -2.0f * 1.4249322787e-1f);
  p = std::fma(p, m, -2.0f * -1.6668057665e-1f);
  p = std::fma(p, m, -2.0f * 2.0000714765e-1f);
  p = std::fma(p, m, -2.0f * -2.4999993993e-1f);
  p = std::fma(p, m, -2.0f * 3.3333331174e-1f);
  float y = (p * m) * m2;
  y = std::fma(e, -0x1p-22f * -2.12194440e-4f, y);
  y = rounded_sum(m2, y);
  y = std::fma(m, -2.0f, y);
  const float radius = root_of_normal(std::fma(e, -0x1p-22f * 0.693359375f, y));
  // the angle, times 2^32
  const float t = static_cast<float>(static_cast<std::int32_t>(b));
  const float shifted = std::fma(t, 0x1p-30f, 12582912.0f);
  const std::uint32_t q = bits_of_float(shifted);
  const float r = std::fma(shifted - 12582912.0f, -0x1p30f, t) * (0x1p-32f * 6.283185307179586f);
  const float r2 = r * r;
  float s = -1.9515295891e-4f;
  s = std::fma(s, r2, 8.3321608736e-3f);
  s = std::fma(s, r2, -1.6666654611e-1f);
  s = std::fma(s * r2, r, r);
  float c = 2.443315711809948e-5f;
  c = std::fma(c, r2, -1.388731625493765e-3f);
  c = std::fma(c, r2, 4.166664568298827e-2f);
  c = std::fma(c * r2, r2, std::fma(r2, -0.5f, 1.0f));
  const bool across = (q & 1) != 0;
  const std::uint32_t sine = bits_of_float(across ? c : s), turn = q << 30;
  const std::uint32_t cosine = bits_of_float(across ? s : c);
  constexpr std::uint32_t sign = 0x80000000u;
  return {radius * float_of_bits(cosine ^ ((turn + 0x40000000u) & sign)),
          radius * float_of_bits(sine ^ (turn & sign))};
}

#endif

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
