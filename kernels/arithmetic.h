// The ways in which convolutions multiply.
#pragma once

#include "kernels/runtime.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// How products of floats are computed. Products of doubles are always plain.
enum class Arithmetic {
  plain,       ///< one fused multiply-add per product
  split_tf32,  ///< on tensor cores, TF32 split three ways (tensor_core.h): compute capability 8.0
               ///< and higher
};

/// From compute capability 8.0 on a device has Arithmetic::split_tf32. False without such a device.
inline bool has_tensor_cores(int device) {
  int major = 0;
  return cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         major >= 8;
}

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
