// The section of a report's learning curves.
#pragma once

#include <string>
#include <vector>

#include "report/page.h"
#include "report/parts.h"

namespace kshot::report {

/// One row of charts per quantity, against steps and, where all curves have them, seconds. Empty
/// without curves. Throws Error where the vectors of a curve have different lengths.
std::string training_section(const std::vector<TrainingCurve>& curves, Palette& palette);

}  // namespace kshot::report
