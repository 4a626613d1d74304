// Reads the records that a training run leaves in its folder, in the form of a report.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "report/page.h"

namespace kshot::report {

/// Returns one curve per quantity of a metrics file (JSON lines). A missing file gives no curves.
/// Throws Error that names the file and the line for a record that kshot did not write.
std::vector<TrainingCurve> training_curves(const std::filesystem::path& file,
                                           const std::string& name);

/// Returns the facts of run.json in a run folder about the run and its sessions. A missing file
/// gives no facts. Throws Error for a file that is not a run record of kshot.
Facts environment(const std::filesystem::path& folder);

}  // namespace kshot::report
