// Stand-in for Thrust's header of this name.
#pragma once

#include <cstddef>

#include "thrust/execution_policy.h"

namespace thrust {
inline namespace emulated {

/// out[i] = the number of elements in the sorted range [first, last) that are less than values[i].
template <class T, class In, class Out>
Out* lower_bound(const cuda::Policy& policy, T* first, T* last, In values, In values_last,
                 Out* out) {
  const std::ptrdiff_t count = last - first, value_count = values_last - values;
  ::kshot::simt::enqueue(policy.stream, [=] {
    detail::require(first, count, true);
    detail::require(values, value_count, true);
    detail::require(out, value_count, false);
    for (std::ptrdiff_t i = 0; i < value_count; ++i) {
      const auto value = detail::load(values + i);
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
  return out + value_count;
}

}  // namespace emulated
}  // namespace thrust
