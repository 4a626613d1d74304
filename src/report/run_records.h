// The records that a training run leaves in its folder, as a report shows them.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "report/page.h"

namespace kshot::report {

/// One curve per quantity of a metrics file (JSON lines). A missing file gives no curves. Throws
/// Error with the file and the line for a record that is not one of kshot's.
std::vector<TrainingCurve> training_curves(const std::filesystem::path& file,
                                           const std::string& name);

/// What run.json in a run folder says about the run and its sessions. A missing file gives no
/// facts. Throws Error for a file that is not a run record of kshot.
Facts environment(const std::filesystem::path& folder);

}  // namespace kshot::report
