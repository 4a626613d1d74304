// Inputs of the kernels' tests: random numbers that are the same in float and double.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kshot/random.h"

namespace kshot::simt {

/// Returns n numbers, uniform in [low, high) and exact in float.
template <class T>
std::vector<T> numbers(std::size_t n, std::uint64_t seed, float low = -1.0f, float high = 1.0f) {
  RandomStream stream({.seed = seed});
  std::vector<T> values(n);
  for (T& value : values) value = static_cast<T>(stream.uniform(low, high));
  return values;
}

}  // namespace kshot::simt
