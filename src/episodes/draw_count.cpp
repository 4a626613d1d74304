#include "episodes/draw_count.h"

#include "base/episode_stream.h"

namespace kshot {

int draw_count(const TaskId& id, SizePart part, const CountRange& range) {
  if (range.fixed()) return range.least;
  RandomStream stream = episode_stream(id, part);
  return range.least +
         static_cast<int>(stream.below(static_cast<std::uint32_t>(range.most - range.least + 1)));
}

}  // namespace kshot
