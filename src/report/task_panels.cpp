#include "report/task_panels.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "report/svg.h"

namespace kshot::report {
namespace {

/// Extends a range by a task's true function and support points.
void extend_by_task(const TaskFigure& task, double& low, double& high) {
  extend_range(task.truth, low, high);
  for (const MethodFits& method : task.methods) {
    for (const Fit& fit : method.fits) extend_range(fit.support_y, low, high);
  }
}

/// Throws Error where a curve of the task has another length than its x, or a support point lacks
/// a coordinate.
void check_lengths(const TaskFigure& task) {
  const std::size_t n = task.x.size();
  if (!task.truth.empty()) check_length(task.truth.size(), n, task.title + ", true function");
  for (const MethodFits& method : task.methods) {
    const std::string name = task.title + ", " + method.method;
    for (const Fit& fit : method.fits) {
      check_length(fit.mean.size(), n, name + " mean");
      check_length(fit.support_y.size(), fit.support_x.size(), task.title + ", support points");
      for (const std::vector<double>& sample : fit.samples) {
        check_length(sample.size(), n, name + " sample");
      }
      for (const FitBand& band : fit.bands) {
        check_length(band.low.size(), n, name + " band");
        check_length(band.high.size(), n, name + " band");
      }
    }
  }
}

/// A range of y. It is empty (low > high) until a value is seen.
struct ValueRange {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
};

/// The range of all panels of a task, from the true function, the support points and the predicted
/// means. The means widen the range by no more than the range of the widest task, so that one bad
/// fit does not flatten the others. The bands then widen the range to at most twice its size.
ValueRange panel_range(const TaskFigure& task, const Report& report) {
  double widest = 0.0;
  for (const TaskFigure& other : report.tasks) {
    ValueRange range;
    extend_by_task(other, range.low, range.high);
    widest = std::max(widest, range.high - range.low);
  }
  ValueRange range, given;
  for (const MethodFits& method : task.methods) {
    for (const Fit& fit : method.fits) extend_range(fit.mean, range.low, range.high);
  }
  extend_by_task(task, given.low, given.high);
  if (given.low <= given.high) {
    range.low = std::min(given.low, std::max(range.low, given.low - widest));
    range.high = std::max(given.high, std::min(range.high, given.high + widest));
  }
  ValueRange wide = range;
  for (const MethodFits& method : task.methods) {
    for (const Fit& fit : method.fits) {
      for (const FitBand& band : fit.bands) {
        extend_range(band.low, wide.low, wide.high);
        extend_range(band.high, wide.low, wide.high);
      }
    }
  }
  const double reach = 0.5 * (range.high - range.low);
  return {std::max(wide.low, range.low - reach), std::min(wide.high, range.high + reach)};
}

/// The panel of one fit: bands from wide to narrow, samples, true function, mean, support points.
svg::Plot fit_plot(const TaskFigure& task, const Fit& fit, const ValueRange& range,
                   const std::string& color) {
  svg::Plot plot;
  plot.x.pad = 0.0;
  if (range.low <= range.high) {
    const double pad = std::max(0.08 * (range.high - range.low), 1e-9);
    plot.y.low = range.low - pad;
    plot.y.high = range.high + pad;
  }
  std::vector<const FitBand*> bands;
  for (const FitBand& band : fit.bands) bands.push_back(&band);
  std::sort(bands.begin(), bands.end(),
            [](const FitBand* a, const FitBand* b) { return a->level > b->level; });
  for (const FitBand* band : bands) {
    plot.band(task.x, band->low, band->high, {.color = color, .opacity = 0.17});
  }
  for (const std::vector<double>& sample : fit.samples) {
    plot.line(task.x, sample, {.color = color, .width = 0.8, .opacity = 0.6});
  }
  plot.line(task.x, task.truth, {.width = 1.4, .opacity = 0.75, .dash = "5 3"});
  plot.line(task.x, fit.mean, {.color = color, .width = 2.2});
  plot.points(fit.support_x, fit.support_y, {.width = 3.6, .tooltip = "support"});
  return plot;
}

std::string task_figure(const TaskFigure& task, const Report& report, Palette& palette) {
  check_lengths(task);
  const ValueRange range = panel_range(task, report);
  std::size_t columns = 1;
  for (const MethodFits& method : task.methods) columns = std::max(columns, method.fits.size());
  svg::Grid grid;
  grid.description = task.title;
  grid.panel_height = 140.0;
  grid.panel_width =
      std::clamp((page_width - 80.0) / static_cast<double>(columns) - 21.0, 160.0, 400.0);
  for (std::size_t m = 0; m < task.methods.size(); ++m) {
    const MethodFits& method = task.methods[m];
    const std::string color = palette.color(method.method);
    grid.row_titles.push_back(method.method);
    grid.rows.emplace_back();
    for (std::size_t f = 0; f < method.fits.size(); ++f) {
      svg::Plot plot = fit_plot(task, method.fits[f], range, color);
      if (m == 0) plot.title = method.fits[f].label;
      plot.x.tick_labels = m + 1 == task.methods.size();
      plot.y.tick_labels = f == 0;
      if (plot.x.tick_labels) plot.x.label = report.tasks_x_label;
      if (f == 0) plot.y.label = report.tasks_y_label;
      grid.rows.back().push_back(std::move(plot));
    }
  }
  return "<h3>" + svg::escape(task.title) + "</h3>\n" + figure(svg::render(grid));
}

}  // namespace

std::string tasks_section(const Report& report, Palette& palette) {
  if (report.tasks.empty()) return {};
  std::vector<LegendEntry> entries = {
      {.label = "true function", .color = "currentColor", .dash = "5 3", .opacity = 0.75},
      {.label = "support points", .color = "currentColor", .swatch = Swatch::marker}};
  std::set<double> levels;
  std::string band_color;
  bool samples = false;
  std::vector<std::string> names;
  for (const TaskFigure& task : report.tasks) {
    for (const MethodFits& method : task.methods) {
      if (std::find(names.begin(), names.end(), method.method) == names.end()) {
        names.push_back(method.method);
        entries.push_back({.label = method.method, .color = palette.color(method.method)});
      }
      for (const Fit& fit : method.fits) {
        samples = samples || !fit.samples.empty();
        for (const FitBand& band : fit.bands) {
          levels.insert(band.level);
          if (band_color.empty()) band_color = palette.color(method.method);
        }
      }
    }
  }
  if (samples) {
    entries.push_back({.label = "samples (thin)", .color = band_color, .opacity = 0.6});
  }
  double opacity = 0.0;
  std::vector<LegendEntry> shades;  // from the widest band, because bands lie upon each other
  for (auto level = levels.rbegin(); level != levels.rend(); ++level) {
    opacity = 1.0 - (1.0 - opacity) * (1.0 - 0.17);
    shades.push_back({.label = fmt::format("{:g} % band", 100.0 * *level),
                      .color = band_color,
                      .swatch = Swatch::area,
                      .opacity = opacity});
  }
  std::reverse(shades.begin(), shades.end());
  entries.insert(entries.end(), shades.begin(), shades.end());
  std::string out = heading("New tasks") + caption(report.tasks_caption) + legend(entries);
  for (const TaskFigure& task : report.tasks) out += task_figure(task, report, palette);
  return out;
}

}  // namespace kshot::report
