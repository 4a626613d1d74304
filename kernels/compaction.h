// Lists of indices, made on the device by Thrust. They wait for the stream, and take memory while
// they work: not for the middle of a step. Pointers are device memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/runtime.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// The indices of the flags [count] that are set, ascending, into to [count]; returns their number.
std::size_t set_indices(std::uint32_t* to, const std::int32_t* flags, std::size_t count,
                        cudaStream_t stream);
/// The inverse of index [count], whose values are below `targets`: order [count] names the elements
/// by the target they name, of one target in ascending order; those of target j are
/// order[first[j]] .. order[first[j + 1] - 1], first [targets + 1]. Scratch is [count].
void invert_index(std::uint32_t* first, std::uint32_t* order, const std::uint32_t* index,
                  std::size_t count, std::size_t targets, std::uint32_t* scratch,
                  cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
