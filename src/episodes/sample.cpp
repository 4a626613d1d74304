#include "episodes/sample.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace kshot {

void sample_without_replacement(RandomStream& stream, std::uint32_t n,
                                std::span<std::uint32_t> out) {
  // Fisher-Yates, stopped after the first out.size() places.
  thread_local std::vector<std::uint32_t> places;
  places.resize(n);
  std::iota(places.begin(), places.end(), 0u);
  for (std::uint32_t i = 0; i < out.size(); ++i) {
    std::swap(places[i], places[i + stream.below(n - i)]);
    out[i] = places[i];
  }
}

}  // namespace kshot
