// Stand-in for Thrust's header of this name.
#pragma once

#include <stdexcept>

#include "thrust/execution_policy.h"

namespace thrust {
inline namespace emulated {

/// out[i] = in[i].
template <class In, class T>
T* copy(const cuda::Policy& policy, In first, In last, T* out) {
  const std::ptrdiff_t count = last - first;
  ::kshot::simt::enqueue(policy.stream, [=] {
    detail::require(first, count, true);
    detail::require(out, count, false);
    for (std::ptrdiff_t i = 0; i < count; ++i) detail::store(out + i, detail::load(first + i));
  });
  return out + count;
}

/// Copies in[i] where predicate(stencil[i]) is true, in order. Returns the end of the output. Waits
/// for the stream, as the real function does, because it needs this end.
template <class In, class Stencil, class T, class Predicate>
T* copy_if(const cuda::Policy& policy, In first, In last, Stencil stencil, T* out,
           Predicate predicate) {
  const std::ptrdiff_t count = last - first;
  std::ptrdiff_t kept = 0;
  if (cudaStreamSynchronize(policy.stream) != cudaSuccess) {
    throw std::runtime_error("thrust::copy_if: the stream cannot be waited for");
  }
  detail::require(first, count, true);
  detail::require(stencil, count, true);
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    if (!predicate(detail::load(stencil + i))) continue;
    detail::require(out + kept, 1, false);
    detail::store(out + kept, detail::load(first + i));
    ++kept;
  }
  return out + kept;
}

}  // namespace emulated
}  // namespace thrust
