// Reports and comparisons of runs, and bandits.
#include "bandit/experiment.h"
#include "bindings.h"
#include "io/output_file.h"

namespace kshot::python {

using namespace nb::literals;

namespace {

/// (numbers as JSON, table for people), as kshot._core.evaluate gives them.
nb::tuple to_tuple(const Evaluation& evaluation) {
  return nb::make_tuple(evaluation.to_json(), evaluation.table());
}

nb::dict to_dict(const RunReport& report) {
  nb::dict d;
  d["file"] = report.file;
  d["name"] = report.name;
  d["numbers"] = report.numbers;
  d["evaluation"] = report.evaluation ? nb::object(to_tuple(*report.evaluation)) : nb::none();
  nb::list by_shots;
  for (const auto& [shots, evaluation] : report.by_shots) {
    by_shots.append(nb::make_tuple(shots, to_tuple(evaluation)));
  }
  d["by_shots"] = by_shots;
  return d;
}

nb::dict report(const std::filesystem::path& run, const std::filesystem::path& out,
                const std::string& device, int threads, bool quick, bool allow_changed_data) {
  Interruption interruption;
  ReportOptions options;
  options.device = device;
  options.threads = threads;
  options.quick = quick;
  options.allow_changed_data = allow_changed_data;
  options.stop = interruption.asker();
  return to_dict(interruption.run([&] { return write_report(run, out, options); }));
}

nb::dict to_dict(const RunComparison& comparison) {
  nb::dict d;
  d["file"] = comparison.file;
  d["names"] = comparison.names;
  d["numbers"] = comparison.numbers;
  nb::list settings;
  for (const RunComparison::Setting& setting : comparison.settings) {
    settings.append(nb::make_tuple(setting.key, setting.values));
  }
  d["settings"] = settings;
  nb::list differences;
  for (const PairedDifference& difference : comparison.differences) {
    differences.append(nb::make_tuple(difference.method, difference.metric, difference.episodes,
                                      difference.value, difference.low, difference.high));
  }
  d["differences"] = differences;
  d["warnings"] = comparison.warnings;
  d["text"] = comparison.text();
  return d;
}

nb::dict compare(const std::vector<std::filesystem::path>& runs, const std::filesystem::path& out) {
  std::optional<RunComparison> comparison;
  {
    const nb::gil_scoped_release release;
    comparison = compare_runs(runs, out);
  }
  return to_dict(*comparison);
}

/// Plays; -> (results as JSON, table for people). `config` is a file, or TOML text where
/// `is_text` is set. The results and the page beside them are written unless `out` is empty.
std::pair<std::string, std::string> bandit(const std::string& config, bool is_text,
                                           const std::vector<std::string>& overrides,
                                           const std::filesystem::path& out,
                                           const std::string& device, int threads,
                                           const nb::callable& on_result) {
  Interruption interruption;
  const bandit::Settings settings = config_errors([&] {
    return is_text ? bandit::Settings::parse(config, "configuration", overrides)
                   : bandit::Settings::load(config, overrides);
  });
  bandit::ExperimentOptions options;
  options.device = device;
  options.threads = threads;
  options.stop = interruption.asker();
  options.on_result = [&](const bandit::Result& result) {
    interruption.call([&] { on_result(result.environment, result.agent, result.seconds); });
  };
  return interruption.run([&] {
    std::optional<io::OutputFile> file, page;
    if (!out.empty()) {
      std::vector<std::filesystem::path> inputs;
      if (!is_text) inputs.emplace_back(config);
      file.emplace(out, io::OutputKind::bandit, inputs);
      page.emplace(std::filesystem::path(out).replace_extension(".html"), io::OutputKind::page,
                   inputs);
    }
    const bandit::Results results = bandit::run_experiment(settings, options);
    std::string json = results.to_json();
    if (file) file->write(json);
    if (page) page->write(results.page());
    return std::pair(std::move(json), results.table());
  });
}

}  // namespace

void bind_reports(nb::module_& m) {
  m.def("report", &report, "run"_a, "out"_a, "device"_a, "threads"_a, "quick"_a,
        "allow_changed_data"_a);
  m.def("compare", &compare, "runs"_a, "out"_a);
  m.def("bandit", &bandit, "config"_a, "is_text"_a, "overrides"_a, "out"_a, "device"_a, "threads"_a,
        "on_result"_a);
}

}  // namespace kshot::python
