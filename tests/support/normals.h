// Standard normal numbers for tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kshot/random.h"

namespace kshot::test {

/// `count` standard normal numbers. Every `stream` has numbers of its own.
template <typename Number = float>
std::vector<Number> normals(std::size_t count, std::uint32_t stream) {
  RandomStream random({.seed = 11, .task = stream});
  std::vector<Number> numbers(count);
  for (Number& x : numbers) x = random.normal();
  return numbers;
}

}  // namespace kshot::test
