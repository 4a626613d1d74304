// cuBLAS, real or emulated (tests/simt), and how its errors become ours.
#pragma once

#include <cublas_v2.h>

#include <string>

#include "kernels/runtime.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

inline void check(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  const std::string text = call;
  int device = 0;
  cudaGetDevice(&device);
  throw DeviceError("CUDA device " + std::to_string(device) + ": " +
                    text.substr(0, text.find('(')) + ": " + cublasGetStatusString(status));
}

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda

#define KSHOT_CUBLAS_CHECK(call) ::kshot::cuda::check((call), #call)
