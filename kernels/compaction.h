// Lists of indices, made on the device by Thrust. The functions wait for the stream and allocate
// memory while they work, so they do not belong in the middle of a step. Pointers are device
// memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/runtime.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// Writes the indices of the nonzero flags [count], ascending, to `to` [count]. Returns their
/// number.
std::size_t set_indices(std::uint32_t* to, const std::int32_t* flags, std::size_t count,
                        cudaStream_t stream);
/// Inverts index [count], whose values are below `targets`. order [count] lists the elements by the
/// target that they point to; elements of the same target are in ascending order. The elements of
/// target j are order[first[j]] .. order[first[j + 1] - 1], and first is [targets + 1]. scratch is
/// [count].
void invert_index(std::uint32_t* first, std::uint32_t* order, const std::uint32_t* index,
                  std::size_t count, std::size_t targets, std::uint32_t* scratch,
                  cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
