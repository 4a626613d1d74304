// Training and evaluation of runs.
#include "bindings.h"
#include "engine/calibration.h"
#include "engine/evaluate_run.h"
#include "engine/rank_checks.h"
#include "engine/run_folder.h"

namespace kshot::python {

using namespace nb::literals;

namespace {

const char* reason_name(StopReason reason) {
  switch (reason) {
    case StopReason::steps:
      return "steps";
    case StopReason::patience:
      return "patience";
    case StopReason::time_limit:
      return "time_limit";
    case StopReason::asked:
      return "asked";
  }
  return "";
}

nb::dict to_dict(const TrainReport& r) {
  nb::dict d;
  d["step"] = r.step;
  d["loss"] = r.loss;
  d["task_loss"] = r.task_loss;
  d["learning_rate"] = r.learning_rate;
  d["gradient_norm"] = r.gradient_norm;
  d["tasks"] = r.tasks;
  d["diverged"] = r.diverged;
  d["guarded"] = r.guarded;
  d["seconds"] = r.seconds;
  d["tasks_per_second"] = r.tasks_per_second;
  nb::dict metrics;
  for (const auto& [name, value] : r.metrics) metrics[nb::cast(name)] = value;
  d["metrics"] = metrics;
  return d;
}

nb::dict to_dict(const ValidationReport& v) {
  nb::dict d;
  d["step"] = v.step;
  d["metric"] = v.metric;
  d["value"] = v.value;
  d["half_width"] = v.half_width;
  d["nll"] = v.nll;
  d["best"] = v.best;
  d["diverged"] = v.diverged;
  d["seconds"] = v.seconds;
  return d;
}

nb::dict to_dict(const TrainResult& r) {
  nb::dict d;
  d["step"] = r.step;
  d["reason"] = reason_name(r.reason);
  d["seconds"] = r.seconds;
  d["loss"] = r.loss;
  d["best"] = r.validated ? nb::object(to_dict(r.best)) : nb::none();
  d["tasks"] = r.tasks;
  d["diverged"] = r.diverged;
  d["has_validation"] = r.has_validation;
  d["has_test"] = r.has_test;
  return d;
}

struct Machine {
  std::string device = "auto";
  int threads = 0;
};

/// Returns on all ranks the path that rank 0 makes.
std::filesystem::path rank_zero_path(Communicator* ranks,
                                     const std::function<std::filesystem::path()>& make) {
  return run_and_report_failure(ranks, [&] {
    const std::string text = is_rank_zero(ranks) ? make().string() : std::string();
    return std::filesystem::path(text_of_rank_zero(ranks, text, "the run folder"));
  });
}

/// Trains a configuration. If `folder` is empty, the run folder is the first free one of runs/NAME,
/// runs/NAME-2, ... If `source` is null, the episodes come from [data]. Reports go to `on_report`
/// and `on_validation` as dicts.
nb::dict train(const Config& config, const std::shared_ptr<EpisodeSource>& source,
               const std::filesystem::path& folder, const std::string& name, bool resume,
               bool allow_changed_data, const Machine& machine, bool progress,
               const nb::callable& on_report, const nb::callable& on_validation) {
  Interruption interruption;
  TrainerOptions options;
  options.resume = resume;
  options.allow_changed_data = allow_changed_data;
  options.device = machine.device;
  options.threads = machine.threads;
  options.progress = progress;
  options.command = "kshot.train (Python)";
  options.on_report = [&](const TrainReport& r) {
    interruption.call([&] { on_report(to_dict(r)); });
  };
  options.on_validation = [&](const ValidationReport& v) {
    interruption.call([&] { on_validation(to_dict(v)); });
  };
  options.stop = [&] { return interruption.stop(); };
  TrainResult result;
  {
    const nb::gil_scoped_release release;
    config_errors([&] {
      config.check();
      if (!source) config.check_data();
    });
    options.ranks = launched_ranks();
    std::optional<DefaultRunFolder> made;
    options.run_folder = folder;
    if (folder.empty()) {
      const auto make = [&] { return made.emplace(name).path(); };
      options.run_folder = rank_zero_path(options.ranks.get(), make);
    }
    std::optional<Trainer> trainer;
    if (source) {
      trainer.emplace(config, source, options);
    } else {
      trainer.emplace(config, options);
    }
    result = trainer->run();
  }
  interruption.rethrow();
  nb::dict d = to_dict(result);
  d["folder"] = options.run_folder;
  return d;
}

/// Returns the evaluation as JSON and as a table for people. `source` and `out` are those of
/// EvaluationPlan.
std::pair<std::string, std::string> evaluate(const std::filesystem::path& run,
                                             const std::shared_ptr<EpisodeSource>& source,
                                             EvaluatorOptions options,
                                             const std::filesystem::path& out) {
  Interruption interruption;
  options.stop = interruption.asker();
  return interruption.run([&] {
    options.ranks = launched_ranks();
    const Evaluation result = evaluate_run(run, options, {.source = source, .out = out}).evaluation;
    return std::pair(result.to_json(), result.table());
  });
}

/// Returns the calibration of a run as JSON, a description of it, and its file.
std::tuple<std::string, std::string, std::filesystem::path> calibrate(
    const std::filesystem::path& run, EvaluatorOptions options) {
  Interruption interruption;
  options.stop = interruption.asker();
  const WrittenCalibration written = interruption.run([&] {
    options.ranks = launched_ranks();
    return calibrate_run(run, options);
  });
  return {written.calibration.to_json(), written.calibration.describe(), written.file};
}

}  // namespace

Split split_of(const std::string& name) {
  for (const Split split : {Split::train, Split::validation, Split::test}) {
    if (name == split_name(split)) return split;
  }
  throw nb::value_error(
      ("split: expected \"train\", \"validation\" or \"test\", got \"" + name + "\"").c_str());
}

void bind_runs(nb::module_& m) {
  m.def("mpi_library", &mpi_library);
  m.def(
      "train",
      [](const Config& config, const std::shared_ptr<EpisodeSource>& source,
         const std::filesystem::path& folder, const std::string& name, bool resume,
         bool allow_changed_data, const std::string& device, int threads, bool progress,
         const nb::callable& on_report, const nb::callable& on_validation) {
        return train(config, source, folder, name, resume, allow_changed_data, {device, threads},
                     progress, on_report, on_validation);
      },
      "config"_a, "source"_a.none(), "folder"_a, "name"_a, "resume"_a, "allow_changed_data"_a,
      "device"_a, "threads"_a, "progress"_a, "on_report"_a, "on_validation"_a);
  m.def(
      "resumed_config",
      [](const std::filesystem::path& run, const Config* config,
         const std::vector<std::string>& overrides) {
        return config_errors([&] { return resumed_config(run, config, overrides); });
      },
      "run"_a, "config"_a.none(), "overrides"_a);
  m.def(
      "evaluate",
      [](const std::filesystem::path& run, const std::shared_ptr<EpisodeSource>& source,
         const std::string& device, int threads, const std::vector<std::string>& overrides,
         const std::string& split, bool baselines, bool progress, bool allow_changed_data,
         bool calibrated, const std::filesystem::path& out) {
        EvaluatorOptions options;
        options.calibrated = calibrated;
        options.device = device;
        options.threads = threads;
        options.overrides = overrides;
        options.split = split_of(split);
        options.baselines = baselines;
        options.progress = progress;
        options.allow_changed_data = allow_changed_data;
        return evaluate(run, source, options, out);
      },
      "run"_a, "source"_a.none(), "device"_a, "threads"_a, "overrides"_a, "split"_a, "baselines"_a,
      "progress"_a, "allow_changed_data"_a, "calibrated"_a, "out"_a);
  m.def(
      "calibrate",
      [](const std::filesystem::path& run, const std::string& device, int threads,
         const std::vector<std::string>& overrides, bool progress, bool allow_changed_data) {
        EvaluatorOptions options;
        options.device = device;
        options.threads = threads;
        options.overrides = overrides;
        options.split = Split::validation;
        options.progress = progress;
        options.allow_changed_data = allow_changed_data;
        return calibrate(run, options);
      },
      "run"_a, "device"_a, "threads"_a, "overrides"_a, "progress"_a, "allow_changed_data"_a);
}

}  // namespace kshot::python
