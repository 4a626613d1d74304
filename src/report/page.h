// The report: one self-contained HTML page (no scripts, no external resources; readable in light
// and dark) from plain data. What is left empty is left out. Rendering gives text; the caller
// writes it (io::write_file_atomic).
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "metrics/metrics.h"

namespace kshot::report {

using metrics::Estimate;

/// A headline number: "accuracy", "97.3 ± 0.3 %", "MAML, 600 episodes".
struct Card {
  std::string label = {};
  std::string value = {};
  std::string note = {};
};

/// Cells are text. The first column is left-aligned, the others right; rows in `strong` stand out
/// (the run itself among its baselines).
struct Table {
  std::string title = {};
  std::string caption = {};
  std::vector<std::string> columns = {};
  std::vector<std::vector<std::string>> rows = {};
  std::vector<std::size_t> strong = {};
};

/// A quantity as training went. Curves of one `quantity` share a chart, which is drawn against
/// steps and, where every curve has them, against seconds. One name keeps one colour through the
/// report, so name curves by method ("ABML") and set apart by `validation`.
struct TrainingCurve {
  std::string name = {};          ///< "ABML"
  std::string quantity = {};      ///< "loss", "accuracy"
  bool validation = false;        ///< drawn with markers; else a thin (where long, smoothed) line
  std::vector<double> step = {};  ///< [n]
  std::vector<double> seconds = {};     ///< [n] of training, or empty
  std::vector<double> value = {};       ///< [n]; not finite: a gap
  std::vector<double> half_width = {};  ///< [n] 95 % interval, or empty
};

/// A method's error (or accuracy) against something counted.
struct Curve {
  std::string name = {};
  std::vector<double> x = {};
  std::vector<Estimate> y = {};
};

/// Several methods side by side, with intervals.
struct Chart {
  std::string title = {};    ///< "Error against shots"
  std::string caption = {};  ///< what is averaged, over how many episodes
  std::string x_label = {};  ///< "support points"
  std::string y_label = {};  ///< "mean squared error"
  bool log_x = false;
  bool log_y = false;
  std::vector<Curve> curves = {};
};

/// A central band of a predictive distribution along TaskFigure::x.
struct FitBand {
  double level = 0.0;  ///< 0.9
  std::vector<double> low = {}, high = {};
};

/// One panel: what a method predicts for a task from some support points.
struct Fit {
  std::string label = {};                              ///< "prior", "1 shot"
  std::vector<double> support_x = {}, support_y = {};  ///< none for the prior
  std::vector<double> mean = {};                       ///< [x]
  std::vector<FitBand> bands = {};                     ///< none for a point estimate
  std::vector<std::vector<double>> samples = {};       ///< [sample][x], drawn as thin lines
};

struct MethodFits {
  std::string method = {};     ///< "ABML"
  std::vector<Fit> fits = {};  ///< the columns, the same labels for every method and task
};

/// A task with one-dimensional input: its true function and each method's fits.
struct TaskFigure {
  std::string title = {};          ///< "Task 1"
  std::vector<double> x = {};      ///< grid, ascending
  std::vector<double> truth = {};  ///< [x]; empty where not known
  std::vector<MethodFits> methods = {};
};

/// Observed share of targets within central bands, beside the nominal one.
struct BandCoverage {
  std::string name = {};                ///< "ABML, 5 shots"
  std::vector<double> nominal = {};     ///< 0.5, 0.9, 0.95
  std::vector<Estimate> observed = {};  ///< same length
};

struct Reliability {
  std::string name = {};
  double ece = 0.0;
  std::vector<metrics::ReliabilityBin> bins = {};
};

/// The share of wrong answers against the share of rows that are answered.
struct RiskCoverageCurve {
  std::string name = {};
  double aurc = 0.0;                  ///< area under the curve
  std::vector<double> coverage = {};  ///< ascending
  std::vector<double> risk = {};      ///< same length
};

/// Densities of the probability integral transforms in bins of equal width over [0, 1].
struct PitDensities {
  std::string name = {};
  std::vector<double> densities = {};
};

/// Tasks whose inner loop left the finite range.
struct Diverged {
  std::string phase = {};  ///< "training", "test episodes"
  std::uint64_t diverged = 0;
  std::uint64_t tasks = 0;
  std::string note = {};  ///< likely cause, or empty
};

/// Pairs of name and value, in order.
using Facts = std::vector<std::pair<std::string, std::string>>;

struct Report {
  std::string title = {};
  std::string subtitle = {};
  std::vector<Card> cards = {};
  std::vector<std::string> notes = {};  ///< paragraphs below the cards
  std::vector<TrainingCurve> training = {};
  std::vector<TaskFigure> tasks = {};
  std::string tasks_caption = {};
  std::string tasks_x_label = {}, tasks_y_label = {};
  std::vector<Chart> charts = {};  ///< error against shots, against inner steps
  std::vector<BandCoverage> coverage = {};
  std::string coverage_caption = {};
  std::vector<Reliability> reliability = {};
  std::vector<RiskCoverageCurve> risk_coverage = {};
  std::vector<PitDensities> pit = {};
  std::vector<Table> tables = {};
  std::vector<Diverged> diverged = {};
  std::string configuration = {};  ///< TOML as resolved
  Facts environment = {};          ///< versions, backend, machine, seed, command
};

/// One run among several.
struct ComparedRun {
  std::string name = {};  ///< unique
  /// Headline numbers, e.g. {"test accuracy", "97.3 ± 0.3 %"}: columns of the table, united over
  /// the runs in order of first appearance.
  Facts numbers = {};
  std::vector<TrainingCurve> training = {};  ///< names are replaced by the run's
  std::vector<Chart> charts = {};            ///< merged by title over runs
  std::vector<BandCoverage> coverage = {};
  std::vector<Reliability> reliability = {};
  std::vector<RiskCoverageCurve> risk_coverage = {};
  std::vector<PitDensities> pit = {};
  std::vector<Diverged> diverged = {};
  Facts configuration = {};  ///< dotted key and value; keys whose values differ are shown
  Facts environment = {};
};

struct Comparison {
  std::string title = {};
  std::string subtitle = {};
  std::vector<ComparedRun> runs = {};
  std::vector<Table> tables = {};  ///< paired differences
};

/// The whole page, UTF-8. All text is escaped; curves of unequal lengths throw Error.
std::string render(const Report& report);
std::string render(const Comparison& comparison);

/// "0.412 ± 0.031": the interval to two digits, the mean as far; "0.412" where it has none.
std::string format(const Estimate& estimate);
/// "97.31 ± 0.28 %" of a share in [0, 1].
std::string format_percent(const Estimate& estimate);

}  // namespace kshot::report
