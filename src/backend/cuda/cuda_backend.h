// The backend on NVIDIA GPUs. Whether a build has it is the factory's business (backend.cpp); this
// header does not need it. The same sources compiled for the emulator of tests/simt add themselves
// to the factory where a program links them (add_backend).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace kshot::backend {

/// "cuda" is the first GPU, "cuda:N" the N-th. threads: waves at once, each on a stream of its own;
/// 0: two, so that one is loaded while the other computes. Throws DeviceError where there is no
/// such device, or it cannot be used, naming why.
std::unique_ptr<Backend> make_cuda_backend(const std::string& device, int threads,
                                           Precision precision);
/// Each GPU, or one entry "cuda" that says why there is none.
std::vector<DeviceInfo> list_cuda_devices();

}  // namespace kshot::backend
