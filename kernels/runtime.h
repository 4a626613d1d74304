// The host side of CUDA, real or emulated (src/emulator), and the conversion of its errors to
// kshot's.
//
// All code that uses a device is in namespace kshot::cuda and, within it, in inline namespace
// KSHOT_PLATFORM. One program can therefore contain both the code for a GPU and the emulated code.
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

/// Throws "CUDA device 0 (NVIDIA H200): cudaMalloc: out of memory (cudaErrorMemoryAllocation)".
/// `call` is the text of the call. It is cut at its first parenthesis. Clears the runtime's last
/// error.
[[noreturn]] inline void throw_device_error(cudaError_t error, const std::string& call) {
  cudaGetLastError();
  int device = 0;
  cudaDeviceProp properties{};
  std::string location = "CUDA";
  if (cudaGetDevice(&device) == cudaSuccess) {
    location += " device " + std::to_string(device);
    if (cudaGetDeviceProperties(&properties, device) == cudaSuccess) {
      location += " (" + std::string(properties.name) + ")";
    }
  }
  cudaGetLastError();
  throw DeviceError(location + ": " + call.substr(0, call.find('(')) + ": " +
                    cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ")");
}

inline void check(cudaError_t error, const char* call) {
  if (error != cudaSuccess) throw_device_error(error, call);
}

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda

/// Wraps every call of the CUDA runtime: throws kshot::DeviceError if the call fails.
#define KSHOT_CUDA_CHECK(call) ::kshot::cuda::check((call), #call)
