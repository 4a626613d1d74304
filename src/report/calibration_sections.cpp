#include "report/calibration_sections.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>

#include "report/svg.h"

namespace kshot::report {

std::string coverage_section(const std::vector<BandCoverage>& coverage, const std::string& text,
                             Palette& palette) {
  if (coverage.empty()) return {};
  std::set<double> levels;
  std::vector<std::string> names;
  for (const BandCoverage& c : coverage) {
    check_length(c.observed.size(), c.nominal.size(), "coverage of " + c.name);
    levels.insert(c.nominal.begin(), c.nominal.end());
    names.push_back(c.name);
  }
  const std::vector<double> groups(levels.begin(), levels.end());
  const double width = 0.84 / static_cast<double>(coverage.size());
  svg::Plot plot;
  plot.x.label = "nominal level of the band";
  plot.y.label = "targets within the band";
  plot.x.low = -0.55;
  plot.x.high = static_cast<double>(groups.size()) - 0.45;
  plot.y.low = 0.0;
  plot.y.high = 1.1;
  for (int percent : {0, 25, 50, 75, 100}) {
    plot.y.ticks.push_back({percent / 100.0, fmt::format("{} %", percent)});
  }
  Table numbers;
  numbers.columns = {""};
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const std::string label = fmt::format("{:g} %", 100.0 * groups[g]);
    plot.x.ticks.push_back({static_cast<double>(g), label});
    numbers.columns.push_back(label + " band");
  }
  const std::vector<Look> looks = palette.looks(names);
  std::vector<LegendEntry> entries;
  const bool room = coverage.size() * groups.size() <= 18;
  for (std::size_t i = 0; i < coverage.size(); ++i) {
    std::vector<std::string> row = {coverage[i].name};
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const auto& nominal = coverage[i].nominal;
      const auto found = std::find(nominal.begin(), nominal.end(), groups[g]);
      if (found == nominal.end()) {
        row.emplace_back("–");
        continue;
      }
      const Estimate e = coverage[i].observed[static_cast<std::size_t>(found - nominal.begin())];
      const double left = static_cast<double>(g) - 0.42 + width * static_cast<double>(i);
      const double middle[] = {left + 0.5 * width};
      const double rights[] = {left + width}, lefts[] = {left}, heights[] = {e.mean};
      const double half[] = {e.half_width};
      plot.bars(lefts, rights, heights,
                {.color = looks[i].color,
                 .opacity = 0.85 * looks[i].opacity(),
                 .tooltip = coverage[i].name});
      plot.error_bars(middle, heights, half, {.width = 1.2});
      row.push_back(format_percent(e));
    }
    numbers.rows.push_back(std::move(row));
    entries.push_back({.label = coverage[i].name,
                       .color = looks[i].color,
                       .swatch = Swatch::area,
                       .opacity = 0.85 * looks[i].opacity()});
  }
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const double middle = static_cast<double>(g);
    const double ends[] = {middle - 0.46, middle + 0.46};
    const double level[] = {groups[g], groups[g]};
    plot.line(ends, level, {.width = 1.6, .dash = "4 3"});
  }
  if (room) {
    for (std::size_t i = 0; i < coverage.size(); ++i) {
      for (std::size_t n = 0; n < coverage[i].nominal.size(); ++n) {
        const auto group = std::find(groups.begin(), groups.end(), coverage[i].nominal[n]);
        const Estimate e = coverage[i].observed[n];
        plot.text(static_cast<double>(group - groups.begin()) - 0.42 +
                      width * (static_cast<double>(i) + 0.5),
                  e.mean + (std::isfinite(e.half_width) ? e.half_width : 0.0),
                  fmt::format("{:.0f}", 100.0 * e.mean));
      }
    }
  }
  entries.push_back({.label = "nominal", .color = "currentColor", .dash = "4 3", .width = 1.6});
  svg::Grid grid;
  grid.description = "Coverage of central bands";
  grid.panel_width = 620.0;
  grid.panel_height = 220.0;
  grid.rows.push_back({plot});
  return heading("Coverage of the bands") + caption(text) + legend(entries) +
         figure(svg::render(grid)) + table(numbers);
}

