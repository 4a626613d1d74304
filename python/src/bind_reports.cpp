// Reports and comparisons of runs, evaluations out of distribution, sweeps, and bandits.
#include "bandit/experiment.h"
#include "bindings.h"
#include "engine/rank_checks.h"
#include "io/output_file.h"

namespace kshot::python {

using namespace nb::literals;

namespace {

/// Returns (numbers as JSON, table for people), as kshot._core.evaluate does.
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

/// Returns (numbers as JSON, tables for people, the file of the numbers, the page beside it).
nb::tuple evaluate_ood(const std::filesystem::path& run, const std::vector<std::string>& kinds,
                       const std::filesystem::path& out, EvaluatorOptions options) {
  Interruption interruption;
  options.stop = interruption.asker();
  const OodReport written = interruption.run([&] {
    options.ranks = launched_ranks();
    return write_ood(run, kinds, out, options);
  });
  return nb::make_tuple(ood_to_json(written.evaluations), written.table(), written.file,
                        written.page);
}

nb::dict to_dict(const SweepRow& row) {
  nb::dict d;
  d["run"] = row.run;
  d["values"] = row.values;
  d["status"] = row.status;
  d["step"] = row.step;
  d["best_step"] = row.best_step;
  d["metric"] = row.metric;
  d["value"] = row.value;
  d["half_width"] = row.half_width;
  d["seconds"] = row.seconds;
  d["message"] = row.message;
  return d;
}

/// Returns (rows as dicts, the table for people). `on_row` gets a dict for each run that ends.
nb::tuple sweep(const Config& config, const std::string& origin, const SweepSettings& settings,
                SweepOptions options, const nb::callable& on_row) {
  Interruption interruption;
  options.stop = interruption.asker();
  std::mutex mutex;
  options.on_row = [&](const SweepRow& row) {
    const std::lock_guard lock(mutex);
    interruption.call([&] { on_row(to_dict(row)); });
  };
  const std::vector<SweepRow> rows = interruption.run(
      [&] { return config_errors([&] { return run_sweep(config, origin, settings, options); }); });
  nb::list list;
  for (const SweepRow& row : rows) list.append(to_dict(row));
  return nb::make_tuple(list, sweep_table(settings, rows));
}

/// Plays bandits and returns (results as JSON, table for people). `config` is a file, or TOML text
/// where `is_text` is set. The results and the page beside them are written unless `out` is empty.
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
  const auto work = [&] {
    std::optional<io::OutputFile> file, page;
    if (!out.empty() && is_rank_zero(options.ranks.get())) {
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
    if (options.ranks) options.ranks->barrier("the bandits' results");
    return std::pair(std::move(json), results.table());
  };
  return interruption.run([&] {
    options.ranks = launched_ranks();
    return run_and_report_failure(options.ranks.get(), work);
  });
}

}  // namespace

void bind_reports(nb::module_& m) {
  m.def("report", &report, "run"_a, "out"_a, "device"_a, "threads"_a, "quick"_a,
        "allow_changed_data"_a);
  m.def("compare", &compare, "runs"_a, "out"_a);
  m.def(
      "evaluate_ood",
      [](const std::filesystem::path& run, const std::vector<std::string>& kinds,
         const std::string& device, int threads, const std::vector<std::string>& overrides,
         const std::string& split, bool progress, bool allow_changed_data, bool calibrated,
         const std::filesystem::path& out) {
        EvaluatorOptions options;
        options.device = device;
        options.threads = threads;
        options.overrides = overrides;
        options.split = split_of(split);
        options.progress = progress;
        options.allow_changed_data = allow_changed_data;
        options.calibrated = calibrated;
        return evaluate_ood(run, kinds, out, options);
      },
      "run"_a, "kinds"_a, "device"_a, "threads"_a, "overrides"_a, "split"_a, "progress"_a,
      "allow_changed_data"_a, "calibrated"_a, "out"_a);
  nb::class_<SweepSettings>(m, "SweepSettings")
      .def(nb::init<>())
      .def_static(
          "parse",
          [](const std::string& text) {
            return config_errors([&] { return SweepSettings::parse(text, "vary"); });
          },
          "text"_a)
      .def_prop_ro("keys",
                   [](const SweepSettings& s) {
                     std::vector<std::string> keys;
                     for (const SweepAxis& axis : s.axes) keys.push_back(axis.key);
                     return keys;
                   })
      .def_rw("random", &SweepSettings::random)
      .def_rw("seed", &SweepSettings::seed)
      .def_rw("halving", &SweepSettings::halving)
      .def_rw("first_steps", &SweepSettings::first_steps);
  m.def(
      "sweep",
      [](const Config& config, const std::string& origin, const SweepSettings& settings,
         const std::filesystem::path& out, int jobs, int threads, const std::string& device,
         bool collect, const nb::callable& on_row) {
        SweepOptions options;
        options.out = out;
        options.jobs = jobs;
        options.threads = threads;
        options.device = device;
        options.collect = collect;
        return sweep(config, origin, settings, options, on_row);
      },
      "config"_a, "origin"_a, "settings"_a, "out"_a, "jobs"_a, "threads"_a, "device"_a, "collect"_a,
      "on_row"_a);
  m.def("bandit", &bandit, "config"_a, "is_text"_a, "overrides"_a, "out"_a, "device"_a, "threads"_a,
        "on_result"_a);
}

}  // namespace kshot::python
