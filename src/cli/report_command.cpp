// `report` and `compare`: run folders as HTML pages.
#include <fmt/format.h>

#include <cstdio>

#include "cli/commands.h"
#include "kshot/report.h"

namespace kshot::cli {

int run_report(const ReportArguments& a) {
  ReportOptions options;
  options.device = a.machine.device;
  options.threads = a.machine.threads;
  options.quick = a.quick;
  options.allow_changed_data = a.allow_changed_data;
  fmt::print("{}\n", write_report(a.run, a.out, options).file.string());
  return 0;
}

int run_compare(const CompareArguments& a) {
  const RunComparison comparison = compare_runs({a.runs.begin(), a.runs.end()}, a.out);
  fmt::print("{}\n{}\n", comparison.text(), comparison.file.string());
  return 0;
}

}  // namespace kshot::cli
