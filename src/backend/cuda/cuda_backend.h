// The backend on NVIDIA GPUs. This header is the same in builds with and without it: the factory
// (backend.cpp) decides whether a build has it. The emulator of tests/simt compiles the same
// sources, which then add themselves to the factory of a program that links them (add_backend).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace kshot::backend {

/// "cuda" is the first GPU, "cuda:N" the N-th. `threads` is the number of waves that run
/// concurrently, each on its own stream. With 0 there are two, so that one is loaded while the
/// other computes. Throws DeviceError, with the reason, where there is no such device or it cannot
/// be used.
std::unique_ptr<Backend> make_cuda_backend(const std::string& device, int threads,
                                           Precision precision);
/// One entry per GPU, or one entry "cuda" that says why there is none.
std::vector<DeviceInfo> list_cuda_devices();

}  // namespace kshot::backend
