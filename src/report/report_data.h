// Reads run folders, and makes the parts of reports from them.
#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/checkpoint.h"
#include "kshot/ood.h"
#include "kshot/report.h"
#include "report/page.h"

namespace kshot::report {

/// The content of a run folder, and the evaluations that were computed for a report.
struct ReportData {
  std::filesystem::path folder;
  std::string name;  ///< name of the run in reports
  Checkpoint checkpoint;
  std::vector<TrainingCurve> training;
  Facts environment;
  std::optional<Evaluation> evaluation;
  std::vector<std::pair<int, Evaluation>> by_shots;  ///< numbers of shots, and their evaluations
  std::vector<OodEvaluation> ood;                    ///< one per kind of rows out of distribution
};

/// File in the run folder that `kshot evaluate RUN --shots 1,5` writes.
inline constexpr const char* shots_file = "evaluation-shots.json";
/// File in the run folder that `kshot evaluate RUN --ood KIND` writes.
inline constexpr const char* ood_file = "evaluation-ood.json";

/// Reads the folder with the evaluations that it holds. Evaluations of another checkpoint than the
/// run's best one are left out.
ReportData read_run(const std::filesystem::path& folder);
/// Numbers of support rows (per class) whose predictions and coverage are drawn.
inline constexpr std::array shots_drawn = {1, 5, 10};

/// Returns the name of an algorithm in reports: "ABML".
std::string method_name(const std::string& algorithm);

/// Computes `evaluation` and `by_shots` where they are missing. Throws Error where the data file is
/// not that of the training, unless ReportOptions::allow_changed_data is set.
void add_missing_evaluations(ReportData& run, const ReportOptions& options);
// Parts of a report.
Estimate estimate(const Statistic& s);
std::vector<Chart> charts(const ReportData& run);
/// Makes the chart of accuracy or error against shots, for a run called `name` and the baselines.
Chart shots_chart(const std::string& name, const std::vector<std::pair<int, Evaluation>>& by_shots);
/// Makes histograms of the scores that tell rows out of distribution from others.
std::vector<Chart> ood_charts(const std::vector<OodEvaluation>& all);
std::vector<BandCoverage> coverage(const ReportData& run);
std::vector<Reliability> reliability(const ReportData& run);
std::vector<RiskCoverageCurve> risk_coverage(const ReportData& run);
std::vector<PitDensities> pit(const ReportData& run);
std::vector<Diverged> diverged(const ReportData& run);
std::vector<Table> tables(const ReportData& run);
/// Returns the headline numbers of the evaluation, with their conditions, and of the validation.
Facts numbers(const ReportData& run);
/// Returns "test episodes", by the split that was evaluated.
std::string episodes_text(const Evaluation& evaluation);

}  // namespace kshot::report
