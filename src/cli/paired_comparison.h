// Differences between runs on the episodes that they have in common, with paired intervals.
#pragma once

#include <string>
#include <vector>

#include "cli/run_pieces.h"
#include "metrics/report.h"

namespace kshot::cli {

/// What was compared, or why it was not.
struct PairedComparison {
  /// One row per method other than the first run: differences to the first run.
  report::Table table;
  /// One line for each run that has no row: why its episodes are other ones.
  std::vector<std::string> left_out;
};

/// Compares every run, and the baselines of the first run, with the first run, episode by episode.
/// The table has no rows where the first run was not evaluated.
PairedComparison paired_comparison(const std::vector<std::string>& names,
                                   const std::vector<RunPieces>& runs);

}  // namespace kshot::cli
