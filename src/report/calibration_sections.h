// The sections of a report that show how far predictions can be trusted. Each function returns an
// empty text where there is nothing to show.
#pragma once

#include <string>
#include <vector>

#include "report/page.h"
#include "report/parts.h"

namespace kshot::report {

std::string coverage_section(const std::vector<BandCoverage>& coverage, const std::string& text,
                             Palette& palette);
std::string reliability_section(const std::vector<Reliability>& all, Palette& palette);
std::string risk_coverage_section(const std::vector<RiskCoverageCurve>& all, Palette& palette);
std::string pit_section(const std::vector<PitDensities>& all, Palette& palette);

}  // namespace kshot::report
