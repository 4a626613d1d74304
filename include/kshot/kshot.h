// All of kshot's public headers.
#pragma once

#include "kshot/calibration.h"    // IWYU pragma: export
#include "kshot/communicator.h"   // IWYU pragma: export
#include "kshot/config.h"         // IWYU pragma: export
#include "kshot/decisions.h"      // IWYU pragma: export
#include "kshot/embedder.h"       // IWYU pragma: export
#include "kshot/episode.h"        // IWYU pragma: export
#include "kshot/error.h"          // IWYU pragma: export
#include "kshot/evaluator.h"      // IWYU pragma: export
#include "kshot/learner.h"        // IWYU pragma: export
#include "kshot/meta_gradient.h"  // IWYU pragma: export
#include "kshot/metrics.h"        // IWYU pragma: export
#include "kshot/network.h"        // IWYU pragma: export
#include "kshot/ood.h"            // IWYU pragma: export
#include "kshot/random.h"         // IWYU pragma: export
#include "kshot/report.h"         // IWYU pragma: export
#include "kshot/stop.h"           // IWYU pragma: export
#include "kshot/sweep.h"          // IWYU pragma: export
#include "kshot/trainer.h"        // IWYU pragma: export
#include "kshot/version.h"        // IWYU pragma: export
