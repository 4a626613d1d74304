#include "report/page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>

#include "kshot/error.h"
#include "report/calibration_sections.h"
#include "report/learning_curves.h"
#include "report/parts.h"
#include "report/svg.h"
#include "report/task_panels.h"

namespace kshot::report {
namespace {

using svg::escape;

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
