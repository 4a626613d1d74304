// kshot::write_report.
#include "io/output_file.h"
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
    report::study_run(run, options);
    figures = report::task_figures({&run}, tasks_drawn, options);
  }
  file.write(report::render(report::run_page({&run}, std::move(figures))));
  return {file.path(), run.name, report::numbers(run), std::move(run.evaluation),
          std::move(run.by_shots)};
}

}  // namespace kshot
