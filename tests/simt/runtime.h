// The door by which the stand-ins of libraries reach the emulated streams.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <string>

namespace kshot::simt {

/// Work for a stream: done now, when something waits for it (Settings::lazy), or by a graph.
api::cudaError_t enqueue(api::cudaStream_t stream, std::function<void()> work);

/// Throws Failure ("`who`: ...") where [pointer, pointer + bytes) is not in one live allocation.
/// `read`: every byte must have been written. `write`: marks them.
void require_device(const std::string& who, const void* pointer, std::size_t bytes, bool read,
                    bool write);

}  // namespace kshot::simt
