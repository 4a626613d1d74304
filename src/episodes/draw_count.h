// Draws the size of one task from a range.
#pragma once

#include "kshot/count_range.h"
#include "kshot/episode.h"

namespace kshot {

/// Parts of a task's random stream (base/episode_stream.h) from which sizes are drawn. Each size
/// has its own part, so that a task keeps its queries for any number of shots.
enum SizePart : unsigned { ways_part = 0xfffc, shots_part = 0xfffd, queries_part = 0xfffe };

/// Draws a task's size; every number of the range is equally likely. A range of one number draws
/// nothing from the stream.
int draw_count(const TaskId& id, SizePart part, const CountRange& range);

}  // namespace kshot
