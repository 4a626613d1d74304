// The host side of CUDA, real or emulated (tests/simt), and how its errors become ours.
//
// Everything that touches a device lives in namespace kshot::cuda, there in inline namespace
// KSHOT_PLATFORM, so that one program can hold both: on a GPU and emulated.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "kshot/error.h"

#ifdef KSHOT_SIMT
#define KSHOT_PLATFORM emulated
#else
#define KSHOT_PLATFORM gpu
#endif

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// "CUDA device 0 (NVIDIA H200): cudaMalloc: out of memory (cudaErrorMemoryAllocation)". `call` is
/// the call's text; from its first parenthesis on it is left out. Clears the runtime's last error.
[[noreturn]] inline void throw_device_error(cudaError_t error, const std::string& call) {
  cudaGetLastError();
  int device = 0;
  cudaDeviceProp properties{};
  std::string where = "CUDA";
  if (cudaGetDevice(&device) == cudaSuccess) {
    where += " device " + std::to_string(device);
    if (cudaGetDeviceProperties(&properties, device) == cudaSuccess) {
      where += " (" + std::string(properties.name) + ")";
    }
  }
  cudaGetLastError();
  throw DeviceError(where + ": " + call.substr(0, call.find('(')) + ": " +
                    cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ")");
}

inline void check(cudaError_t error, const char* call) {
  if (error != cudaSuccess) throw_device_error(error, call);
}

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda

/// Every call of the CUDA runtime goes through this: throws kshot::DeviceError where it fails.
#define KSHOT_CUDA_CHECK(call) ::kshot::cuda::check((call), #call)
