// One page about one run, or about several methods on the same tasks.
#pragma once

#include <vector>

#include "report/page.h"
#include "report/report_data.h"

namespace kshot::report {

/// The first run is the page's subject; others stand beside it.
Report run_page(const std::vector<const ReportData*>& runs, std::vector<TaskFigure> figures);

}  // namespace kshot::report
