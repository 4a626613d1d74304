// What reports are made of, gathered from run folders.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/commands.h"
#include "engine/checkpoint.h"
#include "kshot/evaluator.h"
#include "metrics/report.h"

namespace kshot::cli {

/// A run folder, and what was computed from it for a report.
struct RunPieces {
  std::filesystem::path folder;
  std::string name;  ///< how reports call it
  Checkpoint checkpoint;
  std::vector<report::TrainingCurve> training;
  report::Facts environment;
  std::optional<Evaluation> evaluation;
  std::vector<std::pair<int, Evaluation>> by_shots;  ///< shots and what they gave
};

/// What `kshot evaluate RUN --shots 1,5` writes into the run folder.
inline constexpr const char* shots_file = "evaluation-shots.json";

/// Reads the folder; evaluation.json and evaluation-shots.json only where they are there, and the
/// latter only where it is of the run's best checkpoint.
RunPieces read_run(const std::filesystem::path& folder);
/// "ABML": how reports call an algorithm.
std::string method_name(const std::string& algorithm);

/// Fills what `evaluation` and `by_shots` lack. Throws Error where the data file is not that of the
/// training, unless `allow_changed_data` is set.
void study_run(RunPieces& run, const Machine& machine, bool allow_changed_data);
/// New one-dimensional tasks and every run's predictions for them: the prior, then after 1, 5 and
/// 10 support points. Empty for other sources than sinusoids.
std::vector<report::TaskFigure> task_figures(const std::vector<const RunPieces*>& runs, int tasks,
                                             const Machine& machine);

// Parts of a report.
report::Estimate estimate(const Statistic& s);
std::vector<report::Chart> charts(const RunPieces& run);
/// Accuracy or error against shots, of a run called `name` and the baselines.
report::Chart shots_chart(const std::string& name,
                          const std::vector<std::pair<int, Evaluation>>& by_shots);
std::vector<report::BandCoverage> coverage(const RunPieces& run);
std::vector<report::Reliability> reliability(const RunPieces& run);
std::vector<report::RiskCoverageCurve> risk_coverage(const RunPieces& run);
std::vector<report::PitDensities> pit(const RunPieces& run);
std::vector<report::Diverged> diverged(const RunPieces& run);
std::vector<report::Table> tables(const RunPieces& run);
/// Headline numbers of the evaluation, with what they hold for, and of the validation.
report::Facts numbers(const RunPieces& run);
/// "test episodes": of the split that was evaluated.
std::string episodes_text(const Evaluation& evaluation);

}  // namespace kshot::cli
