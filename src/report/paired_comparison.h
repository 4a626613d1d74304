// Differences between runs on the episodes that they share, with paired intervals.
#pragma once

#include <string>
#include <vector>

#include "report/page.h"
#include "report/report_data.h"

namespace kshot::report {

/// The result of paired_comparison.
struct PairedComparison {
  /// Differences of every other method to the first run, metric by metric.
  std::vector<PairedDifference> differences;
  /// One line for each run that was not compared, with the reason.
  std::vector<std::string> left_out;
};

/// Compares every run, and the baselines of the first run, with the first run, episode by episode.
/// There are no differences where the first run was not evaluated.
PairedComparison paired_comparison(const std::vector<std::string>& names,
                                   const std::vector<ReportData>& runs);
/// Returns the differences as a table with one row per method. Without differences it has no rows.
Table paired_table(const std::string& reference, const std::vector<PairedDifference>& differences);

}  // namespace kshot::report
