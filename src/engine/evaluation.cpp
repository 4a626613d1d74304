// An evaluation's numbers as text, as JSON, and back.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

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
    return row;
  }
  put(s.mse, plain);
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
  if (s.mse) j["mse"] = to_json(*s.mse);
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
  put("mse", s.per_episode.mse);
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
  take("mse", s.mse);
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
    column("mse", s.per_episode.mse);
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

nlohmann::ordered_json to_json(const RowRange& r) {
  return {r.least, r.most};
}

/// Older evaluations hold only the largest number of rows.
RowRange range_from(const nlohmann::json& j, const char* key, int otherwise) {
  if (!j.contains(key)) return {otherwise, otherwise};
  return {j.at(key).at(0).get<int>(), j.at(key).at(1).get<int>()};
}

/// "5" or "2 to 9".
std::string range_text(const RowRange& r) {
  return r.least == r.most ? fmt::format("{}", r.most) : fmt::format("{} to {}", r.least, r.most);
}

}  // namespace

std::string Evaluation::conditions() const {
  std::string text = fmt::format("{} {} episodes (seed {}): ", episodes, split_name(split), seed);
  if (shape.target == TargetKind::label) {
    text += fmt::format("{}-way, ", shape.outputs);
    if (shots.most > 0) {
      text += fmt::format("{} shot{} per class, ", range_text(shots),
                          shots.least == 1 && shots.most == 1 ? "" : "s");
    }
  }
  const int inner_steps = steps.empty() ? 0 : last().inner_steps;
  text += fmt::format("{} support and {} query rows, ", range_text(support), range_text(query));
  text += inner_steps < 0
              ? std::string("fitted in closed form")
              : fmt::format("{} inner step{}", inner_steps, inner_steps == 1 ? "" : "s");
  text += fmt::format(", {} sample{}", samples, samples == 1 ? "" : "s");
  if (norm_statistics != "none") {
    text += fmt::format(", norm statistics of the {}",
                        norm_statistics == "batch" ? "batch at hand" : "support set");
  }
  if (diverged > 0) text += fmt::format("; {} diverged and are left out", diverged);
  if (!trained_checksum.empty()) {
    text += fmt::format("; data file changed: trained on {}, evaluated on {}", trained_checksum,
                        data_checksum);
  }
  return text;
}

std::string Evaluation::table() const {
  const bool classify = shape.target == TargetKind::label;
  std::vector<std::vector<std::string>> rows;
  if (classify) {
    rows.push_back({"", "accuracy", "NLL", "Brier", "ECE"});
  } else {
    rows.push_back({"", "MSE", "NLL"});
    for (const CoverageScore& c : last().coverage) {
      rows.front().push_back(fmt::format("in {:.0f} % band", 100.0 * c.level));
    }
  }
  // of many inner steps about ten rows, the first and the last among them
  const std::size_t every = steps.size() > 16 ? (steps.size() - 1 + 9) / 10 : 1;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    if (i % every == 0 || i + 1 == steps.size()) rows.push_back(cells(steps[i], classify));
  }
  for (const Score& s : baselines) rows.push_back(cells(s, classify));
  for (auto& row : rows) row.resize(rows.front().size());
  drop_empty_columns(rows);
  return fmt::format("{}, {} meta-steps; {}\n{}\n\n{}", algorithm, step, source, conditions(),
                     layout(rows));
}

std::string Evaluation::to_json() const {
  nlohmann::ordered_json j{{"format", io::evaluation_mark},
                           {"algorithm", algorithm},
                           {"checkpoint", checkpoint},
                           {"step", step},
                           {"source", source},
                           {"split", split_name(split)},
                           {"target", shape.target == TargetKind::label ? "label" : "value"},
                           {"outputs", shape.outputs},
                           {"support_rows", shape.support},
                           {"query_rows", shape.query},
                           {"support_drawn", kshot::to_json(support)},
                           {"query_drawn", kshot::to_json(query)},
                           {"shots", kshot::to_json(shots)},
                           {"inner_steps", steps.empty() ? 0 : std::max(0, last().inner_steps)},
                           {"seed", seed},
                           {"episodes", episodes},
                           {"diverged", diverged},
                           {"samples", samples},
                           {"norm_statistics", norm_statistics},
                           {"device", device},
                           {"seconds", seconds},
                           {"steps", nlohmann::ordered_json::array()},
                           {"baselines", nlohmann::ordered_json::array()}};
  if (!data_path.empty()) {
    j["data"] = {{"path", data_path}, {"checksum", data_checksum}};
    if (!trained_checksum.empty()) j["data"]["trained_on"] = trained_checksum;
  }
  j["scored"] = scored;
  for (const Score& s : steps) j["steps"].push_back(kshot::to_json(s));
  for (const Score& s : baselines) j["baselines"].push_back(kshot::to_json(s));
  // A path need not be UTF-8 text.
  return j.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

Evaluation Evaluation::from_json(const std::string& text, const std::string& origin) {
  try {
    const auto j = io::parse_json(text);
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

}  // namespace kshot
