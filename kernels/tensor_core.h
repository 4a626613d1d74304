// Products on tensor cores with the accuracy of FP32 (Ootomo and Yokota 2022, "Recovering single
// precision accuracy from Tensor Cores while surpassing the FP32 theoretical peak performance").
//
// A tensor core multiplies TF32 numbers, which have 11 significant bits, exactly. A float x has 24
// significant bits and is split: hi is x rounded to TF32, and lo is the remainder x - hi truncated
// to TF32. Then, with u = 2^-24,
//
//   |x - hi| <= 2^-11 |x|,  |x - hi - lo| <= 2 u |x|        the remainder has at most 12 bits
//   a b = a_lo b_hi + a_hi b_lo + a_hi b_hi + e,            |e| <= 8 u |a b|
//
// One half of e is a_lo b_lo, which is left out. The other half is what the splits leave out.
//
// Tensor cores truncate when they add: the terms to about one bit below the last bit of the largest
// term, and also the sums (Fasi, Higham, Mikaitis and Pranesh 2021, "Numerical behavior of NVIDIA
// tensor cores"). The loss by truncation has one sign and grows with the depth. Therefore only
// eight products are summed on the core, starting from zero, and their sum is added to the other
// sums by an FP32 addition, which rounds to nearest. For a sum over n products, whose magnitudes
// add up to S:
//
//   |error| <= (8 + 20 + n / 8) u S          8 by the split, 20 = 2 (9 terms + their sum) by the
//                                            core, n / 8 by the additions
//
// The bound of an FP32 sum is n u S, which is not smaller from a depth of 32 on.
#pragma once

#include <cstdint>

#include "kernels/arithmetic.h"
#include "kernels/device.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

#if defined(KSHOT_SIMT) || defined(__CUDACC__)

/// The bits of a TF32 number: those of a float whose 13 lowest bits are zero.
using Tf32 = std::uint32_t;

/// Splits x. NaN is passed on in lo. A number that rounds to more than the largest float, which it
/// is within 2^-12 of, becomes NaN.
__device__ inline void split_tf32(float x, Tf32& hi, Tf32& lo) {
  constexpr std::uint32_t kept = 0xffffe000u, half = 0x1000u;
  hi = (__float_as_uint(x) + half) & kept;  // rounds to nearest, ties away from zero
  lo = __float_as_uint(x - __uint_as_float(hi)) & kept;
}

/// d = a b + c by all lanes of a warp. a is 16 x 8, and b is 8 x 8. With g = lane / 4 and t = lane
/// % 4 a lane holds a[g][t], a[g + 8][t], a[g][t + 4], a[g + 8][t + 4]; b[t][g], b[t + 4][g]; and
/// of c and d the elements [g][2 t], [g][2 t + 1], [g + 8][2 t], [g + 8][2 t + 1] (PTX ISA, "Matrix
/// Fragments for mma.m16n8k8").
__device__ inline void multiply_tf32(float (&d)[4], const Tf32 (&a)[4], const Tf32 (&b)[2],
                                     const float (&c)[4]) {
#if defined(KSHOT_SIMT)
  simt::multiply_tf32(d, a, b, c);
#elif !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]),
        "f"(c[2]), "f"(c[3]));
#else
  __trap();  // older devices take the plain path
#endif
}

#endif

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
