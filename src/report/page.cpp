#include "report/page.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <limits>
#include <map>
#include <set>

#include "kshot/error.h"
#include "report/calibration_sections.h"
#include "report/parts.h"
#include "report/svg.h"

namespace kshot::report {
namespace {

using svg::escape;

constexpr double kPageWidth = 1080.0;    // width of the text column, pixels
constexpr std::size_t kSmoothFrom = 40;  // training curves with more points are smoothed

// Colours have a contrast of at least 3:1 to their background, and also differ in lightness.
constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --bg: #ffffff; --fg: #1c2026; --soft: #5a6370; --line: #e2e5ea;
  --panel: #f6f7f9; --strong: #eaf1fb;
  --c0: #2166ac; --c1: #c85200; --c2: #2b7f5a; --c3: #8a3fa0; --c4: #a8842c; --c5: #b82e4e;
  --c6: #59626e; }
@media screen and (prefers-color-scheme: dark) {
  :root { --bg: #14171b; --fg: #e4e7eb; --soft: #a0a9b5; --line: #2d333b; --panel: #1b1f25;
    --strong: #1d2a3d;
    --c0: #6fb1f2; --c1: #ff9a4d; --c2: #62c79a; --c3: #cc8be0; --c4: #dcb95c; --c5: #f47f9a;
    --c6: #a9b3bf; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--fg);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1144px; margin: 0 auto; padding: 36px 32px 64px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 44px 0 10px; padding-top: 18px; border-top: 1px solid var(--line); }
h3 { font-size: 15px; margin: 22px 0 6px; }
p { margin: 6px 0 12px; max-width: 78ch; }
.subtitle, .caption, .card .label, .card .note { color: var(--soft); }
.caption { font-size: 13.5px; }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 22px 0; }
.card { background: var(--panel); border: 1px solid var(--line); border-radius: 8px;
  padding: 12px 16px; min-width: 165px; flex: 1 1 165px; max-width: 340px; }
.card .label, .card .note { font-size: 13px; }
.card .value { font-size: 19px; font-weight: 600; line-height: 1.35;
  font-variant-numeric: tabular-nums; }
.row { display: flex; flex-wrap: wrap; gap: 8px 28px; }
figure { margin: 0 0 14px; max-width: 100%; }
.scroll { overflow-x: auto; }
.plot { display: block; font-family: inherit; }
.plot .grid line { stroke: var(--line); stroke-width: 1; }
.plot .axis { fill: none; stroke: var(--soft); stroke-width: 1; }
.plot .ticks { fill: var(--soft); font-size: 11.5px; font-variant-numeric: tabular-nums; }
.plot .title { font-weight: 600; font-size: 13px; }
.plot .note { font-size: 11px; paint-order: stroke; stroke: var(--bg); stroke-width: 3;
  stroke-linejoin: round; font-variant-numeric: tabular-nums; }
.plot .points path { stroke: var(--bg); stroke-width: 0.8; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; font-size: 13px; margin: 4px 0 8px; }
.legend span { display: inline-flex; align-items: center; gap: 6px; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 14px 5px 0; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { color: var(--soft); font-weight: 600; font-size: 13px; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; padding-left: 8px; }
tr.strong td { background: var(--strong); font-weight: 600; }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; vertical-align: top; }
.facts td:first-child, .facts th:first-child { color: var(--soft); white-space: nowrap; }
.facts th { text-align: left; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 12px 16px;
  overflow-x: auto; font: 12.5px/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
summary { cursor: pointer; font-weight: 600; margin: 8px 0; }
@media print {
  :root { color-scheme: light; }
  main { max-width: none; padding: 0; }
  .scroll { overflow: visible; }
  .plot { max-width: 100%; height: auto; }
  figure, .card, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  table, th { font-size: 10px; }
  th, td { padding-right: 6px; white-space: normal; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; overflow: visible; } }
)";

std::string html_page(const std::string& title, const std::string& body) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"generator\" content=\"kshot\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>{}</title>\n<style>{}</style>\n</head>\n<body>\n<main>\n{}</main>\n</body>\n</"
      "html>\n",
      escape(title), kStyle, body);
}

/// Returns a table with a name and one value per column in each row.
std::string facts_table(const std::vector<std::string>& columns,
                        const std::vector<std::vector<std::string>>& rows) {
  std::string out = "<div class=\"scroll\"><table class=\"facts\">\n";
  if (!columns.empty()) {
    out += "<thead><tr>";
    for (const std::string& column : columns) out += "<th>" + escape(column) + "</th>";
    out += "</tr></thead>\n";
  }
  out += "<tbody>\n";
  for (const auto& row : rows) {
    out += "<tr>";
    for (const std::string& cell : row) out += "<td>" + escape(cell) + "</td>";
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

// ---- learning curves ----

/// Reduces a curve to at most `limit` points, the means of groups of neighbouring points. A group
/// without finite values is a gap.
void downsample(std::vector<double>& x, std::vector<double>& y, std::size_t limit) {
  const std::size_t n = x.size();
  if (n <= limit) return;
  std::vector<double> xs, ys;
  for (std::size_t g = 0; g < limit; ++g) {
    const std::size_t first = g * n / limit;
    const std::size_t last = (g + 1) * n / limit;
    double sum_x = 0.0, sum_y = 0.0;
    std::size_t finite = 0;
    for (std::size_t i = first; i < last; ++i) {
      sum_x += x[i];
      if (!std::isfinite(y[i])) continue;
      sum_y += y[i];
      ++finite;
    }
    xs.push_back(sum_x / static_cast<double>(last - first));
    ys.push_back(finite > 0 ? sum_y / static_cast<double>(finite)
                            : std::numeric_limits<double>::quiet_NaN());
  }
  x.swap(xs);
  y.swap(ys);
}

std::vector<double> running_mean(const std::vector<double>& y, std::size_t reach) {
  std::vector<double> out(y.size());
  for (std::size_t i = 0; i < y.size(); ++i) {
    const std::size_t near = std::min({reach, i, y.size() - 1 - i});
    double sum = 0.0;
    std::size_t finite = 0;
    for (std::size_t j = i - near; j <= i + near; ++j) {
      if (!std::isfinite(y[j])) continue;
      sum += y[j];
      ++finite;
    }
    out[i] =
        finite > 0 ? sum / static_cast<double>(finite) : std::numeric_limits<double>::quiet_NaN();
  }
  return out;
}

bool wants_log(const std::vector<const TrainingCurve*>& curves) {
  double low = std::numeric_limits<double>::infinity();
  double high = 0.0;
  for (const TrainingCurve* curve : curves) {
    for (double value : curve->value) {
      if (!std::isfinite(value)) continue;
      low = std::min(low, value);
      high = std::max(high, value);
    }
  }
  return low > 0.0 && high > 20.0 * low;
}

void extend_range(const std::vector<double>& values, double& low, double& high) {
  for (double value : values) {
    if (!std::isfinite(value)) continue;
    low = std::min(low, value);
    high = std::max(high, value);
  }
}

svg::Plot training_plot(const std::vector<const TrainingCurve*>& curves, bool against_time,
                        Palette& palette) {
  svg::Plot plot;
  plot.x.label = against_time ? "seconds of training" : "meta-step";
  plot.x.pad = 0.01;
  plot.y.log = wants_log(curves);
  for (const bool validation : {false, true}) {
    for (const TrainingCurve* curve : curves) {
      if (curve->validation != validation) continue;
      svg::Style style{.color = palette.color(curve->name)};
      style.tooltip = curve->name;
      std::vector<double> x = against_time ? curve->seconds : curve->step;
      std::vector<double> y = curve->value;
      if (validation) {
        style.dash = "5 3";
        plot.line(x, y, style);
        style.dash.clear();
        if (x.size() <= 60) {
          if (!curve->half_width.empty()) plot.error_bars(x, y, curve->half_width, style);
          style.width = 3.4;
          plot.points(x, y, style);
        }
        continue;
      }
      downsample(x, y, 500);
      if (y.size() > kSmoothFrom) {
        svg::Style faint = style;
        faint.width = 1.0;
        faint.opacity = 0.3;
        plot.line(x, y, faint);
        y = running_mean(y, y.size() / kSmoothFrom);
      }
      plot.line(x, y, style);
      if (y.size() == 1) plot.points(x, y, style);  // a line needs two points
    }
  }
  return plot;
}

std::string training_section(const std::vector<TrainingCurve>& curves, Palette& palette) {
  if (curves.empty()) return {};
  std::vector<std::string> quantities;
  for (const TrainingCurve& curve : curves) {
    const std::string name = "training curve " + curve.name;
    check_length(curve.step.size(), curve.value.size(), name + ", steps");
    if (!curve.seconds.empty()) {
      check_length(curve.seconds.size(), curve.value.size(), name + ", seconds");
    }
    if (!curve.half_width.empty()) {
      check_length(curve.half_width.size(), curve.value.size(), name + ", intervals");
    }
    if (std::find(quantities.begin(), quantities.end(), curve.quantity) == quantities.end()) {
      quantities.push_back(curve.quantity);
    }
  }
  svg::Grid grid;
  grid.description = "Learning curves";
  grid.panel_height = 230.0;
  bool training = false, validation = false, timed = false;
  for (const std::string& quantity : quantities) {
    std::vector<const TrainingCurve*> group;
    for (const TrainingCurve& curve : curves) {
      if (curve.quantity == quantity) group.push_back(&curve);
      (curve.validation ? validation : training) = true;
    }
    grid.rows.emplace_back();
    grid.rows.back().push_back(training_plot(group, false, palette));
    grid.rows.back().back().y.label = quantity;
    if (std::all_of(group.begin(), group.end(),
                    [](const TrainingCurve* c) { return !c->seconds.empty(); })) {
      grid.rows.back().push_back(training_plot(group, true, palette));
      timed = true;
    }
  }
  grid.panel_width = timed ? 445.0 : 760.0;
  // The charts of the quantities stand below each other, with one range of steps and of seconds.
  for (std::size_t column = 0; column < 2; ++column) {
    double low = std::numeric_limits<double>::infinity();
    double high = -low;
    for (const TrainingCurve& curve : curves)
      extend_range(column == 0 ? curve.step : curve.seconds, low, high);
    const double pad = 0.01 * (high - low);
    for (auto& row : grid.rows) {
      if (column >= row.size() || !(low < high)) continue;
      row[column].x.low = low - pad;
      row[column].x.high = high + pad;
    }
  }
  std::string about;
  const auto smoothed = [](const TrainingCurve& c) {
    return !c.validation && c.value.size() > kSmoothFrom;
  };
  if (std::any_of(curves.begin(), curves.end(), smoothed)) {
    about += "Faint lines are as logged, strong ones their running mean. ";
  }
  if (std::any_of(curves.begin(), curves.end(),
                  [](const TrainingCurve& c) { return !c.half_width.empty(); })) {
    about += "Bars are 95 % confidence intervals over validation episodes.";
  }
  std::vector<LegendEntry> entries;
  std::vector<std::string> names;
  for (const TrainingCurve& curve : curves) {
    if (std::find(names.begin(), names.end(), curve.name) != names.end()) continue;
    names.push_back(curve.name);
    entries.push_back(
        {.label = curve.name, .color = palette.color(curve.name), .swatch = Swatch::area});
  }
  if (training) entries.push_back({.label = "training", .color = "currentColor"});
  if (validation) {
    entries.push_back({.label = "validation", .color = "currentColor", .dash = "5 3"});
  }
  return heading("Learning curves") + legend(entries) + figure(svg::render(grid)) + caption(about);
}

// ---- fits to tasks ----

/// Extends a range by a task's true function and support points.
void extend_range(const TaskFigure& task, double& low, double& high) {
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
    extend_range(other, range.low, range.high);
    widest = std::max(widest, range.high - range.low);
  }
  ValueRange range, given;
  for (const MethodFits& method : task.methods) {
    for (const Fit& fit : method.fits) extend_range(fit.mean, range.low, range.high);
  }
  extend_range(task, given.low, given.high);
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
      std::clamp((kPageWidth - 80.0) / static_cast<double>(columns) - 21.0, 160.0, 400.0);
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
  return "<h3>" + escape(task.title) + "</h3>\n" + figure(svg::render(grid));
}

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

// ---- charts ----

std::string chart(const Chart& c, double width, Palette& palette) {
  svg::Plot plot;
  plot.title = c.title;
  plot.x.label = c.x_label;
  plot.y.label = c.y_label;
  plot.x.log = c.log_x;
  plot.y.log = c.log_y;
  std::set<double> xs;
  std::vector<std::string> names;
  for (const Curve& curve : c.curves) {
    check_length(curve.y.size(), curve.x.size(), "curve " + curve.name);
    xs.insert(curve.x.begin(), curve.x.end());
    names.push_back(curve.name);
  }
  plot.x.integers =
      std::all_of(xs.begin(), xs.end(), [](double x) { return std::nearbyint(x) == x; });
  if (plot.x.integers && xs.size() <= 8) {  // few numbers are the ticks themselves
    for (double x : xs) plot.x.ticks.push_back({x, svg::number(x, 6)});
  }
  const std::vector<Look> looks = palette.looks(names);
  std::vector<LegendEntry> entries;
  for (std::size_t i = 0; i < c.curves.size(); ++i) {
    const Curve& curve = c.curves[i];
    std::vector<double> mean, half;
    for (const Estimate& e : curve.y) {
      mean.push_back(e.mean);
      half.push_back(e.half_width);
    }
    svg::Style style{.color = looks[i].color, .dash = looks[i].dash()};
    style.shift = 4.0 * (static_cast<double>(i) - 0.5 * static_cast<double>(c.curves.size() - 1));
    style.tooltip = curve.name;
    plot.line(curve.x, mean, style);
    style.dash.clear();
    plot.error_bars(curve.x, mean, half, style);
    style.width = 3.6;
    style.marker = looks[i].marker();
    plot.points(curve.x, mean, style);
    entries.push_back({.label = curve.name, .color = looks[i].color, .dash = looks[i].dash()});
  }
  svg::Grid grid;
  grid.description = c.title;
  grid.panel_width = width;
  grid.panel_height = 240.0;
  grid.rows.push_back({plot});
  return figure(svg::render(grid), legend(entries) + caption(c.caption));
}

std::string charts_section(const std::vector<Chart>& charts, Palette& palette) {
  if (charts.empty()) return {};
  std::string out = heading("Error and adaptation") + "<div class=\"row\">\n";
  for (const Chart& c : charts) out += chart(c, charts.size() > 1 ? 440.0 : 640.0, palette);
  return out + "</div>\n";
}

// ---- the rest ----

std::string cards_block(const std::vector<Card>& cards) {
  if (cards.empty()) return {};
  std::string out = "<div class=\"cards\">\n";
  for (const Card& card : cards) {
    out += "<div class=\"card\"><div class=\"label\">" + escape(card.label) +
           "</div><div class=\"value\">" + escape(card.value) + "</div>";
    if (!card.note.empty()) out += "<div class=\"note\">" + escape(card.note) + "</div>";
    out += "</div>\n";
  }
  return out + "</div>\n";
}

std::vector<std::string> diverged_row(const Diverged& d) {
  const double share =
      d.tasks > 0 ? 100.0 * static_cast<double>(d.diverged) / static_cast<double>(d.tasks) : 0.0;
  return {d.phase, std::to_string(d.diverged), std::to_string(d.tasks),
          fmt::format("{} %", svg::number(share)), d.note};
}

std::string diverged_section(std::vector<std::vector<std::string>> rows, bool with_run) {
  if (rows.empty()) return {};
  Table t;
  t.columns = {"phase", "diverged", "tasks", "share", ""};
  if (with_run) t.columns.insert(t.columns.begin(), "run");
  t.rows = std::move(rows);
  return heading("Diverged tasks") +
         caption("Tasks whose inner loop left the finite range: masked out of every mean.") +
         table(t);
}

std::string title_block(const std::string& title, const std::string& subtitle) {
  std::string out = "<h1>" + escape(title) + "</h1>\n";
  if (!subtitle.empty()) out += "<p class=\"subtitle\">" + escape(subtitle) + "</p>\n";
  return out;
}

/// Returns rows of a name and one value per run, for all names in order of first appearance.
std::vector<std::vector<std::string>> side_by_side(const std::vector<const Facts*>& runs,
                                                   bool differing_only) {
  std::vector<std::string> keys;
  for (const Facts* facts : runs) {
    for (const auto& [key, value] : *facts) {
      if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
    }
  }
  std::vector<std::vector<std::string>> rows;
  for (const std::string& key : keys) {
    std::vector<std::string> row = {key};
    for (const Facts* facts : runs) {
      const auto found = std::find_if(facts->begin(), facts->end(),
                                      [&](const auto& fact) { return fact.first == key; });
      row.push_back(found == facts->end() ? "–" : found->second);
    }
    const bool differs = std::any_of(row.begin() + 1, row.end(),
                                     [&](const std::string& cell) { return cell != row[1]; });
    if (differs || !differing_only) rows.push_back(std::move(row));
  }
  return rows;
}

std::string joined_name(const std::string& run, const std::string& part, bool alone) {
  return alone || part.empty() || part == run ? run : run + ", " + part;
}

}  // namespace

std::string format(const Estimate& e) {
  if (!std::isfinite(e.mean)) return "–";
  if (!std::isfinite(e.half_width)) return svg::number(e.mean, 4);
  if (e.half_width == 0.0) return svg::number(e.mean, 4) + " ± 0";
  if (std::abs(e.mean) >= 1e7 || e.half_width < 1e-6) {
    return svg::number(e.mean, 4) + " ± " + svg::number(e.half_width, 2);
  }
  const int decimals =
      std::max(0, 1 - static_cast<int>(std::floor(std::log10(e.half_width) + 1e-9)));
  return fmt::format("{}{:.{}f} ± {:.{}f}", e.mean < 0.0 ? "−" : "", std::abs(e.mean), decimals,
                     e.half_width, decimals);
}

std::string format_percent(const Estimate& e) {
  if (!std::isfinite(e.mean)) return "–";
  return format(Estimate{100.0 * e.mean, 100.0 * e.half_width, e.count}) + " %";
}

std::string render(const Report& report) {
  Palette palette;
  std::string body = title_block(report.title, report.subtitle) + cards_block(report.cards);
  for (const std::string& note : report.notes) body += "<p>" + escape(note) + "</p>\n";
  body += training_section(report.training, palette);
  body += tasks_section(report, palette);
  body += charts_section(report.charts, palette);
  body += coverage_section(report.coverage, report.coverage_caption, palette);
  body += reliability_section(report.reliability, palette);
  body += risk_coverage_section(report.risk_coverage, palette);
  body += pit_section(report.pit, palette);
  if (!report.tables.empty()) body += heading("Numbers");
  for (const Table& t : report.tables) body += table(t);
  std::vector<std::vector<std::string>> diverged;
  for (const Diverged& d : report.diverged) diverged.push_back(diverged_row(d));
  body += diverged_section(std::move(diverged), false);
  if (!report.configuration.empty() || !report.environment.empty()) {
    body += heading("How it was made");
    std::vector<std::vector<std::string>> rows;
    for (const auto& [name, value] : report.environment) rows.push_back({name, value});
    if (!rows.empty()) body += facts_table({}, rows);
    if (!report.configuration.empty()) {
      body += "<details><summary>Configuration</summary>\n<pre>" + escape(report.configuration) +
              "</pre></details>\n";
    }
  }
  return html_page(report.title, body);
}

std::string render(const Comparison& comparison) {
  Palette palette;
  std::vector<std::string> columns = {""};
  std::vector<const Facts*> numbers, configurations, environments;
  for (const ComparedRun& run : comparison.runs) {
    palette.color(run.name);  // assigns the colours in the order of the runs
    columns.push_back(run.name);
    numbers.push_back(&run.numbers);
    configurations.push_back(&run.configuration);
    environments.push_back(&run.environment);
  }
  std::string body = title_block(comparison.title, comparison.subtitle);

  Table summary;  // one row per run
  summary.columns = {"run"};
  const auto by_number = side_by_side(numbers, false);
  for (const auto& row : by_number) summary.columns.push_back(row[0]);
  for (std::size_t r = 0; r < comparison.runs.size(); ++r) {
    summary.rows.push_back({comparison.runs[r].name});
    for (const auto& row : by_number) summary.rows.back().push_back(row[r + 1]);
  }
  body += table(summary);
  for (const Table& t : comparison.tables) body += table(t);

  std::vector<TrainingCurve> training;
  std::vector<Chart> charts;
  std::vector<BandCoverage> coverage;
  std::vector<Reliability> reliability;
  std::vector<RiskCoverageCurve> risk_coverage;
  std::vector<PitDensities> pit;
  std::vector<std::vector<std::string>> diverged;
  for (const ComparedRun& run : comparison.runs) {
    for (TrainingCurve curve : run.training) {
      curve.name = run.name;
      training.push_back(std::move(curve));
    }
    for (const Chart& source : run.charts) {
      auto target = std::find_if(charts.begin(), charts.end(),
                                 [&](const Chart& c) { return c.title == source.title; });
      if (target == charts.end()) {
        charts.push_back(source);
        target = std::prev(charts.end());
        target->curves.clear();
      }
      for (Curve curve : source.curves) {
        curve.name = joined_name(run.name, curve.name, source.curves.size() == 1);
        target->curves.push_back(std::move(curve));
      }
    }
    for (BandCoverage c : run.coverage) {
      c.name = joined_name(run.name, c.name, run.coverage.size() == 1);
      coverage.push_back(std::move(c));
    }
    for (Reliability r : run.reliability) {
      r.name = joined_name(run.name, r.name, run.reliability.size() == 1);
      reliability.push_back(std::move(r));
    }
    for (RiskCoverageCurve c : run.risk_coverage) {
      c.name = joined_name(run.name, c.name, run.risk_coverage.size() == 1);
      risk_coverage.push_back(std::move(c));
    }
    for (PitDensities p : run.pit) {
      p.name = joined_name(run.name, p.name, run.pit.size() == 1);
      pit.push_back(std::move(p));
    }
    for (const Diverged& d : run.diverged) {
      diverged.push_back(diverged_row(d));
      diverged.back().insert(diverged.back().begin(), run.name);
    }
  }
  body += training_section(training, palette);
  body += charts_section(charts, palette);
  body += coverage_section(coverage, {}, palette);
  body += reliability_section(reliability, palette);
  body += risk_coverage_section(risk_coverage, palette);
  body += pit_section(pit, palette);
  body += diverged_section(std::move(diverged), true);
  const auto differences = side_by_side(configurations, true);
  if (!differences.empty()) {
    body += heading("Configurations") + caption("Keys whose values differ.") +
            facts_table(columns, differences);
  }
  const auto environment = side_by_side(environments, false);
  if (!environment.empty()) body += heading("How it was made") + facts_table(columns, environment);
  return html_page(comparison.title, body);
}

}  // namespace kshot::report
