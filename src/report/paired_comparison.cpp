#include "report/paired_comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>

#include "metrics/bootstrap.h"

namespace kshot::report {
namespace {

struct Column {
  const char* title;
  std::vector<double> EpisodeScores::*values;
  double scale = 1.0;
};

constexpr Column classification[] = {{"accuracy, %", &EpisodeScores::accuracy, 100.0},
                                     {"NLL", &EpisodeScores::nll},
                                     {"Brier", &EpisodeScores::brier},
                                     {"AURC of an episode", &EpisodeScores::aurc}};
constexpr Column regression[] = {
    {"MSE", &EpisodeScores::mse}, {"NLL", &EpisodeScores::nll}, {"CRPS", &EpisodeScores::crps}};

std::span<const Column> columns(const Evaluation& e) {
  return e.last().accuracy ? std::span<const Column>(classification)
                           : std::span<const Column>(regression);
}

bool equal(const CountRange& a, const CountRange& b) {
  return a.least == b.least && a.most == b.most;
}

/// True if the baselines of both evaluations have the same scores. Baselines learn only from the
/// episodes' rows, so that different scores mean different episodes.
bool baselines_agree(const Evaluation& a, const Evaluation& b) {
  for (const Score& s : a.baselines) {
    const auto other = std::ranges::find(b.baselines, s.name, &Score::name);
    if (other == b.baselines.end() || a.scored != b.scored) continue;
    const std::vector<double>& x =
        s.per_episode.nll.empty() ? s.per_episode.mse : s.per_episode.nll;
    const std::vector<double>& y =
        s.per_episode.nll.empty() ? other->per_episode.mse : other->per_episode.nll;
    if (x.size() != y.size()) return false;
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (std::abs(x[i] - y[i]) > 1e-3 * (1.0 + std::abs(x[i]))) return false;
    }
  }
  return true;
}

/// Returns the reason why the episodes of two evaluations differ; empty where they are the same.
std::string difference(const Evaluation& a, const Evaluation& b) {
  if (a.shape.target != b.shape.target) return "one has labels, the other numbers";
  if (a.split != b.split) {
    return fmt::format("{} episodes, not {} ones", split_name(b.split), split_name(a.split));
  }
  if (a.seed != b.seed) return fmt::format("seed {}, not {}", b.seed, a.seed);
  if (!equal(a.ways, b.ways) || !equal(a.shots, b.shots) || !equal(a.support, b.support) ||
      !equal(a.query, b.query)) {
    return "other numbers of classes or rows";
  }
  if (a.data_checksum != b.data_checksum) return "another data file";
  if (a.data_checksum.empty() && a.source != b.source) {
    return fmt::format("other tasks ({}, not {})", b.source, a.source);
  }
  if (!baselines_agree(a, b)) return "the same baselines have other scores there";
  return {};
}

/// The values of two methods for the episodes that both evaluations scored.
struct Pairs {
  std::vector<double> first, second;
};

Pairs pairs(const Evaluation& a, const std::vector<double>& of_a, const Evaluation& b,
            const std::vector<double>& of_b) {
  Pairs all;
  if (of_a.size() != a.scored.size() || of_b.size() != b.scored.size()) return all;
  std::map<int, double> second;
  for (std::size_t i = 0; i < of_b.size(); ++i) second[b.scored[i]] = of_b[i];
  for (std::size_t i = 0; i < of_a.size(); ++i) {
    const auto found = second.find(a.scored[i]);
    if (found == second.end() || !std::isfinite(of_a[i]) || !std::isfinite(found->second)) continue;
    all.first.push_back(of_a[i]);
    all.second.push_back(found->second);
  }
  return all;
}

/// Returns a difference and its interval as text.
std::string cell(const PairedDifference& d) {
  const bool large = std::abs(d.value) >= 1e3;
  const auto number = [&](double v) {
    return large ? fmt::format("{:+.3g}", v) : fmt::format("{:+.4f}", v);
  };
  if (!std::isfinite(d.low)) return number(d.value);
  return fmt::format("{} [{}, {}]", number(d.value), number(d.low), number(d.high));
}

/// Appends a method's differences to the reference. Returns false where no episode has scores of
/// both.
bool add_differences(std::vector<PairedDifference>& all, const std::string& method,
                     const Evaluation& reference, const Evaluation& e, const Score& score) {
  const std::size_t before = all.size();
  for (const Column& c : columns(reference)) {
    const Pairs p =
        pairs(reference, reference.last().per_episode.*c.values, e, score.per_episode.*c.values);
    if (p.first.empty()) continue;
    const metrics::Interval i = metrics::bootstrap_difference(
        p.second, p.first, {.resamples = metrics::affordable_resamples(p.first.size())});
    all.push_back(
        {method, c.title, p.first.size(), c.scale * i.value, c.scale * i.low, c.scale * i.high});
  }
  return all.size() > before;
}

}  // namespace

PairedComparison paired_comparison(const std::vector<std::string>& names,
                                   const std::vector<ReportData>& runs) {
  PairedComparison result;
  if (!runs.front().evaluation) return result;
  const Evaluation& reference = *runs.front().evaluation;
  for (std::size_t i = 1; i < runs.size(); ++i) {
    if (!runs[i].evaluation) continue;
    const Evaluation& other = *runs[i].evaluation;
    std::string why = difference(reference, other);
    if (why.empty() &&
        !add_differences(result.differences, names[i], reference, other, other.last())) {
      why = "no episode has scores of both";
    }
    if (!why.empty()) {
      result.left_out.push_back(fmt::format("{} was not evaluated on the episodes of {}: {}",
                                            names[i], names.front(), why));
    }
  }
  for (const Score& s : reference.baselines) {
    add_differences(result.differences, s.name, reference, reference, s);
  }
  return result;
}

Table paired_table(const std::string& reference, const std::vector<PairedDifference>& differences) {
  Table table;
  table.title = fmt::format("Differences to {} on the same episodes", reference);
  table.caption =
      "Mean over episodes of the method's value less that of the reference, in brackets 95 % "
      "bootstrap intervals over episodes, paired: an interval without 0 is a difference.";
  table.columns = {"", "episodes"};
  std::vector<std::size_t> most;  // number of episodes of each row
  for (const PairedDifference& d : differences) {
    auto column = std::ranges::find(table.columns, d.metric);
    if (column == table.columns.end()) column = table.columns.insert(column, d.metric);
    auto row =
        std::ranges::find(table.rows, d.method, [](const auto& cells) { return cells.front(); });
    if (row == table.rows.end()) {
      row = table.rows.insert(row, {d.method, ""});
      most.push_back(0);
    }
    const auto c = static_cast<std::size_t>(column - table.columns.begin());
    row->resize(std::max(row->size(), c + 1));
    (*row)[c] = cell(d);
    std::size_t& episodes = most[static_cast<std::size_t>(row - table.rows.begin())];
    episodes = std::max(episodes, d.episodes);
    (*row)[1] = fmt::format("{}", episodes);
  }
  for (std::vector<std::string>& row : table.rows) row.resize(table.columns.size());
  return table;
}

}  // namespace kshot::report
