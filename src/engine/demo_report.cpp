#include "engine/demo_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <optional>

#include "kshot/episode.h"
#include "kshot/error.h"
#include "kshot/evaluator.h"
#include "kshot/learner.h"
#include "kshot/random.h"

namespace kshot {
namespace {

constexpr int grid_points = 121;
constexpr double band_levels[] = {0.5, 0.9, 0.95};

metrics::Estimate estimate(const Statistic& s) {
  return {s.mean, s.half_width, s.episodes};
}

std::string shots_text(int shots) {
  return fmt::format("{} shot{}", shots, shots == 1 ? "" : "s");
}

// ---- panels of tasks
// -----------------------------------------------------------------------------

/// A sinusoid drawn as the training tasks are, from a stream that training never uses.
struct Sine {
  Sine(const Config::DataTable& data, std::uint64_t seed, std::uint32_t task, int points) {
    const SinusoidOptions ranges;  // the phase is not configured
    RandomStream stream({.seed = seed, .purpose = Purpose::user, .task = task});
    const auto uniform = [&](double low, double high) {
      return stream.uniform(static_cast<float>(low), static_cast<float>(high));
    };
    amplitude = uniform(data.amplitude_low, data.amplitude_high);
    phase = uniform(ranges.phase_low, ranges.phase_high);
    for (int i = 0; i < points; ++i) {
      support_x.push_back(uniform(data.x_low, data.x_high));
      const double noise = data.noise_std > 0.0 ? data.noise_std * stream.normal() : 0.0;
      support_y.push_back(static_cast<float>((*this)(support_x.back()) + noise));
    }
  }
  double operator()(double x) const { return amplitude * std::sin(x - phase); }

  double amplitude, phase;
  std::vector<float> support_x, support_y;
};

report::Fit fit(const std::string& label, const Prediction& prediction) {
  report::Fit fit{.label = label, .mean = prediction.mean};
  if (prediction.samples == 1 && prediction.noise_std <= 0.0) return fit;
  const auto rows = static_cast<std::size_t>(prediction.rows);
  const auto samples = static_cast<std::size_t>(prediction.samples);
  for (const double level : band_levels) fit.bands.push_back({.level = level});
  std::vector<double> means(samples);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t s = 0; s < samples; ++s) means[s] = prediction.raw[s * rows + r];
    std::sort(means.begin(), means.end());
    for (report::FitBand& band : fit.bands) {
      const metrics::Band limits = metrics::mixture_band(means, prediction.noise_std, band.level);
      band.low.push_back(limits.low);
      band.high.push_back(limits.high);
    }
  }
  return fit;
}

void add_tasks(report::Report& report, std::span<const DemoRun> runs,
               const std::vector<Config>& configs, const DemoReportOptions& options) {
  const Config::DataTable& data = configs.front().data;
  std::vector<Learner> learners;
  for (const DemoRun& run : runs) {
    LearnerOptions learner{.device = options.device, .threads = options.threads, .overrides = {}};
    learner.overrides.push_back(fmt::format("evaluate.samples={}", options.samples));
    learners.emplace_back(run.run, std::move(learner));
  }
  std::vector<float> query;
  for (int i = 0; i < grid_points; ++i) {
    query.push_back(
        static_cast<float>(data.x_low + (data.x_high - data.x_low) * i / (grid_points - 1)));
  }
  for (int t = 0; t < options.tasks; ++t) {
    const Sine sine(data, options.seed, static_cast<std::uint32_t>(t), options.shots.back());
    report::TaskFigure figure{.title = fmt::format("Task {}", t + 1)};
    for (const float x : query) {
      figure.x.push_back(x);
      figure.truth.push_back(sine(x));
    }
    for (std::size_t m = 0; m < learners.size(); ++m) {
      report::MethodFits method{.method = runs[m].name};
      for (const int shots : options.shots) {
        const auto n = static_cast<std::size_t>(shots);
        const std::span x = std::span(sine.support_x).first(n);
        const std::span y = std::span(sine.support_y).first(n);
        report::Fit prior{.label = "prior"}, posterior{.label = shots_text(shots)};
        try {
          const auto steps = learners[m].predict_steps({.x = x, .labels = {}, .values = y}, query);
          prior = fit(prior.label, steps.front());
          posterior = fit(posterior.label, steps.back());
        } catch (const Error&) {  // one task that diverges is no reason to lose the report
          posterior.label += ", diverged";
          posterior.mean.assign(query.size(), std::numeric_limits<double>::quiet_NaN());
          prior.mean = posterior.mean;
        }
        posterior.support_x.assign(x.begin(), x.end());
        posterior.support_y.assign(y.begin(), y.end());
        if (method.fits.empty()) method.fits.push_back(std::move(prior));
        method.fits.push_back(std::move(posterior));
      }
      figure.methods.push_back(std::move(method));
    }
    report.tasks.push_back(std::move(figure));
  }
  report.tasks_x_label = "x";
  report.tasks_y_label = "y";
  report.tasks_caption =
      "Tasks drawn afresh. The prior is what a method predicts before it sees a point; each column "
      "adds points to those before.";
}

// ---- test episodes
// -------------------------------------------------------------------------------

/// Inner steps as in training, or as [evaluate] says.
int own_steps(const Config& config) {
  return config.evaluate.steps >= 0 ? config.evaluate.steps : config.inner.steps;
}

