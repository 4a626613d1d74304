// One instruction of a tensor core: what the lanes of a warp bring, and what it gives them.
#pragma once

#include <array>
#include <cstdint>

namespace kshot::simt {

/// A lane's numbers of mma.m16n8k8 with operands in TF32.
struct TensorFragments {
  std::uint32_t a[4], b[2];
  float c[4], d[4];
};

/// d = a b + c, of all lanes.
///
/// Adds as carelessly as any device is known to (Fasi, Higham, Mikaitis and Pranesh 2021,
/// "Numerical behavior of NVIDIA tensor cores"): the eight products are exact; they and c are cut
/// below the last bit that a float of the largest one's size has, and their sum is cut to a float.
/// What is right here is right on devices that keep a bit or two more.
void multiply(const std::array<TensorFragments*, 32>& lanes);

/// c + the sum of a[k] b[k] in that way.
float multiply_add(float c, const std::array<float, 8>& a, const std::array<float, 8>& b);

}  // namespace kshot::simt
