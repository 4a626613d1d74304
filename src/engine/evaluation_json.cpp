// Writes an evaluation's numbers as JSON and reads them.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "config/schema.h"
#include "engine/score_json.h"
#include "io/json_text.h"
#include "io/output_file.h"
#include "kshot/error.h"
#include "kshot/evaluator.h"

namespace kshot {
namespace {

/// A key of a score and the member that holds it.
template <typename Owner, typename Value>
struct Field {
  const char* key;
  Value Owner::*member;
};

constexpr Field<Score, std::optional<Statistic>> statistic_fields[] = {
    {"accuracy", &Score::accuracy},
    {"auroc", &Score::auroc},
    {"mse", &Score::mse},
    {"r2", &Score::r2},
    {"nll", &Score::nll},
    {"brier", &Score::brier},
    {"entropy", &Score::entropy},
    {"mutual_information", &Score::mutual_information},
    {"crps", &Score::crps},
    {"sharpness", &Score::sharpness},
    {"epistemic_variance", &Score::epistemic_variance},
    {"aleatoric_variance", &Score::aleatoric_variance},
};

constexpr Field<EpisodeScores, std::vector<double>> episode_fields[] = {
    {"accuracy", &EpisodeScores::accuracy},
    {"auroc", &EpisodeScores::auroc},
    {"mse", &EpisodeScores::mse},
    {"r2", &EpisodeScores::r2},
    {"nll", &EpisodeScores::nll},
    {"brier", &EpisodeScores::brier},
    {"aurc", &EpisodeScores::aurc},
    {"entropy", &EpisodeScores::entropy},
    {"mutual_information", &EpisodeScores::mutual_information},
    {"crps", &EpisodeScores::crps},
    {"sharpness", &EpisodeScores::sharpness},
    {"epistemic_variance", &EpisodeScores::epistemic_variance},
    {"aleatoric_variance", &EpisodeScores::aleatoric_variance},
};

constexpr Field<UncertaintyScores, IntervalScore> uncertainty_fields[] = {
    {"ece", &UncertaintyScores::ece},
    {"mce", &UncertaintyScores::mce},
    {"ece_equal_mass", &UncertaintyScores::ece_equal_mass},
    {"classwise_ece", &UncertaintyScores::classwise_ece},
    {"brier_reliability", &UncertaintyScores::brier_reliability},
    {"brier_resolution", &UncertaintyScores::brier_resolution},
    {"brier_uncertainty", &UncertaintyScores::brier_uncertainty},
    {"brier_within_bin", &UncertaintyScores::brier_within_bin},
    {"aurc", &UncertaintyScores::aurc},
    {"risk_at_coverage", &UncertaintyScores::risk_at_coverage},
    {"coverage_at_risk", &UncertaintyScores::coverage_at_risk},
};

nlohmann::ordered_json to_json(const UncertaintyScores& u) {
  nlohmann::ordered_json j;
  for (const auto& [key, member] : uncertainty_fields) j[key] = to_json(u.*member);
  j["risk_coverage"] = nlohmann::ordered_json::array();
  for (const RiskCoveragePoint& p : u.curve) {
    j["risk_coverage"].push_back(
        {{"threshold", p.threshold}, {"coverage", p.coverage}, {"risk", p.risk}});
  }
  return j;
}

nlohmann::ordered_json to_json(const Score& s) {
  nlohmann::ordered_json j{{"name", s.name}};
  if (s.inner_steps >= 0) j["inner_steps"] = s.inner_steps;
  if (s.calibrated) j["calibrated"] = true;
  for (const auto& [key, member] : statistic_fields) {
    if (s.*member) j[key] = to_json(*(s.*member));
  }
  if (s.ece) j["ece"] = io::number_json(*s.ece);
  for (const CoverageScore& c : s.coverage) {
    auto entry = to_json(c.observed);
    entry["level"] = c.level;
    j["coverage"].push_back(entry);
  }
  if (s.uncertainty) j["uncertainty"] = to_json(*s.uncertainty);
  if (!s.pit.empty()) j["pit"] = s.pit;
  for (const auto& [key, member] : episode_fields) {
    if (!(s.per_episode.*member).empty()) j["per_episode"][key] = s.per_episode.*member;
  }
  if (!s.per_episode.coverage.empty()) j["per_episode"]["coverage"] = s.per_episode.coverage;
  for (const CalibrationBin& b : s.calibration) {
    j["calibration"].push_back({{"low", b.low},
                                {"high", b.high},
                                {"count", b.count},
                                {"confidence", b.confidence},
                                {"accuracy", b.accuracy}});
  }
  return j;
}

std::vector<double> numbers(const nlohmann::json& values) {
  std::vector<double> all;
  for (const auto& value : values) all.push_back(io::number_or_nan(value));
  return all;
}

UncertaintyScores uncertainty_from(const nlohmann::json& j) {
  UncertaintyScores u;
  for (const auto& [key, member] : uncertainty_fields) u.*member = interval_from(j.at(key));
  for (const auto& p : j.at("risk_coverage")) {
    u.curve.push_back({io::number_or_nan(p.at("threshold")), io::number_or_nan(p.at("coverage")),
                       io::number_or_nan(p.at("risk"))});
  }
  return u;
}

/// Older evaluations lack some of the keys.
Score score_from(const nlohmann::json& j) {
  Score s;
  s.name = j.at("name").get<std::string>();
  if (j.contains("inner_steps")) s.inner_steps = io::whole_number<int>(j.at("inner_steps"));
  s.calibrated = j.value("calibrated", false);
  for (const auto& [key, member] : statistic_fields) {
    if (j.contains(key)) s.*member = statistic_from(j.at(key));
  }
  if (j.contains("ece")) s.ece = io::number_or_nan(j.at("ece"));
  if (j.contains("coverage")) {
    for (const auto& c : j.at("coverage")) {
      s.coverage.push_back({c.at("level").get<double>(), statistic_from(c)});
    }
  }
  if (j.contains("uncertainty")) s.uncertainty = uncertainty_from(j.at("uncertainty"));
  if (j.contains("pit")) {
    for (const auto& count : j.at("pit")) s.pit.push_back(io::whole_number<std::size_t>(count));
  }
  if (j.contains("per_episode")) {
    const auto& all = j.at("per_episode");
    for (const auto& [key, member] : episode_fields) {
      if (all.contains(key)) s.per_episode.*member = numbers(all.at(key));
    }
    if (all.contains("coverage")) {
      for (const auto& level : all.at("coverage")) s.per_episode.coverage.push_back(numbers(level));
    }
  }
  if (j.contains("calibration")) {
    for (const auto& b : j.at("calibration")) {
      s.calibration.push_back({b.at("low").get<double>(), b.at("high").get<double>(),
                               io::whole_number<std::size_t>(b.at("count")),
                               b.at("confidence").get<double>(), b.at("accuracy").get<double>()});
    }
  }
  return s;
}

Split split_from(const nlohmann::json& j, const std::string& origin) {
  for (const Split split : {Split::train, Split::validation, Split::test}) {
    if (j == split_name(split)) return split;
  }
  throw Error(
      fmt::format("{}: not an evaluation of kshot: \"split\" is {}; expected one of train, "
                  "validation, test",
                  origin, j.dump()));
}

nlohmann::ordered_json to_json(const CountRange& r) {
  return {r.least, r.most};
}

/// Older evaluations hold only the largest number of rows.
CountRange range_from(const nlohmann::json& j, const char* key, int otherwise) {
  if (!j.contains(key)) return {otherwise, otherwise};
  return {io::whole_number<int>(j.at(key).at(0)), io::whole_number<int>(j.at(key).at(1))};
}

/// Writes the results of a calibration's thresholds and sets. A number that is missing is null.
void put_decisions(nlohmann::ordered_json& j, const Evaluation& e) {
  for (const RiskScore& r : e.risks) {
    nlohmann::ordered_json entry{{"risk", r.bound}, {"threshold", nullptr}};
    if (r.threshold) entry["threshold"] = *r.threshold;
    entry["answered"] = to_json(r.answered);
    entry["observed_risk"] = to_json(r.observed);
    j["decisions"].push_back(entry);
  }
  for (const SetScore& s : e.sets) {
    j["sets"].push_back({{"level", s.level},
                         {"quantile", io::number_json(s.quantile)},
                         {"coverage", to_json(s.coverage)},
                         {"size", to_json(s.size)}});
  }
}

void read_decisions(const nlohmann::json& j, Evaluation& e) {
  if (j.contains("decisions")) {
    for (const auto& entry : j.at("decisions")) {
      RiskScore r;
      r.bound = entry.at("risk").get<double>();
      if (!entry.at("threshold").is_null()) r.threshold = entry.at("threshold").get<double>();
      r.answered = interval_from(entry.at("answered"));
      r.observed = interval_from(entry.at("observed_risk"));
      e.risks.push_back(r);
    }
  }
  if (!j.contains("sets")) return;
  for (const auto& entry : j.at("sets")) {
    e.sets.push_back({entry.at("level").get<double>(),
                      io::number_or(entry.at("quantile"), std::numeric_limits<double>::infinity()),
                      interval_from(entry.at("coverage")), interval_from(entry.at("size"))});
  }
}

nlohmann::ordered_json object(const Evaluation& e) {
  nlohmann::ordered_json j{{"format", io::evaluation_mark},
                           {"algorithm", e.algorithm},
                           {"checkpoint", e.checkpoint},
                           {"step", e.step},
                           {"source", e.source},
                           {"split", split_name(e.split)},
                           {"target", e.shape.target == TargetKind::label ? "label" : "value"},
                           {"outputs", e.shape.outputs},
                           {"support_rows", e.shape.support},
                           {"query_rows", e.shape.query},
                           {"support_drawn", to_json(e.support)},
                           {"query_drawn", to_json(e.query)},
                           {"shots", to_json(e.shots)},
                           {"ways", to_json(e.ways)},
                           {"inner_steps", e.steps.empty() ? 0 : std::max(0, e.last().inner_steps)},
                           {"seed", e.seed},
                           {"episodes", e.episodes},
                           {"diverged", e.diverged},
                           {"samples", e.samples},
                           {"norm_statistics", e.norm_statistics},
                           {"bins", e.bins},
                           {"edges", e.edges},
                           {"risk", e.risk},
                           {"device", e.device},
                           {"seconds", e.seconds},
                           {"steps", nlohmann::ordered_json::array()},
                           {"baselines", nlohmann::ordered_json::array()}};
  if (!e.data_path.empty()) {
    j["data"] = {{"path", e.data_path}, {"checksum", e.data_checksum}};
    if (!e.trained_checksum.empty()) j["data"]["trained_on"] = e.trained_checksum;
  }
  if (!e.calibration.empty()) j["calibrated_with"] = e.calibration;
  put_decisions(j, e);
  j["scored"] = e.scored;
  for (const Score& s : e.steps) j["steps"].push_back(to_json(s));
  for (const Score& s : e.baselines) j["baselines"].push_back(to_json(s));
  for (const LeftOut& l : e.left_out) {
    j["left_out"].push_back({{"name", l.name}, {"reason", l.reason}});
  }
  return j;
}

/// Replaces bytes that are not UTF-8, which a path may have.
std::string dump(const nlohmann::ordered_json& j) {
  return j.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

Evaluation evaluation_from(const nlohmann::json& j, const std::string& origin) {
  try {
    Evaluation e;
    e.algorithm = j.at("algorithm").get<std::string>();
    e.checkpoint = j.at("checkpoint").get<std::string>();
    e.step = io::whole_number<std::uint64_t>(j.at("step"));
    e.source = j.at("source").get<std::string>();
    e.split = split_from(j.at("split"), origin);
    e.shape.target = j.at("target") == "label" ? TargetKind::label : TargetKind::value;
    e.shape.outputs = io::whole_number<int>(j.at("outputs"));
    e.shape.support = io::whole_number<int>(j.at("support_rows"));
    e.shape.query = io::whole_number<int>(j.at("query_rows"));
    e.support = range_from(j, "support_drawn", e.shape.support);
    e.query = range_from(j, "query_drawn", e.shape.query);
    e.shots = range_from(j, "shots", 0);
    e.ways = range_from(j, "ways", e.shape.outputs);
    e.seed = io::whole_number<std::uint64_t>(j.at("seed"));
    e.episodes = io::whole_number<int>(j.at("episodes"));
    e.diverged = io::whole_number<int>(j.at("diverged"));
    e.samples = io::whole_number<int>(j.at("samples"));
    e.norm_statistics = j.at("norm_statistics").get<std::string>();
    e.device = j.at("device").get<std::string>();
    e.seconds = j.at("seconds").get<double>();
    if (j.contains("data")) {
      const auto& data = j.at("data");
      e.data_path = data.at("path").get<std::string>();
      e.data_checksum = data.at("checksum").get<std::string>();
      e.trained_checksum = data.value("trained_on", "");
    }
    e.bins = j.contains("bins") ? io::whole_number<int>(j.at("bins")) : 15;
    e.edges = j.value("edges", "right");
    e.risk = j.value("risk", 0.05);
    e.calibration = j.value("calibrated_with", "");
    read_decisions(j, e);
    if (j.contains("scored")) e.scored = j.at("scored").get<std::vector<int>>();
    for (const auto& entry : j.at("steps")) e.steps.push_back(score_from(entry));
    for (const auto& entry : j.at("baselines")) e.baselines.push_back(score_from(entry));
    if (j.contains("left_out")) {
      for (const auto& entry : j.at("left_out")) {
        e.left_out.push_back(
            {entry.at("name").get<std::string>(), entry.at("reason").get<std::string>()});
      }
    }
    if (e.steps.empty()) throw Error(fmt::format("{}: \"steps\" is empty", origin));
    const bool classify = e.shape.target == TargetKind::label;
    for (const std::vector<Score>* scores : {&e.steps, &e.baselines}) {
      for (const Score& s : *scores) {
        if (classify ? s.accuracy.has_value() : s.mse.has_value()) continue;
        throw Error(fmt::format("{}: not an evaluation of kshot: {} has no \"{}\"", origin,
                                schema::quote(s.name), classify ? "accuracy" : "mse"));
      }
    }
    return e;
  } catch (const nlohmann::json::exception& error) {
    throw Error(fmt::format("{}: not an evaluation of kshot: {}", origin, error.what()));
  }
}

nlohmann::json parsed(const std::string& text, const std::string& origin) {
  try {
    return io::parse_json(text);
  } catch (const nlohmann::json::exception& error) {
    throw Error(fmt::format("{}: not an evaluation of kshot: {}", origin, error.what()));
  }
}

}  // namespace

std::string Evaluation::to_json() const {
  return dump(object(*this));
}

Evaluation Evaluation::from_json(const std::string& text, const std::string& origin) {
  return evaluation_from(parsed(text, origin), origin);
}

std::string ShotsEvaluation::to_json() const {
  nlohmann::ordered_json j{{"format", io::evaluation_mark},
                           {"by_shots", nlohmann::ordered_json::array()}};
  for (const auto& [shots, e] : by_shots) {
    j["by_shots"].push_back({{"shots", shots}, {"evaluation", object(e)}});
  }
  return dump(j);
}

ShotsEvaluation ShotsEvaluation::from_json(const std::string& text, const std::string& origin) {
  const nlohmann::json j = parsed(text, origin);
  ShotsEvaluation all;
  try {
    for (const auto& entry : j.at("by_shots")) {
      all.by_shots.emplace_back(io::whole_number<int>(entry.at("shots")),
                                evaluation_from(entry.at("evaluation"), origin));
    }
  } catch (const nlohmann::json::exception& error) {
    throw Error(fmt::format("{}: not an evaluation of kshot: {}", origin, error.what()));
  }
  if (all.by_shots.empty()) throw Error(fmt::format("{}: \"by_shots\" is empty", origin));
  return all;
}

}  // namespace kshot
