#include "report/run_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace kshot::report {
namespace {

/// Adds charts to `all`. Charts with the same title become one chart. A curve whose name it has
/// already (a baseline that all runs share) is not repeated.
void merge(std::vector<Chart>& all, std::vector<Chart> more) {
  for (Chart& chart : more) {
    const auto same = std::ranges::find(all, chart.title, &Chart::title);
    if (same == all.end()) {
      all.push_back(std::move(chart));
      continue;
    }
    for (Curve& curve : chart.curves) {
      if (std::ranges::find(same->curves, curve.name, &Curve::name) == same->curves.end()) {
        same->curves.push_back(std::move(curve));
      }
    }
  }
}

template <typename T>
void append(std::vector<T>& all, std::vector<T> more) {
  std::ranges::move(more, std::back_inserter(all));
}

void add_cards(Report& page, const ReportData& run) {
  if (!run.evaluation) return;
  const Score& s = run.evaluation->last();
  const std::string note =
      fmt::format("{}, {} {}", run.name, run.evaluation->episodes - run.evaluation->diverged,
                  episodes_text(*run.evaluation));
  if (s.accuracy) {
    page.cards.push_back({"accuracy", format_percent(estimate(*s.accuracy)), note});
    if (s.ece) page.cards.push_back({"calibration error", fmt::format("{:.3f}", *s.ece), note});
    return;
  }
  page.cards.push_back({"mean squared error", format(estimate(*s.mse)), note});
  for (const CoverageScore& c : s.coverage) {
    if (c.level == 0.9) {
      page.cards.push_back({"in the 90 % band", format_percent(estimate(c.observed)), note});
    }
  }
}

}  // namespace

Report run_page(const std::vector<const ReportData*>& runs, std::vector<TaskFigure> figures) {
  const ReportData& subject = *runs.front();
  Report page;
  std::string names;
  for (const ReportData* run : runs) names += (names.empty() ? "" : " and ") + run->name;
  page.title = names;
  page.subtitle = subject.checkpoint.source.description;
  for (const ReportData* run : runs) {
    add_cards(page, *run);
    append(page.training, run->training);
    merge(page.charts, charts(*run));
    append(page.coverage, coverage(*run));
    append(page.reliability, reliability(*run));
    append(page.risk_coverage, risk_coverage(*run));
    append(page.pit, pit(*run));
    append(page.diverged, diverged(*run));
    append(page.tables, tables(*run));
    const RunState& state = run->checkpoint.state;
    page.cards.push_back(
        {"training", fmt::format("{:.0f} s", state.seconds),
         fmt::format("{}, {} steps, {} tasks", run->name, state.step, state.tasks)});
    for (const auto& [key, value] : run->environment) {
      page.environment.emplace_back(runs.size() > 1 ? run->name + ": " + key : key, value);
    }
    page.configuration += (runs.size() > 1 ? "# ---- " + run->name + " ----\n" : "") +
                          run->checkpoint.config.to_toml() + "\n";
  }
  page.tasks = std::move(figures);
  page.tasks_caption =
      "New tasks: the true function, the support points, and what is predicted before and after "
      "adapting to them. Bands hold 50, 90 and 95 % of the predictive distribution.";
  page.tasks_x_label = "x";
  page.tasks_y_label = "y";
  if (!page.coverage.empty()) {
    page.coverage_caption = "Share of query targets within the central bands, over episodes.";
  }
  return page;
}

}  // namespace kshot::report
