// Selects the groups of a data file from which episodes are drawn.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "kshot/episode.h"

namespace kshot {

/// Classes or tasks of a data file, one entry per split.
struct SplitGroups {
  std::array<std::vector<std::uint32_t>, 3> groups;  ///< empty if the split has no episodes
  std::array<std::size_t, 3> counts{};               ///< groups of the file that are kept
  std::array<std::size_t, 3> skipped{};              ///< groups of the file that are left out
  std::array<std::string, 3> faults;                 ///< why `groups` is empty
};

/// Takes every split's groups for which `keep` returns true (without `keep`: all). `fault` returns
/// the reason why no episodes can be drawn from the given groups, or an empty text. Throws Error
/// with the fault of a split in `used`. A split without groups in the file is accepted, unless it
/// is the training split.
SplitGroups take_groups(
    const data::DatasetHeader& header, std::span<const Split> used,
    const std::function<std::string(Split, const std::vector<std::uint32_t>&)>& fault,
    const std::function<bool(std::uint32_t)>& keep = {});

}  // namespace kshot
