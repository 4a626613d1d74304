// Stand-in for Thrust's header of this name: the policy that says where an algorithm runs.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <iterator>
#include <type_traits>

#include "emulator/memory.h"
#include "emulator/runtime.h"

namespace thrust {
inline namespace emulated {
namespace cuda {

/// The result of thrust::cuda::par_nosync.on(stream).
struct Policy {
  cudaStream_t stream = nullptr;
  Policy on(cudaStream_t other) const { return {other}; }
};
constexpr Policy par{}, par_nosync{};

}  // namespace cuda

namespace detail {

// These functions read and write device memory, which other host code may not access.
template <class Iterator>
auto load(Iterator at) {
  using Value = typename std::iterator_traits<Iterator>::value_type;
  if constexpr (std::is_pointer_v<Iterator>) {
    Value value;
    ::kshot::simt::raw_copy(&value, at, sizeof value);
    return value;
  } else {
    return static_cast<Value>(*at);
  }
}
template <class T, class Value>
void store(T* at, const Value& value) {
  const T converted = static_cast<T>(value);
  ::kshot::simt::raw_copy(at, &converted, sizeof converted);
}
template <class Iterator>
void require(Iterator first, std::ptrdiff_t count, bool read) {
  if constexpr (std::is_pointer_v<Iterator>) {
    ::kshot::simt::require_device("Thrust", first, static_cast<std::size_t>(count) * sizeof *first,
                                  read, !read);
  }
}

}  // namespace detail
}  // namespace emulated
}  // namespace thrust
