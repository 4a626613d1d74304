// What reports are made of, gathered from run folders.
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

/// A run folder, and what was computed from it for a report.
struct ReportData {
  std::filesystem::path folder;
  std::string name;  ///< how reports call it
  Checkpoint checkpoint;
  std::vector<TrainingCurve> training;
  Facts environment;
  std::optional<Evaluation> evaluation;
  std::vector<std::pair<int, Evaluation>> by_shots;  ///< shots and what they gave
  std::vector<OodEvaluation> ood;                    ///< kinds of rows out of distribution
};

/// What `kshot evaluate RUN --shots 1,5` writes into the run folder.
inline constexpr const char* shots_file = "evaluation-shots.json";
/// What `kshot evaluate RUN --ood KIND` writes into the run folder.
inline constexpr const char* ood_file = "evaluation-ood.json";

/// Reads the folder. Evaluations are read where they are there; those with other shots and out of
/// distribution are left out where they are not of the run's best checkpoint.
ReportData read_run(const std::filesystem::path& folder);
/// Numbers of support rows (per class) whose predictions and coverage are drawn.
inline constexpr std::array shots_drawn = {1, 5, 10};

/// "ABML": how reports call an algorithm.
std::string method_name(const std::string& algorithm);

/// Fills what `evaluation` and `by_shots` lack. Throws Error where the data file is not that of the
/// training, unless ReportOptions::allow_changed_data is set.
void study_run(ReportData& run, const ReportOptions& options);
// Parts of a report.
Estimate estimate(const Statistic& s);
std::vector<Chart> charts(const ReportData& run);
/// Accuracy or error against shots, of a run called `name` and the baselines.
Chart shots_chart(const std::string& name, const std::vector<std::pair<int, Evaluation>>& by_shots);
/// Histograms of the scores that tell rows out of distribution from others.
std::vector<Chart> ood_charts(const std::vector<OodEvaluation>& all);
std::vector<BandCoverage> coverage(const ReportData& run);
std::vector<Reliability> reliability(const ReportData& run);
std::vector<RiskCoverageCurve> risk_coverage(const ReportData& run);
std::vector<PitDensities> pit(const ReportData& run);
std::vector<Diverged> diverged(const ReportData& run);
std::vector<Table> tables(const ReportData& run);
/// Headline numbers of the evaluation, with what they hold for, and of the validation.
Facts numbers(const ReportData& run);
/// "test episodes": of the split that was evaluated.
std::string episodes_text(const Evaluation& evaluation);

}  // namespace kshot::report
