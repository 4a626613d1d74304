// Stand-in for Thrust's header of this name.
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <vector>

#include "thrust/execution_policy.h"

namespace thrust {
inline namespace emulated {

/// Sorts the keys in place, ascending, and the values with them. Elements with equal keys keep
/// their order.
template <class Key, class Value>
void stable_sort_by_key(const cuda::Policy& policy, Key* first, Key* last, Value* values) {
  const std::ptrdiff_t count = last - first;
  ::kshot::simt::enqueue(policy.stream, [=] {
    detail::require(first, count, true);
    detail::require(values, count, true);
    const auto n = static_cast<std::size_t>(count);
    std::vector<Key> keys(n);
    std::vector<Value> moved(n);
    std::vector<std::size_t> order(n);
    for (std::size_t i = 0; i < n; ++i) {
      keys[i] = detail::load(first + i);
      moved[i] = detail::load(values + i);
    }
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return keys[a] < keys[b]; });
    for (std::size_t i = 0; i < n; ++i) {
      detail::store(first + i, keys[order[i]]);
      detail::store(values + i, moved[order[i]]);
    }
  });
}

}  // namespace emulated
}  // namespace thrust
