// Validation during a training.
#pragma once

#include "engine/assembly.h"
#include "engine/run_log.h"
#include "engine/scheduler.h"
#include "kshot/episode.h"

namespace kshot {

/// Evaluates the validation episodes, which have the same seed and are the same every time.
/// `scheduler` runs the algorithm for new tasks. report.metric names the metric that decides. The
/// caller sets step, best and seconds.
ValidationDetail validate(Scheduler& scheduler, const Assembly& assembly,
                          const EpisodeSource& source);

}  // namespace kshot
