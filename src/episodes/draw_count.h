// The size of one task, drawn from a range.
#pragma once

#include "kshot/count_range.h"
#include "kshot/episode.h"

namespace kshot {

/// Parts of a task's random stream (base/episode_stream.h) that sizes are drawn from. Each size has
/// a part of its own, so that a task keeps its queries whatever the shots are.
enum SizePart : unsigned { ways_part = 0xfffc, shots_part = 0xfffd, queries_part = 0xfffe };

/// The task's own number, every number of the range equally likely. A range of one number takes
/// nothing from the stream.
int draw_count(const TaskId& id, SizePart part, const CountRange& range);

}  // namespace kshot