void add_episodes(report::Report& report, std::span<const DemoRun> runs,
                  const std::vector<Config>& configs, const DemoReportOptions& options) {
  report::Chart by_shots{.title = "Error against shots"};
  by_shots.caption = fmt::format(
      "Mean over {} new tasks, after as many inner steps as in training; bars are 95 % confidence "
      "intervals.",
      options.episodes);
  by_shots.x_label = "support points";
  by_shots.y_label = "mean squared error";
  by_shots.log_y = true;
  report::Chart by_steps = by_shots;
  by_steps.title = "Error against inner steps";
  by_steps.caption = fmt::format("The same tasks, {}.", shots_text(options.shots.back()));
  by_steps.x_label = "inner steps";

  report::Table table{.title = fmt::format("New tasks, {}", shots_text(options.shots.back()))};
  table.caption = fmt::format("{} episodes; mean ± 95 % confidence interval.", options.episodes);
  table.columns = {"method", "inner steps", "MSE", "NLL"};
  for (const double level : band_levels) {
    table.columns.push_back(fmt::format("in {:g} % band", 100.0 * level));
  }
  std::vector<std::vector<std::string>> baseline_rows;
  bool noise_alone = false;
  bool no_bands = false;

  for (std::size_t m = 0; m < runs.size(); ++m) {
    const int own = own_steps(configs[m]);
    report::Curve shots_curve{.name = runs[m].name}, steps_curve{.name = runs[m].name};
    for (const int shots : options.shots) {
      const bool last = shots == options.shots.back();
      EvaluatorOptions evaluator{
          .device = options.device, .threads = options.threads, .overrides = {}};
      evaluator.overrides = {
          fmt::format("data.shots={}", shots),
          fmt::format("evaluate.episodes={}", options.episodes),
          fmt::format("evaluate.samples={}", options.samples),
          fmt::format("evaluate.steps={}", last ? std::max(own, options.steps) : own)};
      evaluator.baselines = last && m == 0;
      const Evaluation evaluation = Evaluator(runs[m].run, std::move(evaluator)).run();
      const Score& score = evaluation.steps[static_cast<std::size_t>(own)];
      shots_curve.x.push_back(shots);
      shots_curve.y.push_back(estimate(*score.mse));
      report.diverged.push_back(
          {fmt::format("{}, test episodes, {}", runs[m].name, shots_text(shots)),
           static_cast<std::uint64_t>(evaluation.diverged),
           static_cast<std::uint64_t>(evaluation.episodes), ""});
      if (score.coverage.empty()) {
        no_bands = true;
      } else {
        noise_alone = noise_alone || evaluation.samples == 1;
        report::BandCoverage coverage{.name = runs[m].name + ", " + shots_text(shots)};
        for (const CoverageScore& c : score.coverage) {
          coverage.nominal.push_back(c.level);
          coverage.observed.push_back(estimate(c.observed));
        }
        report.coverage.push_back(std::move(coverage));
      }
      if (!last) continue;
      for (const Score& step : evaluation.steps) {
        steps_curve.x.push_back(step.inner_steps);
        steps_curve.y.push_back(estimate(*step.mse));
      }
      const auto row = [](const std::string& name, const std::string& steps, const Score& s) {
        std::vector<std::string> cells = {name, steps, report::format(estimate(*s.mse)),
                                          s.nll ? report::format(estimate(*s.nll)) : "–"};
        for (const double level : band_levels) {
          const auto found = std::find_if(s.coverage.begin(), s.coverage.end(),
                                          [&](const CoverageScore& c) { return c.level == level; });
          cells.push_back(
              found == s.coverage.end() ? "–" : report::format_percent(estimate(found->observed)));
        }
        return cells;
      };
      table.strong.push_back(table.rows.size());
      table.rows.push_back(row(runs[m].name, std::to_string(own), score));
      for (const Score& baseline : evaluation.baselines) {
        baseline_rows.push_back(row(baseline.name, "", baseline));
      }
      report.cards.push_back({fmt::format("{}, {}", runs[m].name, shots_text(shots)),
                              report::format(estimate(*score.mse)), "mean squared error"});
      for (const CoverageScore& c : score.coverage) {
        if (c.level != 0.9) continue;
        report.cards.push_back({fmt::format("{}, 90 % band", runs[m].name),
                                report::format_percent(estimate(c.observed)),
                                fmt::format("of targets within, {}", shots_text(shots))});
      }
    }
    by_shots.curves.push_back(std::move(shots_curve));
    by_steps.curves.push_back(std::move(steps_curve));
  }
  std::move(baseline_rows.begin(), baseline_rows.end(), std::back_inserter(table.rows));
  report.charts.push_back(std::move(by_shots));
  report.charts.push_back(std::move(by_steps));
  report.tables.push_back(std::move(table));
  report.coverage_caption = fmt::format(
      "How many of the query targets of {} new tasks lie within the central bands of the "
      "prediction, beside the nominal share.{}{}",
      options.episodes,
      noise_alone ? " A method without a posterior has the bands of its observation noise." : "",
      no_bands ? " A method that predicts points alone has no bands." : "");
}

}  // namespace

void add_adaptation(report::Report& report, std::span<const DemoRun> runs,
                    const DemoReportOptions& options) {
  if (runs.empty() || options.shots.empty()) return;
  std::vector<Config> configs;
  for (const DemoRun& run : runs) {
    configs.push_back(
        Evaluator(run.run, {.device = options.device, .threads = options.threads, .overrides = {}})
            .config());
    if (configs.back().data.source != DataKind::sinusoid) {
      throw Error(run.run.string() + ": data.source: expected a run on \"sinusoid\"");
    }
  }
  add_tasks(report, runs, configs, options);
  add_episodes(report, runs, configs, options);
}

}  // namespace kshot
