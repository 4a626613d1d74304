#include "episodes/sample.h"

#include <algorithm>
#include <numeric>
#include <unordered_map>
#include <vector>

namespace kshot {

void sample_without_replacement(RandomStream& stream, std::uint32_t n,
                                std::span<std::uint32_t> out) {
  // Fisher-Yates shuffle, stopped after the first out.size() places.
  if (n / 16 > out.size()) {  // a small share of n: only the moved places are stored
    thread_local std::unordered_map<std::uint32_t, std::uint32_t> moved;
    moved.clear();
    const auto place = [](std::uint32_t i) {
      const auto found = moved.find(i);
      return found == moved.end() ? i : found->second;
    };
    for (std::uint32_t i = 0; i < out.size(); ++i) {
      const std::uint32_t j = i + stream.below(n - i);
      out[i] = place(j);
      moved[j] = place(i);
    }
    return;
  }
  thread_local std::vector<std::uint32_t> places;
  places.resize(n);
  std::iota(places.begin(), places.end(), 0u);
  for (std::uint32_t i = 0; i < out.size(); ++i) {
    std::swap(places[i], places[i + stream.below(n - i)]);
    out[i] = places[i];
  }
}

}  // namespace kshot
