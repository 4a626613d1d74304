#include "bandit/results.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "io/output_file.h"
#include "metrics/metrics.h"
#include "report/page.h"

namespace kshot::bandit {
namespace {

/// Mean and standard deviation over trials.
struct MeanAndStd {
  double mean = 0.0, std = 0.0;  ///< std is 0 for one trial
};

/// Returns mean and standard deviation in percent of `whole`; NaN where `whole` is not positive.
MeanAndStd percent(const std::vector<double>& values, double whole) {
  metrics::Mean mean;
  for (const double v : values) mean.add(whole > 0.0 ? 100.0 * v / whole : std::nan(""));
  return {mean.mean(), values.size() > 1 ? mean.standard_deviation() : 0.0};
}

std::string text(const MeanAndStd& s) {
  return std::isfinite(s.mean) ? fmt::format("{:.2f} +- {:.2f}", s.mean, s.std) : "-";
}

nlohmann::ordered_json json(const MeanAndStd& s) {
  if (!std::isfinite(s.mean)) return nullptr;
  return {{"mean", s.mean}, {"std", s.std}};
}

}  // namespace

std::string Results::table() const {
  std::string out = fmt::format(
      "{} trials of {} rounds, seed {}; regret in percent of the uniform agent's mean, mean +- "
      "standard deviation over trials;\nsimple regret over the last {} rounds; pulls: how often "
      "every arm is pulled in turn at the start\n",
      trials, steps, seed, std::min(last_steps, steps));
  std::size_t width = 5;
  for (const Entry& e : entries) width = std::max(width, e.result.agent.size());
  std::string environment;
  for (const Entry& e : entries) {
    const Result& r = e.result;
    if (r.environment != environment) {
      environment = r.environment;
      out += fmt::format("\n{}: the uniform agent's regret is {:.4g} per trial\n", environment,
                         e.uniform_cumulative);
      out += fmt::format("  {:<{}}  {:>18}  {:>18}  {:>5}  {:>8}\n", "agent", width, "cumulative",
                         "simple", "pulls", "seconds");
    }
    out += fmt::format("  {:<{}}  {:>18}  {:>18}  {:>5}  {:>8.1f}\n", r.agent, width,
                       text(percent(r.cumulative, e.uniform_cumulative)),
                       text(percent(r.simple, e.uniform_simple)), r.initial_pulls, r.seconds);
  }
  for (const Entry& e : entries) {
    if (e.result.remark.empty()) continue;
    out += fmt::format("\n{}: {}\n", e.result.environment, e.result.remark);
  }
  return out;
}

std::string Results::to_json() const {
  nlohmann::ordered_json all;
  all["format"] = io::bandit_mark;
  all["trials"] = trials;
  all["steps"] = steps;
  all["last_steps"] = std::min(last_steps, steps);
  all["seed"] = seed;
  all["device"] = device;
  all["results"] = nlohmann::ordered_json::array();
  for (const Entry& e : entries) {
    const Result& r = e.result;
    all["results"].push_back(
        {{"environment", r.environment},
         {"agent", r.agent},
         {"initial_pulls", r.initial_pulls},
         {"cumulative_percent", json(percent(r.cumulative, e.uniform_cumulative))},
         {"simple_percent", json(percent(r.simple, e.uniform_simple))},
         {"uniform_cumulative", e.uniform_cumulative},
         {"uniform_simple", e.uniform_simple},
         {"cumulative", r.cumulative},
         {"simple", r.simple},
         {"curve_steps", r.curve_steps},
         {"curve", r.curve},
         {"seconds", r.seconds},
         {"remark", r.remark}});
  }
  return all.dump(2) + "\n";
}

std::string Results::page() const {
  report::Report page;
  page.title = fmt::format("Bandits: {} trials of {} rounds", trials, steps);
  for (const Entry& e : entries) {
    const std::string title = e.result.environment;
    const bool known = !page.charts.empty() && page.charts.back().title == title;
    if (!known) {
      page.charts.push_back({.title = title,
                             .caption = fmt::format("Mean over {} trials.", trials),
                             .x_label = "rounds",
                             .y_label = "cumulative regret",
                             .log_y = true});
    }
    report::Curve curve;
    curve.name = e.result.agent;
    curve.x.assign(e.result.curve_steps.begin(), e.result.curve_steps.end());
    for (const double y : e.result.curve)
      curve.y.push_back({.mean = y, .half_width = 0.0, .count = 0});
    page.charts.back().curves.push_back(std::move(curve));
  }
  return report::render(page);
}

}  // namespace kshot::bandit
