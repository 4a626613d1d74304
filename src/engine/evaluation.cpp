// An evaluation's numbers as text, as JSON, and back.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "engine/config_schema.h"
#include "io/json_text.h"
#include "io/output_file.h"
#include "kshot/error.h"
#include "kshot/evaluator.h"

namespace kshot {
namespace {

// ---- as text ----

std::string percent(const Statistic& s) {
  return std::isfinite(s.half_width)
             ? fmt::format("{:.2f} ± {:.2f} %", 100.0 * s.mean, 100.0 * s.half_width)
             : fmt::format("{:.2f} %", 100.0 * s.mean);
}
std::string plain(const Statistic& s) {
  // beyond a thousand (a few steps too many, say) digits after the point say nothing
  const bool large = std::abs(s.mean) >= 1e3 || std::abs(s.half_width) >= 1e3;
  const auto number = [large](double v) {
    return large ? fmt::format("{:.3g}", v) : fmt::format("{:.4f}", v);
  };
  return std::isfinite(s.half_width) ? number(s.mean) + " ± " + number(s.half_width)
                                     : number(s.mean);
}

/// Width on the screen: "±" is two bytes.
std::size_t width(const std::string& text) {
  std::size_t n = 0;
  for (const char c : text) n += (static_cast<unsigned char>(c) & 0xC0u) != 0x80u;
  return n;
}

/// Columns with nothing below their title.
void drop_empty_columns(std::vector<std::vector<std::string>>& rows) {
  for (std::size_t c = rows.front().size(); c-- > 1;) {
    const bool empty =
        std::all_of(rows.begin() + 1, rows.end(), [c](const auto& row) { return row[c].empty(); });
    if (!empty) continue;
    for (auto& row : rows) row.erase(row.begin() + static_cast<std::ptrdiff_t>(c));
  }
}

std::string layout(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths(rows.front().size(), 0);
  for (const auto& row : rows) {
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], width(row[c]));
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::string pad(widths[c] - width(row[c]), ' ');
      line += c == 0 ? row[c] + pad : "  " + pad + row[c];
    }
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

std::vector<std::string> cells(const Score& s, bool classify) {
  std::vector<std::string> row = {
      s.inner_steps < 0
          ? s.name
          : fmt::format("{}, {} step{}", s.name, s.inner_steps, s.inner_steps == 1 ? "" : "s")};
  const auto put = [&row](const std::optional<Statistic>& v, auto format) {
    row.push_back(v ? format(*v) : "");
  };
  if (classify) {
    put(s.accuracy, percent);
    put(s.nll, plain);
    put(s.brier, plain);
    row.push_back(s.ece ? fmt::format("{:.4f}", *s.ece) : "");
    put(s.auroc, plain);
    return row;
  }
  put(s.mse, plain);
  put(s.r2, plain);
  put(s.nll, plain);
  for (const CoverageScore& c : s.coverage) row.push_back(percent(c.observed));
  return row;
}

nlohmann::ordered_json to_json(const Statistic& s) {
  nlohmann::ordered_json j{
      {"mean", s.mean}, {"half_width", s.half_width}, {"episodes", s.episodes}};
  if (!std::isfinite(s.half_width)) j["half_width"] = nullptr;
  if (!std::isfinite(s.mean)) j["mean"] = nullptr;
  return j;
}

nlohmann::ordered_json to_json(const Score& s) {
  nlohmann::ordered_json j{{"name", s.name}};
  if (s.inner_steps >= 0) j["inner_steps"] = s.inner_steps;
  if (s.accuracy) j["accuracy"] = to_json(*s.accuracy);
  if (s.auroc) j["auroc"] = to_json(*s.auroc);
  if (s.mse) j["mse"] = to_json(*s.mse);
  if (s.r2) j["r2"] = to_json(*s.r2);
  if (s.nll) j["nll"] = to_json(*s.nll);
  if (s.brier) j["brier"] = to_json(*s.brier);
  if (s.ece) j["ece"] = std::isfinite(*s.ece) ? nlohmann::ordered_json(*s.ece) : nullptr;
  if (!s.coverage.empty()) {
    for (const CoverageScore& c : s.coverage) {
      auto entry = to_json(c.observed);
      entry["level"] = c.level;
      j["coverage"].push_back(entry);
    }
  }
  const auto put = [&](const char* key, const std::vector<double>& values) {
    if (!values.empty()) j["per_episode"][key] = values;
  };
  put("accuracy", s.per_episode.accuracy);
  put("auroc", s.per_episode.auroc);
  put("mse", s.per_episode.mse);
  put("r2", s.per_episode.r2);
  put("nll", s.per_episode.nll);
  put("brier", s.per_episode.brier);
  for (const CalibrationBin& b : s.calibration) {
    j["calibration"].push_back({{"low", b.low},
                                {"high", b.high},
                                {"count", b.count},
                                {"confidence", b.confidence},
                                {"accuracy", b.accuracy}});
  }
  return j;
}

double number(const nlohmann::json& value) {
  return value.is_null() ? std::nan("") : value.get<double>();
}

Statistic statistic_from(const nlohmann::json& j) {
  return {number(j.at("mean")), number(j.at("half_width")),
          io::whole<std::size_t>(j.at("episodes"))};
}

Score score_from(const nlohmann::json& j) {
  Score s;
  s.name = j.at("name").get<std::string>();
  if (j.contains("inner_steps")) s.inner_steps = io::whole<int>(j.at("inner_steps"));
  const auto take = [&](const char* key, std::optional<Statistic>& value) {
    if (j.contains(key)) value = statistic_from(j.at(key));
  };
  take("accuracy", s.accuracy);
  take("auroc", s.auroc);
  take("mse", s.mse);
  take("r2", s.r2);
  take("nll", s.nll);
  take("brier", s.brier);
  if (j.contains("ece")) s.ece = number(j.at("ece"));
  if (j.contains("coverage")) {
    for (const auto& c : j.at("coverage")) {
      s.coverage.push_back({c.at("level").get<double>(), statistic_from(c)});
    }
  }
  if (j.contains("per_episode")) {
    const auto& all = j.at("per_episode");
    const auto column = [&](const char* key, std::vector<double>& values) {
      if (!all.contains(key)) return;
      for (const auto& value : all.at(key)) values.push_back(number(value));
    };
    column("accuracy", s.per_episode.accuracy);
    column("auroc", s.per_episode.auroc);
    column("mse", s.per_episode.mse);
    column("r2", s.per_episode.r2);
    column("nll", s.per_episode.nll);
    column("brier", s.per_episode.brier);
  }
  if (j.contains("calibration")) {
    for (const auto& b : j.at("calibration")) {
      s.calibration.push_back({b.at("low").get<double>(), b.at("high").get<double>(),
                               io::whole<std::size_t>(b.at("count")),
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
  return {io::whole<int>(j.at(key).at(0)), io::whole<int>(j.at(key).at(1))};
}

/// What Evaluation::conditions says; without the numbers of rows where `rows` is false.
std::string conditions_text(const Evaluation& e, bool rows) {
  std::string text =
      fmt::format("{} {} episodes (seed {}): ", e.episodes, split_name(e.split), e.seed);
  if (e.shape.target == TargetKind::label) text += fmt::format("{}-way, ", count_text(e.ways));
  if (rows) {
    if (e.shape.target == TargetKind::label && e.shots.most > 0) {
      text += fmt::format("{} shot{} per class, ", count_text(e.shots),
                          e.shots.least == 1 && e.shots.most == 1 ? "" : "s");
    }
    text += fmt::format("{} support and ", count_text(e.support));
  }
  text += fmt::format("{} query rows, ", count_text(e.query));
  const int inner_steps = e.steps.empty() ? 0 : e.last().inner_steps;
  text += inner_steps < 0
              ? std::string("fitted in closed form")
              : fmt::format("{} inner step{}", inner_steps, inner_steps == 1 ? "" : "s");
  text += fmt::format(", {} sample{}", e.samples, e.samples == 1 ? "" : "s");
  if (e.norm_statistics != "none") {
    text += fmt::format(", norm statistics of the {}",
                        e.norm_statistics == "batch" ? "batch at hand" : "support set");
  }
  if (rows && e.diverged > 0) {
    text += fmt::format("; {} diverged and are left out", e.diverged);
  }
  if (!e.trained_checksum.empty()) {
    text += fmt::format("; data file changed: trained on {}, evaluated on {}", e.trained_checksum,
                        e.data_checksum);
  }
  return text;
}

/// Titles of the columns of `cells`.
std::vector<std::string> titles(const Evaluation& e) {
  if (e.shape.target == TargetKind::label) return {"", "accuracy", "NLL", "Brier", "ECE", "AUROC"};
  std::vector<std::string> row = {"", "MSE", "R2", "NLL"};
  for (const double level : e.coverage_levels()) {
    row.push_back(fmt::format("in {:.0f} % band", 100.0 * level));
  }
  return row;
}

}  // namespace

std::string Evaluation::conditions() const {
  return conditions_text(*this, true);
}

std::string Evaluation::table() const {
  const bool classify = shape.target == TargetKind::label;
  std::vector<std::vector<std::string>> rows = {titles(*this)};
  // of many inner steps about ten rows, the first and the last among them
  const std::size_t every = steps.size() > 16 ? (steps.size() - 1 + 9) / 10 : 1;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    if (i % every == 0 || i + 1 == steps.size()) rows.push_back(cells(steps[i], classify));
  }
  for (const Score& s : baselines) rows.push_back(cells(s, classify));
  for (auto& row : rows) row.resize(rows.front().size());
  drop_empty_columns(rows);
  std::string text = fmt::format("{}, {} meta-steps; {}\n{}\n\n{}", algorithm, step, source,
                                 conditions(), layout(rows));
  for (const LeftOut& l : left_out) text += fmt::format("left out: {} ({})\n", l.name, l.reason);
  return text;
}

std::vector<double> Evaluation::coverage_levels() const {
  for (const std::vector<Score>* scores : {&steps, &baselines}) {
    for (const Score& s : *scores) {
      if (s.coverage.empty()) continue;
      std::vector<double> levels;
      for (const CoverageScore& c : s.coverage) levels.push_back(c.level);
      return levels;
    }
  }
  return {};
}

namespace {

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
                           {"device", e.device},
                           {"seconds", e.seconds},
                           {"steps", nlohmann::ordered_json::array()},
                           {"baselines", nlohmann::ordered_json::array()}};
  if (!e.data_path.empty()) {
    j["data"] = {{"path", e.data_path}, {"checksum", e.data_checksum}};
    if (!e.trained_checksum.empty()) j["data"]["trained_on"] = e.trained_checksum;
  }
  j["scored"] = e.scored;
  for (const Score& s : e.steps) j["steps"].push_back(to_json(s));
  for (const Score& s : e.baselines) j["baselines"].push_back(to_json(s));
  for (const LeftOut& l : e.left_out) {
    j["left_out"].push_back({{"name", l.name}, {"reason", l.reason}});
  }
  return j;
}

/// A path need not be UTF-8 text.
std::string dump(const nlohmann::ordered_json& j) {
  return j.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

Evaluation evaluation_from(const nlohmann::json& j, const std::string& origin) {
  try {
    Evaluation e;
    e.algorithm = j.at("algorithm").get<std::string>();
    e.checkpoint = j.at("checkpoint").get<std::string>();
    e.step = io::whole<std::uint64_t>(j.at("step"));
    e.source = j.at("source").get<std::string>();
    e.split = split_from(j.at("split"), origin);
    e.shape.target = j.at("target") == "label" ? TargetKind::label : TargetKind::value;
    e.shape.outputs = io::whole<int>(j.at("outputs"));
    e.shape.support = io::whole<int>(j.at("support_rows"));
    e.shape.query = io::whole<int>(j.at("query_rows"));
    e.support = range_from(j, "support_drawn", e.shape.support);
    e.query = range_from(j, "query_drawn", e.shape.query);
    e.shots = range_from(j, "shots", 0);
    e.ways = range_from(j, "ways", e.shape.outputs);
    e.seed = io::whole<std::uint64_t>(j.at("seed"));
    e.episodes = io::whole<int>(j.at("episodes"));
    e.diverged = io::whole<int>(j.at("diverged"));
    e.samples = io::whole<int>(j.at("samples"));
    e.norm_statistics = j.at("norm_statistics").get<std::string>();
    e.device = j.at("device").get<std::string>();
    e.seconds = j.at("seconds").get<double>();
    if (j.contains("data")) {
      const auto& data = j.at("data");
      e.data_path = data.at("path").get<std::string>();
      e.data_checksum = data.at("checksum").get<std::string>();
      e.trained_checksum = data.value("trained_on", "");
    }
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

// ---- several numbers of shots ----

std::string ShotsEvaluation::table() const {
  const Evaluation& first = by_shots.front().second;
  const bool classify = first.shape.target == TargetKind::label;
  std::vector<std::vector<std::string>> rows = {titles(first)};
  for (const auto& [shots, e] : by_shots) {
    // bands that only a baseline has, which may be left out at some shots
    if (titles(e).size() > rows.front().size()) rows.front() = titles(e);
  }
  rows.front().insert(rows.front().begin(), "shots");
  for (const auto& [shots, e] : by_shots) {
    const auto put = [&, number = shots](const Score& s, const Evaluation& of) {
      std::vector<std::string> row = cells(s, classify);
      row.resize(rows.front().size() - 1);
      row.insert(row.begin(), &s == &of.last() ? fmt::format("{}", number) : "");
      rows.push_back(std::move(row));
    };
    put(e.last(), e);
    for (const Score& s : e.baselines) put(s, e);
  }
  drop_empty_columns(rows);
  std::string text = fmt::format("{}, {} meta-steps\n{}\n\n{}", first.algorithm, first.step,
                                 conditions_text(first, false), layout(rows));
  for (const auto& [shots, e] : by_shots) {
    if (e.diverged > 0) {
      text += fmt::format("{} shots: {} of {} episodes diverged and are left out\n", shots,
                          e.diverged, e.episodes);
    }
    for (const LeftOut& l : e.left_out) {
      text += fmt::format("{} shots: left out: {} ({})\n", shots, l.name, l.reason);
    }
  }
  return text;
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
      all.by_shots.emplace_back(io::whole<int>(entry.at("shots")),
                                evaluation_from(entry.at("evaluation"), origin));
    }
  } catch (const nlohmann::json::exception& error) {
    throw Error(fmt::format("{}: not an evaluation of kshot: {}", origin, error.what()));
  }
  if (all.by_shots.empty()) throw Error(fmt::format("{}: \"by_shots\" is empty", origin));
  return all;
}

}  // namespace kshot
