// `calibrate`: a temperature or a variance factor for a run, fitted on validation episodes.
#include <fmt/format.h>

#include "cli/commands.h"
#include "engine/calibration.h"
#include "io/log.h"

namespace kshot::cli {

int run_calibrate(const EvaluateArguments& a) {
  const auto [c, file] = calibrate_run(a.run, evaluator_options(a));
  fmt::print("{}, fitted on {} {} episodes (seed {}), {}\n", c.describe(), c.episodes - c.diverged,
             split_name(c.split), c.seed, c.source);
  fmt::print("NLL {:.4f}, calibrated {:.4f}\n", c.nll_before, c.nll_after);
  if (c.ece_before && c.ece_after) {
    fmt::print("ECE {:.4f}, calibrated {:.4f}\n", *c.ece_before, *c.ece_after);
  }
  if (!a.quiet) io::log_info(fmt::format("written to {}", file.string()));
  return 0;
}

}  // namespace kshot::cli
