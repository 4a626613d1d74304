#include "report/task_figures.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/assembly.h"
#include "episodes/sources.h"
#include "kshot/learner.h"
#include "kshot/stop.h"
#include "metrics/metrics.h"

namespace kshot::report {
namespace {

constexpr int figure_samples = 100;
constexpr std::size_t samples_drawn = 8;
constexpr int query_rows = 400;

bool one_dimensional(const ReportData& run) {
  const Config& config = run.checkpoint.config;
  const Network network = config.make_network();
  return config.data.source != DataKind::file && network.input().size() == 1 &&
         (network.outputs() == 1 || is_closed_form(config.algorithm));
}

/// The tasks whose predictions are drawn.
struct DrawnTasks {
  TaskBatch support;
  std::vector<std::vector<float>> grids;  ///< inputs of the drawing, [tasks][x], ascending
  std::vector<TaskFigure> figures;        ///< figures that have only the true functions
};

/// Draws tasks with support points as in training, and with a dense query set without noise, which
/// shows the true function.
DrawnTasks draw_tasks(const Config& config, int tasks) {
  Config drawing = config;
  drawing.data.shots = *std::ranges::max_element(shots_drawn);
  drawing.data.queries = query_rows;
  drawing.data.noise_std = 0.0;
  const std::unique_ptr<EpisodeSource> dense = make_source(drawing);
  drawing.data.noise_std = config.data.noise_std;
  const std::unique_ptr<EpisodeSource> source = make_source(drawing);
  TaskBatch truth(dense->shape(), tasks);
  DrawnTasks drawn{TaskBatch(source->shape(), tasks), {}, {}};
  const TaskId id{config.evaluate.seed, Split::test, 0, 0};
  truth.draw(*dense, id, 0, tasks);
  drawn.support.draw(*source, id, 0, tasks);
  for (int t = 0; t < tasks; ++t) {
    std::vector<std::pair<float, float>> points;
    for (int i = 0; i < query_rows; ++i) {
      const auto at = static_cast<std::size_t>(t * query_rows + i);
      points.emplace_back(truth.query_x[at], truth.query_value[at]);
    }
    std::ranges::sort(points);
    TaskFigure figure;
    figure.title = fmt::format("Task {}", t + 1);
    std::vector<float>& grid = drawn.grids.emplace_back();
    for (const auto& [x, y] : points) {
      if (!grid.empty() && x == grid.back()) continue;
      figure.x.push_back(static_cast<double>(x));
      figure.truth.push_back(static_cast<double>(y));
      grid.push_back(x);
    }
    drawn.figures.push_back(std::move(figure));
  }
  return drawn;
}

/// Makes the panels of one run.
class Fitter {
 public:
  Fitter(const ReportData& run, const ReportOptions& options)
      : run_(run), learner_(run.folder, learner_options(run, options)) {}

  /// Returns the prior and the adapted predictions for a task with the support rows `x` and `y`.
  MethodFits fits(std::span<const float> x, std::span<const float> y,
                  const std::vector<float>& grid) const {
    const AlgorithmKind algorithm = run_.checkpoint.config.algorithm;
    MethodFits method;
    method.method = run_.name;
    for (const int shots : shots_drawn) {
      const auto k = static_cast<std::size_t>(shots);
      const std::vector<Prediction> steps =
          learner_.predict_steps({x.first(k), {}, y.first(k)}, grid);
      if (method.fits.empty() && has_prior(algorithm)) {
        method.fits.push_back(fit(learner_.predict({}, grid), "prior"));
      } else if (method.fits.empty() && !is_closed_form(algorithm)) {
        method.fits.push_back(fit(steps.front(), "prior"));
      }
      Fit adapted = fit(steps.back(), fmt::format("{} shot{}", shots, shots == 1 ? "" : "s"));
      adapted.support_x.assign(x.begin(), x.begin() + shots);
      adapted.support_y.assign(y.begin(), y.begin() + shots);
      method.fits.push_back(std::move(adapted));
    }
    return method;
  }

 private:
  static LearnerOptions learner_options(const ReportData& run, const ReportOptions& report) {
    LearnerOptions options;
    options.device = report.device;
    options.threads = report.threads;
    const AlgorithmKind algorithm = run.checkpoint.config.algorithm;
    if (algorithm == AlgorithmKind::abml || algorithm == AlgorithmKind::leo ||
        algorithm == AlgorithmKind::hvi) {
      options.overrides.push_back(fmt::format("evaluate.samples={}", figure_samples));
    }
    return options;
  }

  Fit fit(const Prediction& p, std::string label) const {
    Fit f;
    f.label = std::move(label);
    f.mean = p.mean;
    const bool own = !p.predictive_std.empty();
    if (p.samples == 1 && p.noise_std == 0.0 && !own) return f;
    for (const double level : {0.5, 0.9, 0.95}) f.bands.push_back({.level = level});
    std::vector<double> means(static_cast<std::size_t>(p.samples));
    for (std::size_t i = 0; i < p.mean.size(); ++i) {
      for (std::size_t s = 0; s < means.size(); ++s) means[s] = p.raw[s * p.mean.size() + i];
      std::ranges::sort(means);
      for (FitBand& band : f.bands) {
        const metrics::Band b =
            metrics::mixture_band(means, own ? p.predictive_std[i] : p.noise_std, band.level);
        band.low.push_back(b.low);
        band.high.push_back(b.high);
      }
    }
    // An estimator that draws noise for every row gives no sample that is one function of x.
    const Config& config = run_.checkpoint.config;
    const bool samples_are_functions =
        config.algorithm != AlgorithmKind::abml || config.abml.estimator == Estimator::weight;
    if (samples_are_functions && p.samples > 1) {
      for (std::size_t s = 0; s < std::min(means.size(), samples_drawn); ++s) {
        const auto begin = p.raw.begin() + static_cast<std::ptrdiff_t>(s * p.mean.size());
        f.samples.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(p.mean.size()));
      }
    }
    return f;
  }

  const ReportData& run_;
  Learner learner_;
};

}  // namespace

std::vector<TaskFigure> task_figures(const std::vector<const ReportData*>& runs, int tasks,
                                     const ReportOptions& options) {
  if (!std::ranges::all_of(runs, [](const ReportData* run) { return one_dimensional(*run); })) {
    return {};
  }
  DrawnTasks drawn = draw_tasks(runs.front()->checkpoint.config, tasks);
  const auto rows = static_cast<std::size_t>(drawn.support.shape().support);
  for (const ReportData* run : runs) {
    const Fitter fitter(*run, options);
    for (std::size_t t = 0; t < drawn.figures.size(); ++t) {
      if (options.stop && options.stop()) throw Stopped();
      const auto x = std::span<const float>(drawn.support.support_x).subspan(t * rows, rows);
      const auto y = std::span<const float>(drawn.support.support_value).subspan(t * rows, rows);
      drawn.figures[t].methods.push_back(fitter.fits(x, y, drawn.grids[t]));
    }
  }
  return std::move(drawn.figures);
}

}  // namespace kshot::report
