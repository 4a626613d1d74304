// One instruction of a tensor core: the operands of a warp's lanes and their results.
#pragma once

#include <array>
#include <cstdint>

namespace kshot::simt {

/// A lane's operands and results of mma.m16n8k8 with TF32 operands.
struct TensorFragments {
  std::uint32_t a[4], b[2];
  float c[4], d[4];
};

/// d = a b + c, by all lanes.
///
/// The addition is as inaccurate as that of any known device (Fasi, Higham, Mikaitis and Pranesh
/// 2021, "Numerical behavior of NVIDIA tensor cores"). The eight products are exact. They and c are
/// truncated below the last bit of a float of the size of the largest of them, and their sum is
/// truncated to a float. A result that is accurate enough here is also accurate enough on devices
/// that keep a bit or two more.
void multiply(const std::array<TensorFragments*, 32>& lanes);

/// Returns c + the sum of a[k] b[k], added in this way.
float multiply_add(float c, const std::array<float, 8>& a, const std::array<float, 8>& b);

}  // namespace kshot::simt
