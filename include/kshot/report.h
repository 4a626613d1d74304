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
  std::string device = "auto";  ///< The device, as TrainerOptions::device.
  int threads = 0;              ///< Number of CPU threads; 0: all cores.
  /// True: show only what the run folder holds. False: evaluate the run where its evaluation is
  /// missing, and compute the error against the number of shots, and predictions for new tasks.
  bool quick = false;
  /// Evaluate although the data file is not the one that the run was trained on.
  bool allow_changed_data = false;
  /// A function that is called between pieces of work, as EvaluatorOptions::stop. Once it returns
  /// true, the work ends with Stopped. Empty: never.
  std::function<bool()> stop = {};
};

/// Names and values as text, in order: {"test accuracy", "97.3 ± 0.3 %"}.
using NamedTexts = std::vector<std::pair<std::string, std::string>>;

/// A page that was written, and its numbers.
struct RunReport {
  std::filesystem::path file;  ///< The page.
  std::string name;            ///< The name of the run on the page: "ABML".
  NamedTexts numbers;          ///< Headline numbers.
  /// The evaluation of the run. Absent where there is none.
  std::optional<Evaluation> evaluation;
  /// Numbers of support rows (per class), ascending, and the evaluations with them. May be empty.
  std::vector<std::pair<int, Evaluation>> by_shots;
};

/// Writes the page of a run folder to `out` (empty: report.html in the folder). Throws Error for a
/// folder that is no run, for an output that cannot be written, and where the data file is not that
/// of the training.
RunReport write_report(const std::filesystem::path& run, const std::filesystem::path& out = {},
                       const ReportOptions& options = {});

/// Evaluations out of distribution that were written.
struct OodReport {
  std::filesystem::path file;              ///< The numbers, JSON.
  std::filesystem::path page;              ///< The page with histograms of the scores.
  std::vector<OodEvaluation> evaluations;  ///< One evaluation per kind, in the order asked for.

  /// The tables of all kinds, for people to read.
  std::string table() const;
};

/// Calls evaluate_ood for every kind. The numbers go to `out` (empty: evaluation-ood.json in the
/// run folder, where reports look for it), and histograms to a page beside it (.html). Nothing is
/// written where one kind cannot be evaluated. With several processes (EvaluatorOptions::ranks)
/// rank 0 writes. Throws Error for no kinds, and where evaluate_ood throws.
OodReport write_ood(const std::filesystem::path& run, const std::vector<std::string>& kinds,
                    const std::filesystem::path& out = {}, const EvaluatorOptions& options = {});

/// The mean over episodes of a method's score minus that of the reference on the same episodes,
/// with the paired 95 % bootstrap interval over episodes.
struct PairedDifference {
  std::string method;  ///< Another run, or a baseline of the first run.
  /// Name of the score: "accuracy, %", "NLL", "Brier" or "AURC of an episode" for classification;
  /// "MSE", "NLL" or "CRPS" for regression.
  std::string metric;
  std::size_t episodes = 0;  ///< Number of episodes that have both scores.
  double value = 0.0,        ///< The mean difference.
      low = 0.0,             ///< Lower end of the interval; NaN for fewer than two episodes.
      high = 0.0;            ///< Upper end of the interval; NaN for fewer than two episodes.
};

/// Several runs side by side.
struct RunComparison {
  std::filesystem::path file;       ///< The page.
  std::vector<std::string> names;   ///< Unique names of the runs, [runs].
  std::vector<NamedTexts> numbers;  ///< Headline numbers of each run, [runs].
  /// One key of the configurations, and its value in every run.
  struct Setting {
    std::string key;                  ///< Table and key: "inner.steps".
    std::vector<std::string> values;  ///< TOML, [runs]; "(absent)" where the key does not apply.
  };
  std::vector<Setting> settings;              ///< The keys whose values differ between the runs.
  std::vector<PairedDifference> differences;  ///< Differences to the first run.
  /// The reasons why runs cannot be compared, one line each; empty where they can.
  std::vector<std::string> warnings;

  /// The numbers and differences as text for people to read.
  std::string text() const;
};

/// Compares run folders as they are (nothing is evaluated) and writes the page to `out` (empty:
/// comparison.html in the current folder). Throws Error for no runs, for a folder that is no run or
/// that is given twice, and for an output that cannot be written.
RunComparison compare_runs(const std::vector<std::filesystem::path>& runs,
                           const std::filesystem::path& out = {});

}  // namespace kshot
