// Draws predictions for new tasks with one input beside the true function.
#pragma once

#include <vector>

#include "report/page.h"
#include "report/report_data.h"

namespace kshot::report {

/// Returns new one-dimensional tasks and every run's predictions for them: the prior, then after 1,
/// 5 and 10 support points. Empty for other sources than sinusoids.
std::vector<TaskFigure> task_figures(const std::vector<const ReportData*>& runs, int tasks,
                                     const ReportOptions& options);

}  // namespace kshot::report
