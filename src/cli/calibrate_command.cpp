// `calibrate`: a temperature or a variance factor for a run, fitted on validation episodes.
#include <fmt/format.h>

#include <filesystem>

#include "cli/commands.h"
#include "engine/checkpoint.h"
#include "io/log.h"
#include "io/output_file.h"
#include "kshot/calibration.h"
#include "kshot/evaluator.h"

namespace kshot::cli {

namespace fs = std::filesystem;

int run_calibrate(const EvaluateArguments& a) {
  Evaluator evaluator(a.run, evaluator_options(a));
  // `evaluate --calibrated` and `adapt --calibrated` look for it beside the checkpoint.
  io::OutputFile file(find_checkpoint(a.run).parent_path() / calibration_file,
                      io::OutputKind::calibration);
  const RunCalibration c = evaluator.calibrate();
  fmt::print("{}, fitted on {} {} episodes (seed {}), {}\n", c.describe(), c.episodes - c.diverged,
             split_name(c.split), c.seed, c.source);
  fmt::print("NLL {:.4f}, calibrated {:.4f}\n", c.nll_before, c.nll_after);
  if (c.ece_before && c.ece_after) {
    fmt::print("ECE {:.4f}, calibrated {:.4f}\n", *c.ece_before, *c.ece_after);
  }
  file.write(c.to_json());
  if (!a.quiet) io::log_info(fmt::format("written to {}", file.path().string()));
  return 0;
}

}  // namespace kshot::cli
