// An evaluation's numbers as tables for people.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/text.h"
#include "engine/score_text.h"
#include "kshot/evaluator.h"

namespace kshot {
namespace {

std::string percent(const Statistic& s) {
  return std::isfinite(s.half_width)
             ? fmt::format("{:.2f} ± {:.2f} %", 100.0 * s.mean, 100.0 * s.half_width)
             : fmt::format("{:.2f} %", 100.0 * s.mean);
}
std::string plain(const Statistic& s) {
  // Beyond a thousand, which a few inner steps too many can cause, digits after the point say
  // nothing.
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

/// Removes the columns with nothing below their title.
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

/// A row of the second table, which shows how far the predictions' own uncertainty can be trusted.
std::vector<std::string> uncertainty_cells(const Score& s, bool classify) {
  std::vector<std::string> row = {cells(s, classify).front()};
  const auto put = [&row](const std::optional<Statistic>& v, auto format) {
    row.push_back(v ? format(*v) : "");
  };
  if (classify) {
    const auto mean = [](const Statistic& v) { return fmt::format("{:.4f}", v.mean); };
    row.push_back(interval_text(s.uncertainty->ece, 4));
    row.push_back(interval_text(s.uncertainty->aurc, 4));
    row.push_back(fmt::format("{:.2f} %", 100.0 * s.uncertainty->risk_at_coverage.value));
    row.push_back(fmt::format("{:.2f} %", 100.0 * s.uncertainty->coverage_at_risk.value));
    put(s.entropy, mean);
    put(s.mutual_information, mean);
    return row;
  }
  put(s.crps, plain);
  put(s.sharpness, plain);
  put(s.epistemic_variance, plain);
  put(s.aleatoric_variance, plain);
  return row;
}

/// The second table, with the scores that have uncertainty numbers. Empty where no score has any.
std::string uncertainty_table(const Evaluation& e) {
  const bool classify = e.shape.target == TargetKind::label;
  std::vector<std::vector<std::string>> rows;
  rows.push_back(
      classify ? std::vector<std::string>{"", "ECE", "AURC", "risk at 80 %",
                                          fmt::format("cover at {:.3g} %", 100.0 * e.risk),
                                          "entropy", "mutual inf."}
               : std::vector<std::string>{"", "CRPS", "sharpness", "epistemic var.", "noise var."});
  for (const std::vector<Score>* scores : {&e.steps, &e.baselines}) {
    for (const Score& s : *scores) {
      if (classify ? s.uncertainty.has_value() : s.crps.has_value()) {
        rows.push_back(uncertainty_cells(s, classify));
      }
    }
  }
  if (rows.size() == 1) return {};
  drop_empty_columns(rows);
  return fmt::format("\nuncertainty{}\n{}",
                     classify ? " (in brackets: 95 % bootstrap intervals over episodes)" : "",
                     layout(rows));
}

/// Tables of a calibration's thresholds and sets on these episodes. Empty without a calibration.
std::string decision_tables(const Evaluation& e) {
  std::string text;
  if (!e.risks.empty()) {
    std::vector<std::vector<std::string>> rows = {
        {"risk at most", "threshold", "answered", "risk"}};
    for (const RiskScore& r : e.risks) {
      rows.push_back({fmt::format("{}", r.bound),
                      r.threshold ? fmt::format("{:.4f}", *r.threshold) : "none found",
                      r.threshold ? interval_text(r.answered, 4) : "",
                      r.threshold ? interval_text(r.observed, 4) : ""});
    }
    text += "\nanswers above a threshold of confidence, calibrated\n" + layout(rows);
  }
  if (!e.sets.empty()) {
    const bool classify = e.shape.target == TargetKind::label;
    std::vector<std::vector<std::string>> rows = {
        {"level", "observed", classify ? "mean classes" : "mean width"}};
    for (const SetScore& s : e.sets) {
      const bool finite = std::isfinite(s.quantile);
      rows.push_back({fmt::format("{}", s.level),
                      finite ? interval_text(s.coverage, 4) : "too few episodes",
                      finite ? interval_text(s.size, 4) : ""});
    }
    text += fmt::format("\nconformal prediction {}, calibrated\n{}",
                        classify ? "sets" : "intervals", layout(rows));
  }
  return text;
}

/// The text of Evaluation::conditions. Where `rows` is false, it leaves out the shots, the support
/// rows and the diverged episodes.
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
  if (!e.calibration.empty()) text += fmt::format("; calibrated: {}", e.calibration);
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
  // The table shows about ten rows where there are many inner steps. The first and the last are
  // among them.
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
  return text + uncertainty_table(*this) + decision_tables(*this);
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

// ---- several numbers of shots ----

std::string ShotsEvaluation::table() const {
  const Evaluation& first = by_shots.front().second;
  const bool classify = first.shape.target == TargetKind::label;
  std::vector<std::vector<std::string>> rows = {titles(first)};
  for (const auto& [shots, e] : by_shots) {
    // A band that only a baseline has is missing where that baseline is left out.
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
    if (e.last().calibrated && e.steps.size() > 1) put(e.steps[e.steps.size() - 2], e);
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

}  // namespace kshot
