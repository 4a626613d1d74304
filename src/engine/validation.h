// Validation during a training.
#pragma once

#include "engine/assembly.h"
#include "engine/run_log.h"
#include "engine/scheduler.h"
#include "kshot/episode.h"

namespace kshot {

/// The validation episodes: the same seed and the same episodes every time. `scheduler` runs the
/// algorithm for new tasks. report.metric says what decides; step, best and seconds are left to the
/// caller.
ValidationDetail validate(Scheduler& scheduler, const Assembly& assembly,
                          const EpisodeSource& source);

}  // namespace kshot
