// `calibrate`: fits a temperature or a variance factor to a run on validation episodes.
#include <fmt/format.h>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/ranks.h"
#include "engine/calibration.h"

namespace kshot::cli {

int run_calibrate(const EvaluateArguments& a) {
  EvaluatorOptions options = evaluator_options(a);
  options.ranks = command_ranks();
  const auto [c, file] = calibrate_run(a.run, options, a.confidence);
  if (!is_rank_zero()) return 0;
  fmt::print("{}, fitted on {} {} episodes (seed {}), {}\n", c.describe(), c.episodes - c.diverged,
             split_name(c.split), c.seed, c.source);
  fmt::print("NLL {:.4f}, calibrated {:.4f}\n", c.nll_before, c.nll_after);
  if (c.ece_before && c.ece_after) {
    fmt::print("ECE {:.4f}, calibrated {:.4f}\n", *c.ece_before, *c.ece_after);
  }
  for (const RiskThreshold& t : c.thresholds) {
    if (t.risk != 0.01 && t.risk != 0.05 && t.risk != 0.1) continue;
    if (!t.threshold) {
      fmt::print("risk at most {}: no threshold found\n", t.risk);
      continue;
    }
    fmt::print(
        "risk at most {}: confidence of at least {:.4f}, which answers {:.1f} % of the rows\n",
        t.risk, *t.threshold, 100.0 * t.coverage);
  }
  if (!a.quiet) log_info(fmt::format("written to {}", file.string()));
  return 0;
}

}  // namespace kshot::cli
