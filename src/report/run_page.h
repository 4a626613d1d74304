// Makes the page of one run, or of several methods on the same tasks.
#pragma once

#include <vector>

#include "report/page.h"
#include "report/report_data.h"

namespace kshot::report {

/// Makes the page of the first run, with the other runs beside it.
Report run_page(const std::vector<const ReportData*>& runs, std::vector<TaskFigure> figures);

}  // namespace kshot::report
