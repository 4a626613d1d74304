// kshot::write_report and kshot::write_ood: pages about one run.
#include <fmt/format.h>

#include <optional>

#include "engine/rank_checks.h"
#include "engine/run_folder.h"
#include "io/output_file.h"
#include "kshot/error.h"
#include "kshot/report.h"
#include "report/report_data.h"
#include "report/run_page.h"
#include "report/task_figures.h"

namespace kshot {

RunReport write_report(const std::filesystem::path& folder, const std::filesystem::path& out,
                       const ReportOptions& options) {
  constexpr int tasks_drawn = 3;
  report::ReportData run = report::read_run(folder);
  io::OutputFile file(out.empty() ? folder / "report.html" : out, io::OutputKind::page);
  std::vector<report::TaskFigure> figures;
  if (!options.quick) {
    report::add_missing_evaluations(run, options);
    figures = report::task_figures({&run}, tasks_drawn, options);
  }
  file.write(report::render(report::run_page({&run}, std::move(figures))));
  return {file.path(), run.name, report::numbers(run), std::move(run.evaluation),
          std::move(run.by_shots)};
}

namespace {

OodReport write_kinds(const std::filesystem::path& run, const std::vector<std::string>& kinds,
                      const std::filesystem::path& out, const EvaluatorOptions& options) {
  if (kinds.empty()) throw Error("kinds: expected at least one kind of rows out of distribution");
  OodReport result;
  result.file = out.empty() ? file_of_run(run, report::ood_file) : out;
  result.page = std::filesystem::path(result.file).replace_extension(".html");
  const bool is_rank_zero = kshot::is_rank_zero(options.ranks.get());
  std::optional<io::OutputFile> file, page;
  if (is_rank_zero) {
    file.emplace(result.file, io::OutputKind::evaluation);
    page.emplace(result.page, io::OutputKind::page);
  }
  for (const std::string& kind : kinds) {
    result.evaluations.push_back(evaluate_ood(run, kind, options));
  }
  if (is_rank_zero) {
    report::Report charts;
    charts.title = fmt::format("{}: out of distribution",
                               report::method_name(result.evaluations.front().algorithm));
    charts.charts = report::ood_charts(result.evaluations);
    file->write(ood_to_json(result.evaluations));
    page->write(report::render(charts));
  }
  if (options.ranks) options.ranks->barrier("the evaluation");
  return result;
}

}  // namespace

OodReport write_ood(const std::filesystem::path& run, const std::vector<std::string>& kinds,
                    const std::filesystem::path& out, const EvaluatorOptions& options) {
  return run_and_report_failure(options.ranks.get(),
                                [&] { return write_kinds(run, kinds, out, options); });
}

std::string OodReport::table() const {
  std::string text;
  for (const OodEvaluation& e : evaluations) text += (text.empty() ? "" : "\n") + e.table();
  return text;
}

}  // namespace kshot
