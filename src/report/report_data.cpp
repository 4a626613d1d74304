#include "report/report_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <system_error>

#include "base/log.h"
#include "engine/assembly.h"
#include "engine/evaluate_run.h"
#include "engine/score_text.h"
#include "io/atomic_file.h"
#include "io/output_file.h"
#include "kshot/error.h"
#include "kshot/stop.h"
#include "metrics/metrics.h"
#include "report/run_records.h"

namespace kshot::report {
namespace {

namespace fs = std::filesystem;

constexpr std::array shots_shown = {1, 2, 5, 10, 20};
constexpr int shots_episodes = 300;

/// Returns the accuracy of a score, or the mean squared error.
const Statistic& error_of(const Score& score) {
  return score.accuracy ? *score.accuracy : *score.mse;
}

Evaluation evaluate(const ReportData& run, const ReportOptions& report,
                    std::vector<std::string> overrides) {
  EvaluatorOptions options;
  options.allow_changed_data = report.allow_changed_data;
  options.device = report.device;
  options.threads = report.threads;
  options.stop = report.stop;
  options.overrides = std::move(overrides);
  return Evaluator(run.folder, options).run();
}

std::string band_name(const ReportData& run, int shots) {
  return fmt::format("{}, {} shot{}", run.name, shots, shots == 1 ? "" : "s");
}

BandCoverage band_coverage(std::string name, const Score& score) {
  BandCoverage bands;
  bands.name = std::move(name);
  for (const CoverageScore& c : score.coverage) {
    bands.nominal.push_back(c.level);
    bands.observed.push_back(estimate(c.observed));
  }
  return bands;
}

/// Returns the scores whose calibration is drawn, with their names: those after the last inner
/// step, and where the evaluation has them, those of the calibrated predictions.
std::vector<std::pair<std::string, const Score*>> shown(const ReportData& run) {
  std::vector<std::pair<std::string, const Score*>> all;
  if (!run.evaluation) return all;
  const std::vector<Score>& steps = run.evaluation->steps;
  if (steps.back().calibrated && steps.size() > 1) {
    all.emplace_back(run.name, &steps[steps.size() - 2]);
  }
  all.emplace_back(run.name + (steps.back().calibrated ? ", calibrated" : ""), &steps.back());
  return all;
}

std::string name_of(const ReportData& run, const Score& s) {
  const std::string calibrated = s.calibrated ? ", calibrated" : "";
  const bool own =
      std::ranges::any_of(run.evaluation->steps, [&](const Score& step) { return &step == &s; });
  if (!own) return s.name;
  if (s.inner_steps < 0) return run.name + calibrated;
  return fmt::format("{}{}, {} inner step{}", run.name, calibrated, s.inner_steps,
                     s.inner_steps == 1 ? "" : "s");
}

/// Returns a table that shows how far the predictions' own uncertainty can be trusted. It has no
/// rows where no score shows this.
Table uncertainty_table(const ReportData& run) {
  const Evaluation& e = *run.evaluation;
  const bool classify = e.last().accuracy.has_value();
  Table table;
  table.title = "Uncertainty of " + run.name + " on " + episodes_text(e);
  table.caption =
      classify
          ? fmt::format(
                "{} bins, {} edges; in brackets: 95 % bootstrap intervals over "
                "episodes",
                e.bins, e.edges)
          : "CRPS and sharpness in units of the targets; of a point prediction the CRPS is the "
            "mean absolute error";
  table.columns =
      classify ? std::vector<std::string>{"",
                                          "ECE",
                                          "MCE",
                                          "ECE, equal mass",
                                          "classwise ECE",
                                          "AURC",
                                          "risk at 80 % coverage",
                                          fmt::format("coverage at {:.3g} % risk", 100.0 * e.risk),
                                          "entropy",
                                          "mutual information"}
               : std::vector<std::string>{"", "CRPS", "sharpness", "epistemic variance",
                                          "noise variance"};
  for (const std::vector<Score>* scores : {&e.steps, &e.baselines}) {
    for (const Score& s : *scores) {
      if (classify ? !s.uncertainty.has_value() : !s.crps.has_value()) continue;
      if (&s == &e.last()) table.strong.push_back(table.rows.size());
      std::vector<std::string>& row = table.rows.emplace_back();
      row.push_back(name_of(run, s));
      const auto put = [&](const std::optional<Statistic>& v) {
        row.push_back(v ? format(estimate(*v)) : "");
      };
      if (classify) {
        const UncertaintyScores& u = *s.uncertainty;
        for (const IntervalScore* i : {&u.ece, &u.mce, &u.ece_equal_mass, &u.classwise_ece, &u.aurc,
                                       &u.risk_at_coverage, &u.coverage_at_risk}) {
          row.push_back(interval_text(*i, 4));
        }
        put(s.entropy);
        put(s.mutual_information);
      } else {
        for (const auto* v :
             {&s.crps, &s.sharpness, &s.epistemic_variance, &s.aleatoric_variance}) {
          put(*v);
        }
      }
    }
  }
  return table;
}

}  // namespace

std::string method_name(const std::string& algorithm) {
  if (algorithm == "meta_sgd") return "Meta-SGD";
  std::string name = algorithm;
  for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

Estimate estimate(const Statistic& s) {
  return {s.mean, s.half_width, s.episodes};
}

ReportData read_run(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) {
    throw Error(fmt::format("{}: no such run folder", folder.string()));
  }
  ReportData run;
  run.folder = folder;
  // The report shows the state of the last checkpoint. Its configuration is also that of the
  // checkpoint that is evaluated.
  run.checkpoint = Checkpoint::read(find_checkpoint(folder, "last"));
  run.name = method_name(
      make_algorithm(run.checkpoint.config,
                     std::make_shared<const Network>(run.checkpoint.config.make_network()))
          ->name());
  run.training = training_curves(folder / metrics_file, run.name);
  run.environment = environment(folder);
  if (const fs::path file = folder / evaluation_file; fs::exists(file, ignored)) {
    run.evaluation = Evaluation::from_json(io::read_file(file), file.string());
    const std::uint64_t now = Checkpoint::read(find_checkpoint(folder, "best")).state.step;
    if (run.evaluation->step != now) {
      log_warning(fmt::format(
          "{} is of meta-step {}, the run's best checkpoint of {} by now: it is left out (kshot "
          "evaluate {})",
          file.string(), run.evaluation->step, now, folder.string()));
      run.evaluation.reset();
    }
  }
  if (const fs::path file = folder / shots_file; fs::exists(file, ignored)) {
    ShotsEvaluation shots = ShotsEvaluation::from_json(io::read_file(file), file.string());
    const std::uint64_t now = Checkpoint::read(find_checkpoint(folder, "best")).state.step;
    if (shots.by_shots.front().second.step == now) run.by_shots = std::move(shots.by_shots);
  }
  if (const fs::path file = folder / ood_file; fs::exists(file, ignored)) {
    std::vector<OodEvaluation> all = ood_from_json(io::read_file(file), file.string());
    const std::uint64_t now = Checkpoint::read(find_checkpoint(folder, "best")).state.step;
    if (all.front().step == now) run.ood = std::move(all);
  }
  return run;
}

void add_missing_evaluations(ReportData& run, const ReportOptions& options) {
  if (!run.evaluation) {
    log_info(fmt::format("{}: evaluating", run.folder.string()));
    io::OutputFile file(run.folder / evaluation_file, io::OutputKind::evaluation);
    run.evaluation = evaluate(run, options, {});
    file.write(run.evaluation->to_json());
  }
  if (run.checkpoint.config.data.episodes == Episodes::minibatch) return;  // there are no shots
  if (!run.by_shots.empty()) return;                                       // already evaluated
  log_info(fmt::format("{}: error against shots", run.folder.string()));
  const int episodes = std::min(shots_episodes, run.checkpoint.config.evaluate.episodes);
  for (const int shots : shots_shown) {
    try {
      run.by_shots.emplace_back(shots, evaluate(run, options,
                                                {fmt::format("data.shots={}", shots),
                                                 fmt::format("evaluate.episodes={}", episodes)}));
    } catch (const Stopped&) {
      throw;
    } catch (const Error& error) {
      // The data have too few rows for so many shots. The report shows the smaller numbers.
      log_warning(fmt::format("{} shots are left out: {}", shots, error.what()));
      break;
    }
  }
}

Chart shots_chart(const std::string& name,
                  const std::vector<std::pair<int, Evaluation>>& by_shots) {
  const Evaluation& e = by_shots.front().second;
  const bool classify = e.last().accuracy.has_value();
  Chart chart;
  chart.title = classify ? "Accuracy against shots" : "Error against shots";
  chart.caption = fmt::format(
      "Mean over {} {} with 95 % intervals, {}, {} sample{}", e.episodes, episodes_text(e),
      e.last().inner_steps < 0 ? std::string("fitted in closed form")
                               : fmt::format("{} inner step{}", e.last().inner_steps,
                                             e.last().inner_steps == 1 ? "" : "s"),
      e.samples, e.samples == 1 ? "" : "s");
  chart.x_label = classify ? "support examples a class" : "support points";
  chart.y_label = classify ? "accuracy" : "mean squared error";
  // A logarithmic axis cannot show 0.
  chart.log_x = by_shots.front().first > 0;
  Curve curve{.name = name};
  std::vector<Curve> baselines;
  for (const auto& [shots, evaluation] : by_shots) {
    curve.x.push_back(shots);
    curve.y.push_back(estimate(error_of(evaluation.last())));
    for (const Score& s : evaluation.baselines) {
      auto found = std::ranges::find(baselines, s.name, &Curve::name);
      if (found == baselines.end()) {
        baselines.push_back({.name = s.name});
        found = std::prev(baselines.end());
      }
      found->x.push_back(shots);
      found->y.push_back(estimate(error_of(s)));
    }
  }
  chart.curves.push_back(std::move(curve));
  for (Curve& b : baselines) chart.curves.push_back(std::move(b));
  return chart;
}

std::vector<Chart> charts(const ReportData& run) {
  std::vector<Chart> all;
  if (run.evaluation && !is_closed_form(run.checkpoint.config.algorithm)) {
    const Evaluation& e = *run.evaluation;
    const bool classify = e.last().accuracy.has_value();
    const std::string error = classify ? "accuracy" : "mean squared error";
    Chart chart;
    chart.title = classify ? "Accuracy against inner steps" : "Error against inner steps";
    chart.caption = fmt::format("Mean over {} {} episodes with 95 % intervals",
                                e.episodes - e.diverged, split_name(e.split));
    chart.x_label = "inner steps";
    chart.y_label = error;
    Curve curve{.name = run.name};
    for (const Score& s : e.steps) {
      if (s.calibrated) continue;  // the last inner step again
      curve.x.push_back(s.inner_steps);
      curve.y.push_back(estimate(error_of(s)));
    }
    chart.curves.push_back(std::move(curve));
    all.push_back(std::move(chart));
  }
  if (run.by_shots.size() > 1) all.push_back(shots_chart(run.name, run.by_shots));
  for (Chart& chart : ood_charts(run.ood)) all.push_back(std::move(chart));
  return all;
}

std::vector<BandCoverage> coverage(const ReportData& run) {
  std::vector<BandCoverage> all;
  for (const auto& [shots, evaluation] : run.by_shots) {
    if (std::ranges::find(shots_drawn, shots) == shots_drawn.end()) continue;
    BandCoverage bands = band_coverage(band_name(run, shots), evaluation.last());
    if (!bands.nominal.empty()) all.push_back(std::move(bands));
  }
  if (all.empty() && run.evaluation && !run.evaluation->last().coverage.empty()) {
    all.push_back(band_coverage(run.name, run.evaluation->last()));
  }
  return all;
}

std::vector<Reliability> reliability(const ReportData& run) {
  std::vector<Reliability> all;
  for (const auto& [name, score] : shown(run)) {
    if (!score->ece) continue;
    Reliability r;
    r.name = name;
    r.ece = *score->ece;
    for (const CalibrationBin& b : score->calibration) {
      r.bins.push_back({b.low, b.high, b.count, b.confidence, b.accuracy});
    }
    all.push_back(std::move(r));
  }
  return all;
}

std::vector<RiskCoverageCurve> risk_coverage(const ReportData& run) {
  std::vector<RiskCoverageCurve> all;
  for (const auto& [name, score] : shown(run)) {
    if (!score->uncertainty) continue;
    RiskCoverageCurve c;
    c.name = name;
    c.aurc = score->uncertainty->aurc.value;
    for (const RiskCoveragePoint& p : score->uncertainty->curve) {
      c.coverage.push_back(p.coverage);
      c.risk.push_back(p.risk);
    }
    all.push_back(std::move(c));
  }
  return all;
}

std::vector<PitDensities> pit(const ReportData& run) {
  std::vector<PitDensities> all;
  for (const auto& [name, score] : shown(run)) {
    double total = 0.0;
    for (const std::size_t count : score->pit) total += static_cast<double>(count);
    if (total == 0.0) continue;
    PitDensities p;
    p.name = name;
    for (const std::size_t count : score->pit) {
      p.densities.push_back(static_cast<double>(count) * static_cast<double>(score->pit.size()) /
                            total);
    }
    all.push_back(std::move(p));
  }
  return all;
}

std::vector<Diverged> diverged(const ReportData& run) {
  std::vector<Diverged> all;
  const RunState& state = run.checkpoint.state;
  all.push_back({run.name + ", training", state.diverged, state.tasks, ""});
  if (run.evaluation) {
    all.push_back({run.name + ", " + episodes_text(*run.evaluation),
                   static_cast<std::uint64_t>(run.evaluation->diverged),
                   static_cast<std::uint64_t>(run.evaluation->episodes), ""});
  }
  return all;
}

std::vector<Table> tables(const ReportData& run) {
  if (!run.evaluation) return {};
  const Evaluation& e = *run.evaluation;
  const bool classify = e.last().accuracy.has_value();
  Table table;
  table.title = run.name + " on " + episodes_text(e);
  table.caption = fmt::format("{} ({})", e.conditions(), e.source);
  for (const LeftOut& l : e.left_out) {
    table.caption += fmt::format("; left out: {} ({})", l.name, l.reason);
  }
  table.columns = classify ? std::vector<std::string>{"", "accuracy", "NLL", "Brier", "ECE"}
                           : std::vector<std::string>{"", "MSE", "R2", "NLL"};
  if (e.last().auroc) table.columns.push_back("AUROC");
  if (!classify) {
    for (const double level : e.coverage_levels()) {
      table.columns.push_back(fmt::format("in {:.0f} % band", 100.0 * level));
    }
  }
  const auto row = [&](const Score& s) {
    std::vector<std::string> cells = {name_of(run, s)};
    const auto put = [&](const std::optional<Statistic>& v) {
      cells.push_back(v ? format(estimate(*v)) : "");
    };
    if (classify) {
      cells.push_back(format_percent(estimate(*s.accuracy)));
      put(s.nll);
      put(s.brier);
      cells.push_back(s.ece ? fmt::format("{:.3f}", *s.ece) : "");
      if (e.last().auroc) put(s.auroc);
    } else {
      put(s.mse);
      put(s.r2);
      put(s.nll);
      for (const CoverageScore& c : s.coverage) {
        cells.push_back(format_percent(estimate(c.observed)));
      }
    }
    cells.resize(table.columns.size());
    return cells;
  };
  for (const Score& s : e.steps) table.rows.push_back(row(s));
  table.strong.push_back(table.rows.size() - 1);
  for (const Score& s : e.baselines) table.rows.push_back(row(s));
  std::vector<Table> all = {std::move(table)};
  if (Table more = uncertainty_table(run); !more.rows.empty()) {
    all.push_back(std::move(more));
  }
  return all;
}

std::string episodes_text(const Evaluation& evaluation) {
  return fmt::format("{} episodes", split_name(evaluation.split));
}

Facts numbers(const ReportData& run) {
  Facts facts;
  if (run.evaluation) {
    const Score& s = run.evaluation->last();
    const std::string split = split_name(run.evaluation->split);
    facts.emplace_back("evaluated on", run.evaluation->conditions());
    const auto put = [&](const char* name, const std::optional<Statistic>& value, auto format) {
      if (value) facts.emplace_back(split + " " + name, format(estimate(*value)));
    };
    put("accuracy", s.accuracy, format_percent);
    const auto plain = [](const Estimate& e) { return format(e); };
    put("MSE", s.mse, plain);
    put("R2", s.r2, plain);
    put("AUROC", s.auroc, plain);
    put("NLL", s.nll, plain);
    put("Brier", s.brier, plain);
    if (s.uncertainty) {
      facts.emplace_back(split + " ECE", interval_text(s.uncertainty->ece, 4));
      facts.emplace_back(split + " AURC", interval_text(s.uncertainty->aurc, 4));
    } else if (s.ece) {
      facts.emplace_back(split + " ECE", fmt::format("{:.3f}", *s.ece));
    }
    put("CRPS", s.crps, plain);
    put("sharpness", s.sharpness, plain);
    for (const CoverageScore& c : s.coverage) {
      facts.emplace_back(fmt::format("in {:.0f} % band", 100.0 * c.level),
                         format_percent(estimate(c.observed)));
    }
  }
  const RunState& state = run.checkpoint.state;
  if (state.validated) {
    const Estimate best{state.best.value, state.best.half_width, 0};
    facts.emplace_back("best validation " + state.best.metric,
                       state.best.metric == "accuracy" ? format_percent(best) : format(best));
  }
  facts.emplace_back("steps", std::to_string(state.step));
  facts.emplace_back("training time", fmt::format("{:.1f} s", state.seconds));
  return facts;
}

}  // namespace kshot::report
