#include "engine/calibration.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <system_error>

#include "engine/checkpoint.h"
#include "io/atomic_file.h"
#include "io/crc32c.h"
#include "io/json_text.h"
#include "io/log.h"
#include "io/output_file.h"
#include "kshot/error.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;

/// What a user does about a calibration that cannot be used.
std::string remedy(const fs::path& checkpoint) {
  const fs::path run = checkpoint.filename() == "best.safetensors" && checkpoint.has_parent_path()
                           ? checkpoint.parent_path()
                           : checkpoint;
  return fmt::format("kshot calibrate {}", run.string());
}

Split split_from(const std::string& text) {
  for (const Split split : {Split::train, Split::validation, Split::test}) {
    if (text == split_name(split)) return split;
  }
  throw Error(fmt::format("\"split\" is \"{}\"", text));
}

}  // namespace

std::string file_checksum(const fs::path& file) {
  return fmt::format("crc32c:{:08x}", io::crc32c(io::read_file(file)));
}

void CalibrationFit::add(const Entry& entry, const QueryTargets& targets) {
  if (options_.classify) {
    temperature_.add_episode(entry.values, targets.labels, targets.outputs);
    kept_.push_back({entry.values, targets});
    return;
  }
  for (const double s : entry.noise) {
    if (s > 0.0) continue;
    throw Error(
        "the run predicts points, whose variance nothing can scale; expected loss.type = "
        "\"gaussian_nll\", or an algorithm that predicts distributions (abml, hvi, alpaca, dkt)");
  }
  variance_.add_episode(entry.values, entry.samples, targets.values, entry.noise);
}

double CalibrationFit::ece(double temperature) const {
  metrics::ClassificationMetrics all(options_.uncertainty.bins, options_.uncertainty.edges);
  for (const Kept& k : kept_) {
    std::vector<double> p = k.probabilities;
    if (temperature != 1.0) metrics::apply_temperature(p, k.targets.outputs, temperature);
    all.add_episode(p, k.targets.labels, k.targets.outputs);
  }
  return all.calibration().ece();
}

void CalibrationFit::finish(RunCalibration& result) const {
  const metrics::Recalibration fit = options_.classify ? temperature_.fit() : variance_.fit();
  result.classification = options_.classify;
  result.value = fit.value;
  result.nll_before = fit.nll_before;
  result.nll_after = fit.nll_after;
  if (options_.classify) {
    result.ece_before = ece(1.0);
    result.ece_after = ece(fit.value);
  }
  if (fit.at_end) {
    io::log_warning(fmt::format(
        "{} is at the end of the range that is searched, and the likelihood still grows there: all "
        "predictions are right, residuals are zero, or predictions are far off",
        result.describe()));
  }
}

std::string RunCalibration::describe() const {
  return fmt::format("{} {:.4g}", classification ? "temperature" : "variance factor", value);
}

