// One page about one run, or about several methods on the same tasks.
#pragma once

#include <vector>

#include "cli/run_pieces.h"
#include "metrics/report.h"

namespace kshot::cli {

/// The first run is the page's subject; others stand beside it.
report::Report report_page(const std::vector<const RunPieces*>& runs,
                           std::vector<report::TaskFigure> figures);

}  // namespace kshot::cli
