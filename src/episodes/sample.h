// Drawing without replacement.
#pragma once

#include <cstdint>
#include <span>

#include "kshot/random.h"

namespace kshot {

/// Fills `out` with different numbers of [0, n), n >= out.size(), every ordered choice equally
/// likely. The first k of a longer draw are the draw of k.
void sample_without_replacement(RandomStream& stream, std::uint32_t n,
                                std::span<std::uint32_t> out);

}  // namespace kshot