std::string reliability_section(const std::vector<Reliability>& all, Palette& palette) {
  if (all.empty()) return {};
  std::string out = heading("Reliability") +
                    caption(
                        "Accuracy of predictions by their confidence; on the dashed line they "
                        "are calibrated. Below, the share of predictions at that confidence. "
                        "ECE: expected calibration error.");
  constexpr std::size_t columns = 4;
  for (std::size_t first = 0; first < all.size(); first += columns) {
    svg::Grid grid;
    grid.description = "Reliability diagrams";
    grid.panel_width = 205.0;
    grid.row_heights = {190.0, 52.0};
    grid.rows.resize(2);
    double largest = 0.0;  // largest share of a bin in this row of diagrams
    for (std::size_t i = first; i < std::min(all.size(), first + columns); ++i) {
      std::size_t total = 0, most = 0;
      for (const auto& bin : all[i].bins) {
        total += bin.count;
        most = std::max(most, bin.count);
      }
      if (total > 0) {
        largest = std::max(largest, static_cast<double>(most) / static_cast<double>(total));
      }
    }
    const double top = std::max(0.1, std::ceil(10.0 * largest) / 10.0);
    for (std::size_t i = first; i < std::min(all.size(), first + columns); ++i) {
      const Reliability& r = all[i];
      svg::Plot plot, histogram;
      plot.title = fmt::format("{} · ECE {}", r.name, svg::number(r.ece));
      std::vector<double> low, high, accuracy, share, confidence, hit;
      std::size_t total = 0;
      for (const auto& bin : r.bins) total += bin.count;
      for (const auto& bin : r.bins) {
        if (bin.count == 0) continue;
        low.push_back(bin.low);
        high.push_back(bin.high);
        accuracy.push_back(bin.accuracy);
        share.push_back(static_cast<double>(bin.count) / static_cast<double>(total));
      }
      const std::string color = palette.color(r.name);
      plot.bars(low, high, accuracy, {.color = color, .opacity = 0.8, .tooltip = "accuracy"});
      const double ends[] = {0.0, 1.0};
      plot.line(ends, ends, {.width = 1.4, .dash = "4 3"});
      histogram.bars(low, high, share, {.color = color, .opacity = 0.45, .tooltip = "share"});
      for (svg::Plot* p : {&plot, &histogram}) {
        p->x.low = p->y.low = 0.0;
        p->x.high = p->y.high = 1.0;
        p->x.ticks = {{0.0, "0"}, {0.25, ""}, {0.5, "0.5"}, {0.75, ""}, {1.0, "1"}};
        p->y.tick_labels = i == first;
      }
      plot.y.ticks = {{0.0, "0"}, {0.25, ""}, {0.5, "0.5"}, {0.75, ""}, {1.0, "1"}};
      histogram.y.high = top;
      histogram.y.ticks = {{0.0, "0"}, {top, svg::number(top)}};
      plot.x.tick_labels = false;
      histogram.x.label = "confidence";
      if (i == first) {
        plot.y.label = "accuracy";
        histogram.y.label = "share";
      }
      grid.rows[0].push_back(std::move(plot));
      grid.rows[1].push_back(std::move(histogram));
    }
    out += figure(svg::render(grid));
  }
  return out;
}

std::string risk_coverage_section(const std::vector<RiskCoverageCurve>& all, Palette& palette) {
  if (all.empty()) return {};
  svg::Plot plot;
  plot.x.label = "coverage: share of rows that are answered";
  plot.y.label = "risk: wrong answers";
  plot.x.low = 0.0;
  plot.x.high = 1.0;
  plot.y.low = 0.0;
  double most = 0.0;
  std::vector<std::string> names;
  for (const RiskCoverageCurve& c : all) {
    check_length(c.risk.size(), c.coverage.size(), "risk-coverage curve of " + c.name);
    names.push_back(c.name);
    for (const double risk : c.risk) {
      if (std::isfinite(risk)) most = std::max(most, risk);
    }
  }
  plot.y.high = most > 0.0 ? std::min(1.0, 1.05 * most) : 0.1;
  const std::vector<Look> looks = palette.looks(names);
  std::vector<LegendEntry> entries;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const RiskCoverageCurve& c = all[i];
    plot.line(c.coverage, c.risk, {.color = looks[i].color, .dash = looks[i].dash()});
    entries.push_back({.label = fmt::format("{} · AURC {}", c.name, svg::number(c.aurc)),
                       .color = looks[i].color,
                       .dash = looks[i].dash()});
  }
  svg::Grid grid;
  grid.description = "Risk against coverage";
  grid.panel_width = 620.0;
  grid.panel_height = 240.0;
  grid.rows.push_back({plot});
  return heading("Risk and coverage") +
         caption(
             "The rows are answered in the order of their confidence, the surest first: the share "
             "of wrong answers among those that are answered. AURC: area under the curve.") +
         legend(entries) + figure(svg::render(grid));
}

std::string pit_section(const std::vector<PitDensities>& all, Palette& palette) {
  if (all.empty()) return {};
  std::string out =
      heading("Probability integral transform") +
      caption(
          "Where the targets lie in the predictive distributions, as a density over the "
          "distributions' own probabilities. On the dashed line they are calibrated; bars that "
          "rise to both ends mean bands that are too narrow, a hump in the middle bands that "
          "are too wide.");
  constexpr std::size_t columns = 4;
  for (std::size_t first = 0; first < all.size(); first += columns) {
    svg::Grid grid;
    grid.description = "Histograms of probability integral transforms";
    grid.panel_width = 205.0;
    grid.panel_height = 150.0;
    grid.rows.resize(1);
    const std::size_t end = std::min(all.size(), first + columns);
    double highest = 1.5;
    for (std::size_t i = first; i < end; ++i) {
      for (const double d : all[i].densities) highest = std::max(highest, 1.05 * d);
    }
    for (std::size_t i = first; i < end; ++i) {
      const PitDensities& p = all[i];
      svg::Plot plot;
      plot.title = p.name;
      std::vector<double> low, high;
      const auto bins = static_cast<double>(p.densities.size());
      for (std::size_t b = 0; b < p.densities.size(); ++b) {
        low.push_back(static_cast<double>(b) / bins);
        high.push_back(static_cast<double>(b + 1) / bins);
      }
      plot.bars(low, high, p.densities,
                {.color = palette.color(p.name), .opacity = 0.8, .tooltip = "density"});
      const double ends[] = {0.0, 1.0}, uniform[] = {1.0, 1.0};
      plot.line(ends, uniform, {.width = 1.4, .dash = "4 3"});
      plot.x.label = "probability below the target";
      plot.x.low = plot.y.low = 0.0;
      plot.x.high = 1.0;
      plot.y.high = highest;
      plot.x.ticks = {{0.0, "0"}, {0.25, ""}, {0.5, "0.5"}, {0.75, ""}, {1.0, "1"}};
      plot.y.tick_labels = i == first;
      if (i == first) plot.y.label = "density";
      grid.rows[0].push_back(std::move(plot));
    }
    out += figure(svg::render(grid));
  }
  return out;
}

}  // namespace kshot::report
