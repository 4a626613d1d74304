// Evaluations out of distribution as a table and as JSON.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "engine/score_json.h"
#include "engine/score_text.h"
#include "io/json_text.h"
#include "io/output_file.h"
#include "kshot/error.h"
#include "kshot/ood.h"

namespace kshot {
namespace {

nlohmann::ordered_json to_json(const ShiftScore& s) {
  return {
      {"accuracy", to_json(s.accuracy)}, {"nll", to_json(s.nll)}, {"ece", io::number_json(s.ece)}};
}
ShiftScore shift_from(const nlohmann::json& j) {
  return {statistic_from(j.at("accuracy")), statistic_from(j.at("nll")),
          io::number_or_nan(j.at("ece"))};
}

nlohmann::ordered_json object(const OodEvaluation& e) {
  nlohmann::ordered_json j{{"kind", e.kind},
                           {"description", e.description},
                           {"algorithm", e.algorithm},
                           {"checkpoint", e.checkpoint},
                           {"step", e.step},
                           {"source", e.source},
                           {"split", split_name(e.split)},
                           {"seed", e.seed},
                           {"episodes", e.episodes},
                           {"diverged", e.diverged},
                           {"samples", e.samples},
                           {"calibrated_with", e.calibration},
                           {"distance_in", e.features},
                           {"in_rows", e.in_rows},
                           {"out_rows", e.out_rows},
                           {"scores", nlohmann::ordered_json::array()}};
  for (const OodScore& s : e.scores) {
    j["scores"].push_back({{"name", s.name},
                           {"auroc", to_json(s.auroc)},
                           {"aupr", to_json(s.aupr)},
                           {"fpr95", to_json(s.fpr95)},
                           {"histogram",
                            {{"low", io::number_json(s.low)},
                             {"high", io::number_json(s.high)},
                             {"in", s.in_counts},
                             {"out", s.out_counts}}}});
  }
  if (e.in_shift) j["in_distribution"] = to_json(*e.in_shift);
  if (e.out_shift) j["out_of_distribution"] = to_json(*e.out_shift);
  return j;
}

OodEvaluation evaluation_from(const nlohmann::json& j) {
  OodEvaluation e;
  e.kind = j.at("kind").get<std::string>();
  e.description = j.at("description").get<std::string>();
  e.algorithm = j.at("algorithm").get<std::string>();
  e.checkpoint = j.at("checkpoint").get<std::string>();
  e.step = io::whole_number<std::uint64_t>(j.at("step"));
  e.source = j.at("source").get<std::string>();
  for (const Split split : {Split::train, Split::validation, Split::test}) {
    if (j.at("split") == split_name(split)) e.split = split;
  }
  e.seed = io::whole_number<std::uint64_t>(j.at("seed"));
  e.episodes = io::whole_number<int>(j.at("episodes"));
  e.diverged = io::whole_number<int>(j.at("diverged"));
  e.samples = io::whole_number<int>(j.at("samples"));
  e.calibration = j.at("calibrated_with").get<std::string>();
  e.features = j.at("distance_in").get<std::string>();
  e.in_rows = io::whole_number<std::size_t>(j.at("in_rows"));
  e.out_rows = io::whole_number<std::size_t>(j.at("out_rows"));
  for (const auto& entry : j.at("scores")) {
    OodScore s;
    s.name = entry.at("name").get<std::string>();
    s.auroc = interval_from(entry.at("auroc"));
    s.aupr = interval_from(entry.at("aupr"));
    s.fpr95 = interval_from(entry.at("fpr95"));
    const auto& histogram = entry.at("histogram");
    s.low = io::number_or_nan(histogram.at("low"));
    s.high = io::number_or_nan(histogram.at("high"));
    for (const auto& count : histogram.at("in")) {
      s.in_counts.push_back(io::whole_number<std::size_t>(count));
    }
    for (const auto& count : histogram.at("out")) {
      s.out_counts.push_back(io::whole_number<std::size_t>(count));
    }
    if (s.in_counts.size() != s.out_counts.size()) {
      throw Error("a histogram has more bins for one kind of rows than for the other");
    }
    e.scores.push_back(std::move(s));
  }
  if (j.contains("in_distribution")) e.in_shift = shift_from(j.at("in_distribution"));
  if (j.contains("out_of_distribution")) e.out_shift = shift_from(j.at("out_of_distribution"));
  return e;
}

}  // namespace

std::string OodEvaluation::table() const {
  std::string text = fmt::format(
      "{}, {} meta-steps; {}\nout of distribution: {}\n{} {} episodes (seed {}), {} known rows and "
      "{} others, {} sample{}",
      algorithm, step, source, description, episodes, split_name(split), seed, in_rows, out_rows,
      samples, samples == 1 ? "" : "s");
  if (!calibration.empty()) text += "; calibrated: " + calibration;
  if (diverged > 0) text += fmt::format("; {} diverged and are left out", diverged);
  text += fmt::format("; distances in {}\n\n{:<22}  {:>22}  {:>22}  {:>22}\n", features, "",
                      "AUROC", "AUPR", "FPR at 95 %");
  for (const OodScore& s : scores) {
    text += fmt::format("{:<22}  {:>22}  {:>22}  {:>22}\n", s.name, interval_text(s.auroc, 3),
                        interval_text(s.aupr, 3), interval_text(s.fpr95, 3));
  }
  if (in_shift && out_shift) {
    text += fmt::format("\n{:<22}  {:>18}  {:>18}  {:>8}\n", "", "accuracy", "NLL", "ECE");
    for (const auto& [name, s] :
         {std::pair{"known rows", &*in_shift}, std::pair{"out of distribution", &*out_shift}}) {
      // "±" has two bytes and takes one column.
      text += fmt::format("{:<22}  {:>19}  {:>19}  {:>8.4f}\n", name,
                          fmt::format("{:.2f} ± {:.2f} %", 100.0 * s->accuracy.mean,
                                      100.0 * s->accuracy.half_width),
                          fmt::format("{:.4f} ± {:.4f}", s->nll.mean, s->nll.half_width), s->ece);
    }
  }
  return text;
}

std::string ood_to_json(const std::vector<OodEvaluation>& all) {
  nlohmann::ordered_json j{{"format", io::evaluation_mark},
                           {"out_of_distribution", nlohmann::ordered_json::array()}};
  for (const OodEvaluation& e : all) j["out_of_distribution"].push_back(object(e));
  return j.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

std::vector<OodEvaluation> ood_from_json(const std::string& text, const std::string& origin) {
  try {
    const nlohmann::json j = io::parse_json(text);
    std::vector<OodEvaluation> all;
    for (const auto& entry : j.at("out_of_distribution")) all.push_back(evaluation_from(entry));
    if (all.empty()) throw Error("\"out_of_distribution\" is empty");
    return all;
  } catch (const nlohmann::json::exception& error) {
    throw Error(fmt::format("{}: not an evaluation of kshot: {}", origin, error.what()));
  } catch (const Error& error) {
    throw Error(fmt::format("{}: not an evaluation of kshot: {}", origin, error.what()));
  }
}

}  // namespace kshot
