// Stand-in for Thrust's header of this name.
#pragma once

#include "thrust/execution_policy.h"

namespace thrust {
inline namespace emulated {

/// out[i] = init + in[0] + ... + in[i - 1].
template <class In, class T, class Init>
T* exclusive_scan(const cuda::Policy& policy, In first, In last, T* out, Init init) {
  const std::ptrdiff_t count = last - first;
  ::kshot::simt::enqueue(policy.stream, [=] {
    detail::require(first, count, true);
    detail::require(out, count, false);
    Init sum = init;
    for (std::ptrdiff_t i = 0; i < count; ++i) {
      // read before the write, because out may be first
      const auto value = detail::load(first + i);
      detail::store(out + i, sum);
      sum = static_cast<Init>(sum + value);
    }
  });
  return out + count;
}

}  // namespace emulated
}  // namespace thrust
