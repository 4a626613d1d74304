#include "report/run_records.h"

#include <fmt/format.h>
#include <cmath>
#include <nlohmann/json.hpp>
#include <system_error>

#include "engine/checkpoint.h"
#include "io/atomic_file.h"
#include "io/json_lines.h"
#include "io/json_text.h"
#include "kshot/error.h"

namespace kshot::report {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

double number(const json& record, const char* key) {
  const auto found = record.find(key);
  return found == record.end() ? std::nan("") : io::number_or_nan(*found);
}

}  // namespace

std::vector<TrainingCurve> training_curves(const fs::path& file, const std::string& name) {
  std::vector<TrainingCurve> curves;
  const auto curve = [&](const char* quantity, bool validation) -> TrainingCurve& {
    for (TrainingCurve& c : curves) {
      if (c.quantity == quantity && c.validation == validation) return c;
    }
    curves.push_back({.name = name, .quantity = quantity, .validation = validation});
    return curves.back();
  };
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return curves;
  const auto add = [&](const json& record, const char* key, const char* quantity, bool validation) {
    if (!record.contains(key)) return;
    TrainingCurve& c = curve(quantity, validation);
    c.step.push_back(number(record, "step"));
    c.seconds.push_back(number(record, "seconds"));
    c.value.push_back(number(record, key));
    if (validation)
      c.half_width.push_back(number(record, (std::string(key) + "_half_width").c_str()));
  };
  const std::vector<json> records = io::read_json_lines(file);
  try {
    for (const json& record : records) {
      const std::string kind = record.value("kind", "");
      if (kind == "train") {
        add(record, "task_loss", "task loss", false);
        add(record, "gradient_snr", "signal to noise of the gradient", false);
        add(record, "kl", "KL from the prior, nats a task", false);
        add(record, "sigma_moved", "share of weights whose sigma left the prior's", false);
        add(record, "log_sigma", "mean log sigma", false);
        add(record, "noise_std", "learned observation noise, standard deviation", false);
      } else if (kind == "validation") {
        add(record, "accuracy", "accuracy", true);
        add(record, "mse", "mean squared error", true);
        add(record, "nll", "negative log-likelihood", true);
      }
    }
  } catch (const json::exception& error) {
    throw Error(fmt::format("{}: not a metrics file of kshot: {}", file.string(), error.what()));
  }
  return curves;
}

Facts environment(const fs::path& folder) {
  Facts facts;
  std::error_code ignored;
  if (!fs::exists(folder / run_file, ignored)) return facts;
  try {
    const auto record = io::parse_json<nlohmann::ordered_json>(io::read_file(folder / run_file));
    const auto put = [&](const nlohmann::ordered_json& j, const char* key, const char* shown) {
      const auto found = j.find(key);
      if (found == j.end()) return;
      facts.emplace_back(shown, found->is_string() ? found->get<std::string>() : found->dump());
    };
    put(record, "seed", "seed");
    put(record, "network_weights", "weights of the network");
    put(record, "meta_parameters", "meta-learned parameters");
    put(record, "episodes", "episodes");
    const auto& sessions = record.at("sessions");
    if (!sessions.empty()) {
      const auto& last = sessions.back();
      put(last, "kshot", "kshot");
      put(last, "compiler", "compiler");
      put(last, "device", "device");
      put(last, "threads", "threads");
      put(last, "processor", "processor");
      put(sessions.front(), "start", "start");
      put(sessions.front(), "command", "command");
      if (sessions.size() > 1) facts.emplace_back("sessions", std::to_string(sessions.size()));
    }
  } catch (const json::exception& error) {
    throw Error(fmt::format("{}: not a run record of kshot: {}", (folder / run_file).string(),
                            error.what()));
  }
  return facts;
}

}  // namespace kshot::report
