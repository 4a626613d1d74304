// The interface by which the stand-ins of libraries use the emulated streams.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <string>

namespace kshot::simt {

/// Puts work on a stream. It runs at once, or when something waits for it (Settings::lazy), or in a
/// graph.
api::cudaError_t enqueue(api::cudaStream_t stream, std::function<void()> work);

/// Throws Failure ("`who`: ...") if [pointer, pointer + bytes) is not within one live allocation.
/// `read`: every byte must have been written. `write`: marks the bytes as written.
void require_device(const std::string& who, const void* pointer, std::size_t bytes, bool read,
                    bool write);

}  // namespace kshot::simt
