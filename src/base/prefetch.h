// Requests memory before it is used.
#pragma once

#include <cstddef>

namespace kshot {

/// Starts loading `bytes` bytes at `at` into the processor's caches. This helps with rows at
/// scattered places in a large file, when the next rows are known. The hint is for the second-level
/// cache, because rows are so large that they would evict each other from the first level.
inline void prefetch(const void* at, std::size_t bytes) {
  constexpr std::size_t line = 64;
  const char* const first = static_cast<const char*>(at);
  for (std::size_t i = 0; i < bytes; i += line) __builtin_prefetch(first + i, 0, 2);
}

}  // namespace kshot
