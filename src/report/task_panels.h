// The section of a report that shows what methods predict for new tasks.
#pragma once

#include <string>

#include "report/page.h"
#include "report/parts.h"

namespace kshot::report {

/// One figure per task of the report: a row per method and a panel per fit. Empty without tasks.
/// Throws Error where the vectors of a task have different lengths.
std::string tasks_section(const Report& report, Palette& palette);

}  // namespace kshot::report
