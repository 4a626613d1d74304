#include "report/learning_curves.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "report/svg.h"

namespace kshot::report {
namespace {

constexpr std::size_t smooth_from = 40;  // training curves with more points are smoothed

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
  for (const TrainingCurve* curve : curves) extend_range(curve->value, low, high);
  return low > 0.0 && high > 20.0 * low;
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
      if (y.size() > smooth_from) {
        svg::Style faint = style;
        faint.width = 1.0;
        faint.opacity = 0.3;
        plot.line(x, y, faint);
        y = running_mean(y, y.size() / smooth_from);
      }
      plot.line(x, y, style);
      if (y.size() == 1) plot.points(x, y, style);  // a line needs two points
    }
  }
  return plot;
}

}  // namespace

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
    return !c.validation && c.value.size() > smooth_from;
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

}  // namespace kshot::report