std::string RunCalibration::to_json() const {
  nlohmann::ordered_json j{{"format", io::calibration_mark},
                           {"kind", classification ? "temperature" : "variance_factor"},
                           {"value", value},
                           {"checkpoint", checkpoint},
                           {"checkpoint_checksum", checkpoint_checksum},
                           {"step", step},
                           {"inner_steps", inner_steps},
                           {"samples", samples},
                           {"source", source},
                           {"split", split_name(split)},
                           {"seed", seed},
                           {"episodes", episodes},
                           {"diverged", diverged},
                           {"nll_before", nll_before},
                           {"nll_after", nll_after}};
  if (ece_before) j["ece_before"] = *ece_before;
  if (ece_after) j["ece_after"] = *ece_after;
  return j.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

RunCalibration RunCalibration::from_json(const std::string& text, const std::string& origin) {
  try {
    const nlohmann::json j = io::parse_json(text);
    if (j.at("format") != io::calibration_mark) throw Error("its \"format\" is another one");
    RunCalibration c;
    const auto kind = j.at("kind").get<std::string>();
    if (kind != "temperature" && kind != "variance_factor") {
      throw Error(fmt::format("\"kind\" is \"{}\"", kind));
    }
    c.classification = kind == "temperature";
    c.value = j.at("value").get<double>();
    if (!(c.value > 0.0 && std::isfinite(c.value))) {
      throw Error(fmt::format("\"value\" is {}, expected a number above 0", c.value));
    }
    c.checkpoint = j.at("checkpoint").get<std::string>();
    c.checkpoint_checksum = j.at("checkpoint_checksum").get<std::string>();
    c.step = io::whole<std::uint64_t>(j.at("step"));
    c.inner_steps = io::whole<int>(j.at("inner_steps"));
    c.samples = io::whole<int>(j.at("samples"));
    c.source = j.at("source").get<std::string>();
    c.split = split_from(j.at("split").get<std::string>());
    c.seed = io::whole<std::uint64_t>(j.at("seed"));
    c.episodes = io::whole<int>(j.at("episodes"));
    c.diverged = io::whole<int>(j.at("diverged"));
    c.nll_before = j.at("nll_before").get<double>();
    c.nll_after = j.at("nll_after").get<double>();
    if (j.contains("ece_before")) c.ece_before = j.at("ece_before").get<double>();
    if (j.contains("ece_after")) c.ece_after = j.at("ece_after").get<double>();
    return c;
  } catch (const nlohmann::json::exception& error) {
    throw Error(fmt::format("{}: not a calibration of kshot: {}", origin, error.what()));
  } catch (const Error& error) {
    throw Error(fmt::format("{}: not a calibration of kshot: {}", origin, error.what()));
  }
}

RunCalibration RunCalibration::read(const fs::path& checkpoint) {
  const fs::path file = checkpoint.parent_path() / calibration_file;
  std::error_code ignored;
  if (!fs::exists(file, ignored)) {
    throw Error(fmt::format("{}: the run has not been calibrated; expected {} first", file.string(),
                            remedy(checkpoint)));
  }
  RunCalibration c = from_json(io::read_file(file), file.string());
  if (const std::string now = file_checksum(checkpoint); now != c.checkpoint_checksum) {
    throw Error(fmt::format(
        "{}: it belongs to another checkpoint ({}, {}, of meta-step {}) than {} ({}); expected {} "
        "again",
        file.string(), c.checkpoint, c.checkpoint_checksum, c.step, checkpoint.string(), now,
        remedy(checkpoint)));
  }
  return c;
}

void RunCalibration::check_fit(int steps_now, int samples_now) const {
  if (steps_now == inner_steps && samples_now == samples) return;
  throw Error(fmt::format(
      "{}: fitted after {} inner steps with {} samples, got {} inner steps and {} samples; "
      "expected kshot calibrate with --steps {} and --samples {}",
      calibration_file, inner_steps, samples, steps_now, samples_now, steps_now, samples_now));
}

void RunCalibration::apply(std::span<double> probabilities, std::size_t classes) const {
  metrics::apply_temperature(probabilities, classes, value);
}

void RunCalibration::stretch(std::span<double> values, std::size_t samples_n) const {
  const std::size_t size = values.size() / samples_n;
  const double scale = std::sqrt(value);
  for (std::size_t i = 0; i < size; ++i) {
    double mean = 0.0;
    for (std::size_t s = 0; s < samples_n; ++s) {
      mean += values[s * size + i] / static_cast<double>(samples_n);
    }
    for (std::size_t s = 0; s < samples_n; ++s) {
      double& v = values[s * size + i];
      if (samples_n > 1) v = mean + scale * (v - mean);
    }
  }
}

WrittenCalibration calibrate_run(const fs::path& run, const EvaluatorOptions& options) {
  Evaluator evaluator(run, options);
  io::OutputFile file(find_checkpoint(run).parent_path() / calibration_file,
                      io::OutputKind::calibration);
  WrittenCalibration result{evaluator.calibrate(), file.path()};
  file.write(result.calibration.to_json());
  return result;
}

}  // namespace kshot
