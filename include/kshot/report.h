// Reports: run folders as self-contained HTML pages, and the numbers of these pages.
//
//   const kshot::RunReport report = kshot::write_report("runs/abml");
//   const kshot::RunComparison both = kshot::compare_runs({"runs/abml", "runs/maml"});
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kshot/evaluator.h"
#include "kshot/ood.h"

namespace kshot {

/// Options of write_report.
struct ReportOptions {
  std::string device = "auto";
  int threads = 0;  ///< 0: all cores
  /// Show only what the run folder holds; otherwise the run is evaluated where its evaluation is
  /// missing, and error against shots and predictions for new tasks are computed.
  bool quick = false;
  /// Evaluate although the data file is not the one that the run was trained on.
  bool allow_changed_data = false;
  /// Asked between pieces of work, as EvaluatorOptions::stop is. Once it says true, Stopped is
  /// thrown.
  std::function<bool()> stop = {};
};

/// Names and values as text, in order: {"test accuracy", "97.3 ± 0.3 %"}.
using NamedTexts = std::vector<std::pair<std::string, std::string>>;

/// A page that was written, and its numbers.
struct RunReport {
  std::filesystem::path file;
  std::string name;    ///< how the page calls the run: "ABML"
  NamedTexts numbers;  ///< headline numbers
  std::optional<Evaluation> evaluation;
  /// Evaluations with other numbers of support rows (per class), in ascending order; may be empty.
  std::vector<std::pair<int, Evaluation>> by_shots;
};

/// Writes the page of a run folder to `out` (empty: report.html in the folder). Throws Error for a
/// folder that is no run, an output that cannot be written, and where the data file is not that of
/// the training.
RunReport write_report(const std::filesystem::path& run, const std::filesystem::path& out = {},
                       const ReportOptions& options = {});

/// Evaluations out of distribution that were written.
struct OodReport {
  std::filesystem::path file;  ///< the numbers, JSON
  std::filesystem::path page;  ///< histograms of the scores
  std::vector<OodEvaluation> evaluations;

  /// The tables of all kinds, for people.
  std::string table() const;
};

/// evaluate_ood for every kind. The numbers go to `out` (empty: evaluation-ood.json in the run
/// folder, where reports look for them), histograms to a page beside it (.html). Nothing is written
/// where one kind cannot be evaluated. Of several processes (EvaluatorOptions::ranks) rank 0
/// writes. Throws Error for no kinds, and as evaluate_ood.
OodReport write_ood(const std::filesystem::path& run, const std::vector<std::string>& kinds,
                    const std::filesystem::path& out = {}, const EvaluatorOptions& options = {});

/// The mean over episodes of a method's value less that of the reference on the same episodes, with
/// the paired 95 % bootstrap interval over episodes (NaN for fewer than two episodes).
struct PairedDifference {
  std::string method;  ///< another run, or a baseline of the first run
  /// "accuracy, %", "NLL", "Brier", "AURC of an episode"; "MSE", "NLL", "CRPS".
  std::string metric;
  std::size_t episodes = 0;
  double value = 0.0, low = 0.0, high = 0.0;
};

/// Several runs side by side.
struct RunComparison {
  std::filesystem::path file;
  std::vector<std::string> names;   ///< [runs], unique
  std::vector<NamedTexts> numbers;  ///< [runs], headline numbers
  /// One key of the configurations, and its value in every run.
  struct Setting {
    std::string key;                  ///< "inner.steps"
    std::vector<std::string> values;  ///< [runs], as TOML; "(absent)" where the key does not apply
  };
  std::vector<Setting> settings;              ///< those that differ
  std::vector<PairedDifference> differences;  ///< to the first run
  /// Why runs cannot be compared, one line each; empty where they can.
  std::vector<std::string> warnings;

  /// The numbers and differences as text for people.
  std::string text() const;
};

/// Compares run folders as they are (nothing is evaluated) and writes the page to `out` (empty:
/// comparison.html in the current folder). Throws Error for no runs, a folder that is no run, one
/// that is given twice, and an output that cannot be written.
RunComparison compare_runs(const std::vector<std::filesystem::path>& runs,
                           const std::filesystem::path& out = {});

}  // namespace kshot
