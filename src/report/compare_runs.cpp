// kshot::compare_runs: the page that shows several runs side by side.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <set>

#include "base/log.h"
#include "config/facts.h"
#include "io/output_file.h"
#include "kshot/error.h"
#include "kshot/report.h"
#include "report/page.h"
#include "report/paired_comparison.h"
#include "report/report_data.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;
using report::ReportData;

/// Returns names of the runs: those of their folders, or whole paths where folder names are equal.
std::vector<std::string> run_names(const std::vector<fs::path>& folders) {
  std::vector<fs::path> paths;
  for (const fs::path& folder : folders) {
    fs::path path = folder.lexically_normal();
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

/// Returns the reason why the runs' results are not comparable; empty where they are. Inner steps
/// and samples may differ between runs.
std::string evaluation_warning(const std::vector<std::string>& names,
                               const std::vector<ReportData>& runs) {
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

/// Returns the name in a comparison of a part that the run's own report calls `part`. The
/// comparison adds the run's name, so that the name of the method is left out, and the rest
/// ("1 shot", "calibrated") stays.
std::string part_name(const std::string& part, const ReportData& run, const std::string& name) {
  if (part == run.name) return name;
  return part.starts_with(run.name + ", ") ? part.substr(run.name.size() + 2) : part;
}

/// Returns the charts without the baselines, which would be drawn once per run.
std::vector<report::Chart> compared_charts(const std::string& name, const ReportData& run) {
  std::vector<report::Chart> charts = report::charts(run);
  for (report::Chart& chart : charts) {
    std::erase_if(chart.curves, [&](const report::Curve& curve) {
      return std::ranges::any_of(run.by_shots, [&](const auto& shots) {
        return std::ranges::find(shots.second.baselines, curve.name, &Score::name) !=
               shots.second.baselines.end();
      });
    });
    for (report::Curve& curve : chart.curves) curve.name = part_name(curve.name, run, name);
  }
  return charts;
}

report::ComparedRun compared_run(const std::string& name, const ReportData& run) {
  report::ComparedRun entry;
  entry.name = name;
  entry.numbers = report::numbers(run);
  entry.training = run.training;
  for (report::TrainingCurve& curve : entry.training) curve.name = name;
  entry.charts = compared_charts(name, run);
  entry.coverage = report::coverage(run);
  for (report::BandCoverage& c : entry.coverage) c.name = part_name(c.name, run, name);
  entry.reliability = report::reliability(run);
  for (report::Reliability& r : entry.reliability) r.name = part_name(r.name, run, name);
  entry.risk_coverage = report::risk_coverage(run);
  for (report::RiskCoverageCurve& c : entry.risk_coverage) c.name = part_name(c.name, run, name);
  entry.pit = report::pit(run);
  for (report::PitDensities& p : entry.pit) p.name = part_name(p.name, run, name);
  entry.diverged = report::diverged(run);
  entry.configuration = config_facts(run.checkpoint.config);
  entry.environment = run.environment;
  return entry;
}

/// Returns the keys of the configurations whose values differ between the runs.
std::vector<RunComparison::Setting> different_settings(
    const std::vector<report::ComparedRun>& runs) {
  std::map<std::string, std::vector<std::string>> keys;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    for (const auto& [key, value] : runs[i].configuration) {
      keys.try_emplace(key, runs.size(), "(absent)").first->second[i] = value;
    }
  }
  std::vector<RunComparison::Setting> different;
  for (auto& [key, values] : keys) {
    if (std::set<std::string>(values.begin(), values.end()).size() == 1) continue;
    different.push_back({key, std::move(values)});
  }
  return different;
}

}  // namespace

std::string RunComparison::text() const {
  std::string text;
  const auto out = std::back_inserter(text);
  std::vector<std::string> columns;
  for (const NamedTexts& of_run : numbers) {
    for (const auto& [key, value] : of_run) {
      if (std::ranges::find(columns, key) == columns.end()) columns.push_back(key);
    }
  }
  for (std::size_t i = 0; i < names.size(); ++i) {
    fmt::format_to(out, "{}\n", names[i]);
    for (const std::string& column : columns) {
      const auto value =
          std::ranges::find(numbers[i], column, &std::pair<std::string, std::string>::first);
      if (value != numbers[i].end()) fmt::format_to(out, "  {:<26}  {}\n", column, value->second);
    }
  }
  if (!settings.empty()) fmt::format_to(out, "\nsettings that differ\n");
  for (const Setting& setting : settings) {
    fmt::format_to(out, "  {}:", setting.key);
    for (std::size_t i = 0; i < names.size(); ++i) {
      fmt::format_to(out, "  {} = {}", names[i], setting.values[i]);
    }
    fmt::format_to(out, "\n");
  }
  if (differences.empty()) return text;
  const report::Table table = report::paired_table(names.front(), differences);
  fmt::format_to(out, "\n{}\n(paired; in brackets 95 % bootstrap intervals over episodes)\n",
                 table.title);
  for (const std::vector<std::string>& row : table.rows) {
    fmt::format_to(out, "  {} ({} episodes)\n", row[0], row[1]);
    for (std::size_t c = 2; c < row.size(); ++c) {
      if (!row[c].empty()) fmt::format_to(out, "    {:<24}  {}\n", table.columns[c], row[c]);
    }
  }
  return text;
}

RunComparison compare_runs(const std::vector<fs::path>& folders, const fs::path& out) {
  if (folders.empty()) throw Error("compare: no run folders were given, expected at least one");
  RunComparison result;
  result.names = run_names(folders);
  io::OutputFile file(out.empty() ? "comparison.html" : out, io::OutputKind::page);
  std::vector<ReportData> runs;
  runs.reserve(folders.size());
  report::Comparison page;
  page.title = "Comparison";
  for (std::size_t i = 0; i < folders.size(); ++i) {
    const ReportData& run = runs.emplace_back(report::read_run(folders[i]));
    if (!run.evaluation) {
      const std::string folder = folders[i].string();
      log_info(fmt::format("{} has not been evaluated: kshot evaluate {}", folder, folder));
    }
    page.runs.push_back(compared_run(result.names[i], run));
    result.numbers.push_back(page.runs.back().numbers);
  }
  report::PairedComparison paired = report::paired_comparison(result.names, runs);
  if (std::string warning = evaluation_warning(result.names, runs); !warning.empty()) {
    result.warnings.push_back(std::move(warning));
  } else {
    result.warnings = std::move(paired.left_out);
  }
  page.subtitle = fmt::format("{} runs", page.runs.size());
  for (const std::string& warning : result.warnings) {
    log_warning(warning);
    page.subtitle += ". " + warning;
  }
  result.differences = std::move(paired.differences);
  result.settings = different_settings(page.runs);
  if (!result.differences.empty()) {
    page.tables.push_back(report::paired_table(result.names.front(), result.differences));
  }
  file.write(report::render(page));
  result.file = file.path();
  return result;
}

}  // namespace kshot
