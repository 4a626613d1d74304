// Stand-in for Thrust's header of this name.
#pragma once

#include <cstddef>

#include "thrust/execution_policy.h"

namespace thrust {
inline namespace emulated {

/// out[i] = the number of elements in the sorted range [first, last) that are less than wanted[i].
template <class T, class In, class Out>
Out* lower_bound(const cuda::Policy& policy, T* first, T* last, In wanted, In wanted_last,
                 Out* out) {
  const std::ptrdiff_t count = last - first, asked = wanted_last - wanted;
  ::kshot::simt::enqueue(policy.stream, [=] {
    detail::require(first, count, true);
    detail::require(wanted, asked, true);
    detail::require(out, asked, false);
    for (std::ptrdiff_t i = 0; i < asked; ++i) {
      const auto value = detail::load(wanted + i);
      std::ptrdiff_t begin = 0, end = count;
      while (begin < end) {
        const std::ptrdiff_t middle = begin + (end - begin) / 2;
        if (detail::load(first + middle) < value) {
          begin = middle + 1;
        } else {
          end = middle;
        }
      }
      detail::store(out + i, begin);
    }
  });
  return out + asked;
}

}  // namespace emulated
}  // namespace thrust
