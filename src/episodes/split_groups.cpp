#include "episodes/split_groups.h"

#include <algorithm>

#include "episodes/sources.h"
#include "kshot/error.h"

namespace kshot {

SplitGroups take_groups(
    const data::DatasetHeader& header, std::span<const Split> used,
    const std::function<std::string(Split, const std::vector<std::uint32_t>&)>& fault,
    const std::function<bool(std::uint32_t)>& keep) {
  SplitGroups taken;
  for (const Split split : all_splits) {
    const auto s = static_cast<std::size_t>(split);
    taken.groups[s] = header.split_groups(split);
    if (keep) {
      taken.skipped[s] =
          std::erase_if(taken.groups[s], [&keep](std::uint32_t g) { return !keep(g); });
    }
    taken.counts[s] = taken.groups[s].size();
    taken.faults[s] = fault(split, taken.groups[s]);
    if (taken.faults[s].empty()) continue;
    // Files without validation or test groups are common. Training needs its groups.
    const bool asked = taken.counts[s] > 0 || taken.skipped[s] > 0 || split == Split::train;
    if (asked && std::ranges::find(used, split) != used.end()) throw Error(taken.faults[s]);
    taken.groups[s].clear();
  }
  return taken;
}

}  // namespace kshot
