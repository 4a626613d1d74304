#include "engine/run_log.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/checkpoint.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;

fs::path prepare(const fs::path& folder, std::optional<std::uint64_t> resumed_at) {
  if (resumed_at) {
    io::truncate_after(folder / metrics_file, static_cast<std::int64_t>(*resumed_at));
  }
  return folder / metrics_file;
}

}  // namespace

RunLog::RunLog(const fs::path& folder, std::optional<std::uint64_t> resumed_at)
    : lines_(prepare(folder, resumed_at)),
      events_(folder, resumed_at ? static_cast<std::int64_t>(*resumed_at) + 1 : 0) {}

void RunLog::add(const TrainReport& r) {
  nlohmann::ordered_json record{{"kind", "train"},
                                {"step", r.step},
                                {"seconds", r.seconds},
                                {"loss", r.loss},
                                {"task_loss", r.task_loss},
                                {"tasks", r.tasks},
                                {"diverged", r.diverged},
                                {"guarded", r.guarded},
                                {"learning_rate", r.learning_rate},
                                {"gradient_norm", r.gradient_norm},
                                {"tasks_per_second", r.tasks_per_second}};
  const auto step = static_cast<std::int64_t>(r.step);
  for (const auto& [name, value] : r.metrics) {
    if (!std::isfinite(value)) continue;
    record[name] = value;
    events_.scalar("train/" + name, step, value);
  }
  lines_.append(record);
  events_.scalar("train/loss", step, r.loss);
  events_.scalar("train/task_loss", step, r.task_loss);
  events_.scalar("train/diverged", step, static_cast<double>(r.diverged));
  events_.scalar("train/guarded", step, static_cast<double>(r.guarded));
  events_.scalar("train/learning_rate", step, r.learning_rate);
  events_.scalar("train/gradient_norm", step, r.gradient_norm);
  events_.scalar("train/tasks_per_second", step, r.tasks_per_second);
  events_.flush();
}

void RunLog::add(const ValidationDetail& v) {
  nlohmann::ordered_json record{{"kind", "validation"},
                                {"step", v.report.step},
                                {"seconds", v.report.seconds},
                                {"metric", v.report.metric}};
  const auto step = static_cast<std::int64_t>(v.report.step);
  const auto put = [&](const char* name, const std::optional<metrics::Estimate>& e) {
    if (!e || e->count == 0) return;
    record[name] = e->mean;
    record[std::string(name) + "_half_width"] = e->half_width;
    events_.scalar(std::string("validation/") + name, step, e->mean);
  };
  put("accuracy", v.accuracy);
  put("mse", v.mse);
  put("nll", v.nll);
  record["diverged"] = v.report.diverged;
  record["best"] = v.report.best;
  lines_.append(record);
  events_.flush();
}

}  // namespace kshot
