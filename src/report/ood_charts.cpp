// Histograms of the scores that tell rows out of distribution from others.
#include <fmt/format.h>

#include <limits>
#include <tuple>

#include "report/report_data.h"

namespace kshot::report {
namespace {

/// Returns the chart of a histogram, with two lines over the middles of its bins.
Chart histogram_chart(const OodEvaluation& e, const OodScore& s) {
  Chart chart;
  chart.title = fmt::format("Out of distribution, {}: {}", e.kind, s.name);
  chart.caption = fmt::format(
      "{}. Share of the rows in each of {} bins; the last bin has all rows above it. AUROC {:.3f}",
      e.description, s.in_counts.size(), s.auroc.value);
  chart.x_label = s.name == "maximum probability" ? "1 - maximum probability" : s.name;
  chart.y_label = "share of rows";
  for (const auto& [name, counts, rows] :
       {std::tuple{"known rows", &s.in_counts, e.in_rows},
        std::tuple{"out of distribution", &s.out_counts, e.out_rows}}) {
    Curve curve{.name = name};
    const double width = (s.high - s.low) / static_cast<double>(counts->size());
    for (std::size_t bin = 0; bin < counts->size(); ++bin) {
      curve.x.push_back(s.low + (static_cast<double>(bin) + 0.5) * width);
      curve.y.push_back({static_cast<double>((*counts)[bin]) / static_cast<double>(rows),
                         std::numeric_limits<double>::quiet_NaN(), rows});
    }
    chart.curves.push_back(std::move(curve));
  }
  return chart;
}

}  // namespace

std::vector<Chart> ood_charts(const std::vector<OodEvaluation>& all) {
  std::vector<Chart> charts;
  for (const OodEvaluation& e : all) {
    for (const OodScore& s : e.scores) {
      // A constant score has no histogram.
      if (s.high > s.low) charts.push_back(histogram_chart(e, s));
    }
  }
  return charts;
}

}  // namespace kshot::report
