// Drawing without replacement.
#pragma once

#include <cstdint>
#include <span>

#include "kshot/random.h"

namespace kshot {

/// Fills `out` with different numbers of [0, n), n >= out.size(). Every ordered choice is equally
/// likely. The first k numbers of a longer draw are those of a draw of k.
void sample_without_replacement(RandomStream& stream, std::uint32_t n,
                                std::span<std::uint32_t> out);

}  // namespace kshot
