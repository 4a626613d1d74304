// Renders a report from plain data as one self-contained HTML page, without scripts and external
// resources, for light and dark displays. Empty parts are left out. The caller writes the text to a
// file (io::write_file_atomic).
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

/// A table of texts. The first column is left-aligned, the others are right-aligned. The rows whose
/// numbers are in `strong` are emphasised (the run itself among its baselines).
struct Table {
  std::string title = {};
  std::string caption = {};
  std::vector<std::string> columns = {};
  std::vector<std::vector<std::string>> rows = {};
  std::vector<std::size_t> strong = {};
};

/// A quantity in the course of training. Curves of one `quantity` share a chart, which is drawn
/// against steps and, where every curve has seconds, against seconds. A name has the same colour in
/// the whole report. Curves are therefore named by method ("ABML") and told apart by `validation`.
struct TrainingCurve {
  std::string name = {};      ///< "ABML"
  std::string quantity = {};  ///< "loss", "accuracy"
  bool validation = false;    ///< true: drawn with markers; false: a thin line, smoothed where long
  std::vector<double> step = {};        ///< meta-steps, [n]
  std::vector<double> seconds = {};     ///< training time, [n], or empty
  std::vector<double> value = {};       ///< the quantity, [n]; a value that is not finite is a gap
  std::vector<double> half_width = {};  ///< half widths of 95 % intervals, [n], or empty
};

/// A method's error (or accuracy) against a count, such as the number of shots.
struct Curve {
  std::string name = {};
  std::vector<double> x = {};
  std::vector<Estimate> y = {};
};

/// Several methods side by side, with intervals.
struct Chart {
  std::string title = {};    ///< "Error against shots"
  std::string caption = {};  ///< says what is averaged, over how many episodes
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

/// One panel: a method's prediction for a task from some support points.
struct Fit {
  std::string label = {};                              ///< "prior", "1 shot"
  std::vector<double> support_x = {}, support_y = {};  ///< none for the prior
  std::vector<double> mean = {};                       ///< predicted mean, [x]
  std::vector<FitBand> bands = {};                     ///< none for a point estimate
  std::vector<std::vector<double>> samples = {};       ///< [sample][x], drawn as thin lines
};

/// The panels of one method for a task.
struct MethodFits {
  std::string method = {};     ///< "ABML"
  std::vector<Fit> fits = {};  ///< one per column, with the same labels for every method and task
};

/// A task with one-dimensional input: its true function and each method's fits.
struct TaskFigure {
  std::string title = {};          ///< "Task 1"
  std::vector<double> x = {};      ///< inputs of the drawing, ascending
  std::vector<double> truth = {};  ///< the true function, [x]; empty where it is not known
  std::vector<MethodFits> methods = {};
};

/// Observed shares of targets within central bands, beside the nominal shares.
struct BandCoverage {
  std::string name = {};                ///< "ABML, 5 shots"
  std::vector<double> nominal = {};     ///< 0.5, 0.9, 0.95
  std::vector<Estimate> observed = {};  ///< same length
};

/// The bins of a reliability diagram.
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
  std::string note = {};  ///< the likely cause, or empty
};

/// Pairs of name and value, in order.
using Facts = std::vector<std::pair<std::string, std::string>>;

/// The page of one run.
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
  std::string configuration = {};  ///< TOML with every key that applies
  Facts environment = {};          ///< versions, backend, machine, seed, command
};

/// One run among several.
struct ComparedRun {
  std::string name = {};  ///< unique
  /// Headline numbers, for example {"test accuracy", "97.3 ± 0.3 %"}. The table has a column for
  /// each name of any run, in order of first appearance.
  Facts numbers = {};
  std::vector<TrainingCurve> training = {};  ///< names are replaced by the run's name
  std::vector<Chart> charts = {};            ///< merged by title over runs
  std::vector<BandCoverage> coverage = {};
  std::vector<Reliability> reliability = {};
  std::vector<RiskCoverageCurve> risk_coverage = {};
  std::vector<PitDensities> pit = {};
  std::vector<Diverged> diverged = {};
  Facts configuration = {};  ///< "inner.steps" and its value; only differing keys are shown
  Facts environment = {};
};

/// The page of several runs.
struct Comparison {
  std::string title = {};
  std::string subtitle = {};
  std::vector<ComparedRun> runs = {};
  std::vector<Table> tables = {};  ///< paired differences
};

/// Returns the whole page, UTF-8. All text is escaped. Throws Error for curves of unequal lengths.
std::string render(const Report& report);
std::string render(const Comparison& comparison);

/// Returns "0.412 ± 0.031", where the interval has two significant digits and the mean as many
/// decimals; "0.412" without an interval.
std::string format(const Estimate& estimate);
/// Returns "97.31 ± 0.28 %" for a share in [0, 1].
std::string format_percent(const Estimate& estimate);

}  // namespace kshot::report
