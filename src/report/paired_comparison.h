// Differences between runs on the episodes that they have in common, with paired intervals.
#pragma once

#include <string>
#include <vector>

#include "report/page.h"
#include "report/report_data.h"

namespace kshot::report {

/// What was compared, or why it was not.
struct PairedComparison {
  /// Differences of every other method to the first run, metric by metric.
  std::vector<PairedDifference> differences;
  /// One line for each run that has no row: why its episodes are other ones.
  std::vector<std::string> left_out;
};

/// Compares every run, and the baselines of the first run, with the first run, episode by episode.
/// There are no differences where the first run was not evaluated.
PairedComparison paired_comparison(const std::vector<std::string>& names,
                                   const std::vector<ReportData>& runs);
/// The differences for people, with one row per method; no rows for no differences.
Table paired_table(const std::string& reference, const std::vector<PairedDifference>& differences);

}  // namespace kshot::report
