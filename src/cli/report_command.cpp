// `report` and `compare`: run folders as HTML pages.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>
#include <set>

#include "cli/commands.h"
#include "cli/paired_comparison.h"
#include "cli/report_page.h"
#include "cli/run_pieces.h"
#include "config/facts.h"
#include "io/log.h"
#include "io/output_file.h"
#include "kshot/error.h"
#include "metrics/report.h"

namespace kshot::cli {
namespace {

namespace fs = std::filesystem;

/// The shortest endings of the paths that tell the runs apart.
std::vector<std::string> run_names(const std::vector<std::string>& folders) {
  std::vector<fs::path> paths;
  for (const std::string& folder : folders) {
    fs::path path = fs::path(folder).lexically_normal();
    if (!path.has_filename()) path = path.parent_path();
    paths.push_back(path);
  }
  std::vector<std::string> names;
  names.reserve(paths.size());
  for (const fs::path& path : paths) names.push_back(path.filename().string());
  if (std::set<std::string>(names.begin(), names.end()).size() == names.size()) return names;
  for (std::size_t i = 0; i < paths.size(); ++i) names[i] = paths[i].string();
  if (std::set<std::string>(names.begin(), names.end()).size() != names.size()) {
    throw Error("compare: the same run folder is given twice");
  }
  return names;
}

/// What tells that the runs' results do not belong side by side; empty where they do. Inner steps
/// and samples are a run's own.
std::string evaluation_warning(const std::vector<std::string>& names,
                               const std::vector<RunPieces>& runs) {
  std::set<std::string> tasks, data;
  std::string each;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const std::optional<Evaluation>& e = runs[i].evaluation;
    if (!e) continue;
    const std::string task =
        fmt::format("{} split, {} support rows, {} query rows, {}", split_name(e->split),
                    fmt::format("{} to {}", e->support.least, e->support.most),
                    fmt::format("{} to {}", e->query.least, e->query.most),
                    e->shape.target == TargetKind::label ? fmt::format("{} ways", e->shape.outputs)
                                                         : "numbers");
    tasks.insert(fmt::format("{}, seed {}, {} episodes", task, e->seed, e->episodes));
    if (!e->data_checksum.empty()) data.insert(e->data_checksum);
    each += fmt::format("{}{}: {}", each.empty() ? "" : "; ", names[i], e->conditions());
  }
  if (tasks.size() > 1) {
    return "The runs were evaluated on different episodes, so that their results are not "
           "comparable: " +
           each;
  }
  if (data.size() > 1) {
    return "The runs were evaluated on different data files, so that their results are not "
           "comparable";
  }
  return {};
}

void print_table(const report::Comparison& comparison) {
  std::vector<std::string> columns;
  for (const report::ComparedRun& run : comparison.runs) {
    for (const auto& [key, value] : run.numbers) {
      if (std::ranges::find(columns, key) == columns.end()) columns.push_back(key);
    }
  }
  for (const report::ComparedRun& run : comparison.runs) {
    fmt::print("{}\n", run.name);
    for (const std::string& column : columns) {
      for (const auto& [key, value] : run.numbers) {
        if (key == column) fmt::print("  {:<26}  {}\n", key, value);
      }
    }
  }
  std::map<std::string, std::map<std::string, std::string>> keys;
  for (const report::ComparedRun& run : comparison.runs) {
    for (const auto& [key, value] : run.configuration) keys[key][run.name] = value;
  }
  bool first = true;
  for (const auto& [key, values] : keys) {
    std::set<std::string> distinct;
    for (const auto& [name, value] : values) distinct.insert(value);
    if (distinct.size() == 1 && values.size() == comparison.runs.size()) continue;
    if (first) fmt::print("\nsettings that differ\n");
    first = false;
    fmt::print("  {}:", key);
    for (const report::ComparedRun& run : comparison.runs) {
      const auto found = values.find(run.name);
      fmt::print("  {} = {}", run.name, found == values.end() ? "(absent)" : found->second);
    }
    fmt::print("\n");
  }
}

/// What a part of a run is called beside the run's name: calibrated predictions are told apart.
std::string part_name(const std::string& part, const std::string& run) {
  return part.ends_with(", calibrated") ? "calibrated" : run;
}

/// Each method's differences, one line for each number.
void print_paired(const report::Table& table) {
  fmt::print("\n{}\n(paired; in brackets 95 % bootstrap intervals over episodes)\n", table.title);
  for (const std::vector<std::string>& row : table.rows) {
    fmt::print("  {} ({} episodes)\n", row[0], row[1]);
    for (std::size_t c = 2; c < row.size(); ++c) {
      if (!row[c].empty()) fmt::print("    {:<24}  {}\n", table.columns[c], row[c]);
    }
  }
}

}  // namespace

