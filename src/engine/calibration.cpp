#include "engine/calibration.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>

#include "base/log.h"
#include "engine/checkpoint.h"
#include "engine/rank_checks.h"
#include "io/atomic_file.h"
#include "io/crc32c.h"
#include "io/json_text.h"
#include "io/output_file.h"
#include "kshot/error.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;

/// The command that makes up for a calibration that cannot be used.
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
        "the run predicts points without a variance, so that there is nothing to scale; expected "
        "loss.type = "
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
    log_warning(fmt::format(
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
  j["decision_seed"] = decision_seed;
  j["decision_episodes"] = decision_episodes;
  j["confidence"] = confidence;
  for (const RiskThreshold& t : thresholds) {
    nlohmann::ordered_json entry{{"risk", t.risk}, {"threshold", nullptr}};
    if (t.threshold) {
      entry["threshold"] = *t.threshold;
      entry["coverage"] = t.coverage;
      entry["observed_risk"] = t.observed_risk;
    }
    j["thresholds"].push_back(entry);
  }
  j["quantiles"] = nlohmann::ordered_json::array();
  for (const ConformalQuantile& q : quantiles) {
    nlohmann::ordered_json entry{{"level", q.level}, {"score", nullptr}};  // null: infinity
    if (std::isfinite(q.score)) entry["score"] = q.score;
    j["quantiles"].push_back(entry);
  }
  return j.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

namespace {

/// The decisions of a calibration file. A file of version 0.1.0 has none.
void read_decisions(const nlohmann::json& j, RunCalibration& c) {
  if (!j.contains("quantiles")) {
    throw Error(
        "it was written by an earlier version, without thresholds and quantiles; run kshot "
        "calibrate again");
  }
  c.decision_seed = io::whole_number<std::uint64_t>(j.at("decision_seed"));
  c.decision_episodes = io::whole_number<int>(j.at("decision_episodes"));
  c.confidence = j.at("confidence").get<double>();
  if (j.contains("thresholds")) {
    for (const auto& entry : j.at("thresholds")) {
      RiskThreshold t{.risk = entry.at("risk").get<double>(), .threshold = {}};
      if (!entry.at("threshold").is_null()) {
        t.threshold = entry.at("threshold").get<double>();
        t.coverage = entry.at("coverage").get<double>();
        t.observed_risk = entry.at("observed_risk").get<double>();
      }
      c.thresholds.push_back(t);
    }
  }
  for (const auto& entry : j.at("quantiles")) {
    c.quantiles.push_back(
        {entry.at("level").get<double>(),
         io::number_or(entry.at("score"), std::numeric_limits<double>::infinity())});
  }
  if (!std::ranges::is_sorted(c.thresholds, {}, &RiskThreshold::risk) ||
      !std::ranges::is_sorted(c.quantiles, {}, &ConformalQuantile::level)) {
    throw Error("\"thresholds\" or \"quantiles\" are not in ascending order");
  }
}

}  // namespace

RunCalibration RunCalibration::from_json(const std::string& text, const std::string& origin) {
  try {
    const nlohmann::json j = io::parse_json(text);
    if (j.at("format") != io::calibration_mark) {
      throw Error("its \"format\" is not that of a calibration");
    }
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
    c.step = io::whole_number<std::uint64_t>(j.at("step"));
    c.inner_steps = io::whole_number<int>(j.at("inner_steps"));
    c.samples = io::whole_number<int>(j.at("samples"));
    c.source = j.at("source").get<std::string>();
    c.split = split_from(j.at("split").get<std::string>());
    c.seed = io::whole_number<std::uint64_t>(j.at("seed"));
    c.episodes = io::whole_number<int>(j.at("episodes"));
    c.diverged = io::whole_number<int>(j.at("diverged"));
    c.nll_before = j.at("nll_before").get<double>();
    c.nll_after = j.at("nll_after").get<double>();
    if (j.contains("ece_before")) c.ece_before = j.at("ece_before").get<double>();
    if (j.contains("ece_after")) c.ece_after = j.at("ece_after").get<double>();
    read_decisions(j, c);
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

RiskThreshold RunCalibration::threshold_for(double risk) const {
  if (!classification) {
    throw Error(
        "a bound of the risk: the run predicts values, which are not right or wrong; expected a "
        "level of intervals (--level)");
  }
  if (thresholds.empty() || !(risk >= thresholds.front().risk && risk < 1.0)) {
    throw Error(fmt::format("a bound of the risk of {}: expected {} to 1", risk,
                            thresholds.empty() ? 0.0 : thresholds.front().risk));
  }
  const auto above =
      std::ranges::upper_bound(thresholds, risk * (1.0 + 1e-12), {}, &RiskThreshold::risk);
  const RiskThreshold& t = *std::prev(above);
  if (!t.threshold) {
    throw Error(fmt::format(
        "no threshold of confidence keeps the risk of wrong answers below {} with a confidence of "
        "{} on {} validation episodes; expected a larger bound, or kshot calibrate with more "
        "--episodes",
        t.risk, confidence, decision_episodes));
  }
  return t;
}

ConformalQuantile RunCalibration::quantile_for(double level) const {
  if (quantiles.empty() || !(level > 0.0 && level <= quantiles.back().level)) {
    throw Error(
        fmt::format("a level of prediction sets of {}: expected a number above 0, at most {}",
                    level, quantiles.empty() ? 0.0 : quantiles.back().level));
  }
  const ConformalQuantile& q =
      *std::ranges::lower_bound(quantiles, level * (1.0 - 1e-12), {}, &ConformalQuantile::level);
  if (!std::isfinite(q.score)) {
    throw Error(fmt::format(
        "prediction sets of level {} need more than the {} validation episodes of the calibration; "
        "expected kshot calibrate with more --episodes",
        q.level, decision_episodes));
  }
  return q;
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

WrittenCalibration calibrate_run(const fs::path& run, const EvaluatorOptions& options,
                                 double confidence) {
  Evaluator evaluator(run, options);
  Communicator* const ranks = options.ranks.get();
  return run_and_report_failure(ranks, [&] {
    const fs::path path = find_checkpoint(run).parent_path() / calibration_file;
    std::optional<io::OutputFile> file;
    if (is_rank_zero(ranks)) file.emplace(path, io::OutputKind::calibration);
    WrittenCalibration result{evaluator.calibrate(confidence), path};
    if (file) file->write(result.calibration.to_json());
    if (ranks != nullptr) ranks->barrier("the calibration file");
    return result;
  });
}

}  // namespace kshot