int run_report(const ReportArguments& a) {
  RunPieces run = read_run(a.run);
  io::OutputFile file(a.out.empty() ? fs::path(a.run) / "report.html" : fs::path(a.out),
                      io::OutputKind::page);
  std::vector<report::TaskFigure> figures;
  if (!a.quick) {
    study_run(run, a.machine, a.allow_changed_data);
    figures = task_figures({&run}, 3, a.machine);
  }
  const report::Report page = report_page({&run}, std::move(figures));
  file.write(report::render(page));
  fmt::print("{}\n", file.path().string());
  return 0;
}

int run_compare(const CompareArguments& a) {
  const std::vector<std::string> names = run_names(a.runs);
  io::OutputFile file(a.out.empty() ? "comparison.html" : a.out, io::OutputKind::page);
  report::Comparison comparison;
  comparison.title = "Comparison";
  std::vector<RunPieces> runs;
  runs.reserve(names.size());
  for (std::size_t i = 0; i < names.size(); ++i) {
    const RunPieces& run = runs.emplace_back(read_run(a.runs[i]));
    if (!run.evaluation) {
      io::log_info(
          fmt::format("{} has not been evaluated: kshot evaluate {}", a.runs[i], a.runs[i]));
    }
    report::ComparedRun entry;
    entry.name = names[i];
    entry.numbers = numbers(run);
    entry.training = run.training;
    for (report::TrainingCurve& curve : entry.training) curve.name = names[i];
    entry.charts = charts(run);
    for (report::Chart& chart : entry.charts) {
      for (report::Curve& curve : chart.curves) curve.name = names[i];
    }
    entry.coverage = coverage(run);
    for (report::BandCoverage& c : entry.coverage) c.name = names[i];
    entry.reliability = reliability(run);
    for (report::Reliability& r : entry.reliability) r.name = part_name(r.name, names[i]);
    entry.risk_coverage = risk_coverage(run);
    for (report::RiskCoverageCurve& c : entry.risk_coverage) c.name = part_name(c.name, names[i]);
    entry.pit = pit(run);
    for (report::PitDensities& p : entry.pit) p.name = part_name(p.name, names[i]);
    entry.diverged = diverged(run);
    entry.configuration = config_facts(run.checkpoint.config);
    entry.environment = run.environment;
    comparison.runs.push_back(std::move(entry));
  }
  comparison.subtitle = fmt::format("{} runs", comparison.runs.size());
  PairedComparison paired = paired_comparison(names, runs);
  if (const std::string warning = evaluation_warning(names, runs); !warning.empty()) {
    io::log_warning(warning);
    comparison.subtitle += ". " + warning;
  } else {
    for (const std::string& line : paired.left_out) {
      io::log_warning(line);
      comparison.subtitle += ". " + line;
    }
  }
  print_table(comparison);
  if (!paired.table.rows.empty()) {
    print_paired(paired.table);
    comparison.tables.push_back(std::move(paired.table));
  }
  file.write(report::render(comparison));
  fmt::print("\n{}\n", file.path().string());
  return 0;
}

}  // namespace kshot::cli
