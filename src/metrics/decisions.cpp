#include "kshot/decisions.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "kshot/error.h"
#include "metrics/metrics.h"

namespace kshot {
namespace {

/// Number of bets of the e-value. The square roots of the bets are evenly spaced, because a risk
/// just below its bound needs small bets.
constexpr int bets = 24;
/// Candidate thresholds answer equally spaced shares of the rows, in this number of steps.
constexpr std::size_t coverage_steps = 50;

void check_share(const char* what, double value) {
  if (value > 0.0 && value < 1.0) return;
  throw Error(fmt::format("{} is {}, expected a number between 0 and 1", what, value));
}

}  // namespace

double mean_below_e_value(std::span<const double> excesses, double bound) {
  check_share("the bound of a mean", bound);
  for (const double x : excesses) {
    if (x >= -bound - 1e-12 && x <= 1.0 - bound + 1e-12) continue;
    throw Error(
        fmt::format("a loss less its bound is {}, expected {} to {}", x, -bound, 1.0 - bound));
  }
  std::vector<double> log_capital;
  for (int j = 1; j <= bets; ++j) {
    // The largest bet cannot lose more than the capital.
    const double share = static_cast<double>(j) / bets;
    const double bet = (1.0 - 1e-9) * share * share / (1.0 - bound);
    double sum = 0.0;
    for (const double x : excesses) sum += std::log1p(-bet * std::min(x, 1.0 - bound));
    log_capital.push_back(sum);
  }
  return std::exp(metrics::log_sum_exp(log_capital)) / bets;
}

void SelectiveRisk::add_choosing(std::span<const double> confidences,
                                 const std::vector<bool>& right) {
  if (!testing_.empty()) {
    throw Error("selective risk: a choosing episode comes after a testing one");
  }
  candidates_ = {0.0};
  shares(confidences, right);  // checks the arguments
  if (confidences.empty()) return;
  chosen_from_.push_back({{confidences.begin(), confidences.end()}, right});
}

void SelectiveRisk::add_testing(std::span<const double> confidences,
                                const std::vector<bool>& right) {
  if (testing_.empty()) set_candidates();
  Shares s = shares(confidences, right);
  if (!confidences.empty()) testing_.push_back(std::move(s));
}

void SelectiveRisk::set_candidates() {
  std::vector<double> all;
  for (const Rows& r : chosen_from_) {
    all.insert(all.end(), r.confidences.begin(), r.confidences.end());
  }
  std::ranges::sort(all, std::ranges::greater{});
  candidates_.clear();
  for (std::size_t step = 1; step < coverage_steps && !all.empty(); ++step) {
    const std::size_t rows = std::max<std::size_t>(1, all.size() * step / coverage_steps);
    const double t = all[rows - 1];
    if (t > 0.0 && (candidates_.empty() || t < candidates_.back())) candidates_.push_back(t);
  }
  candidates_.push_back(0.0);
  choosing_.clear();
  for (const Rows& r : chosen_from_) choosing_.push_back(shares(r.confidences, r.right));
}

SelectiveRisk::Shares SelectiveRisk::shares(std::span<const double> confidences,
                                            const std::vector<bool>& right) const {
  if (confidences.size() != right.size()) {
    throw Error(fmt::format("selective risk: {} confidences for {} answers", confidences.size(),
                            right.size()));
  }
  Shares s{std::vector<double>(candidates_.size()), std::vector<double>(candidates_.size())};
  const double row = 1.0 / static_cast<double>(confidences.size());
  for (std::size_t i = 0; i < confidences.size(); ++i) {
    // Rounding may make a mean of probabilities slightly larger than 1.
    if (!(confidences[i] >= 0.0 && confidences[i] <= 1.0 + 1e-9)) {
      throw Error(
          fmt::format("selective risk: a confidence is {}, expected 0 to 1", confidences[i]));
    }
    for (std::size_t c = candidates_.size(); c-- > 0 && confidences[i] >= candidates_[c];) {
      s.answered[c] += row;
      if (!right[i]) s.wrong[c] += row;
    }
  }
  return s;
}

double SelectiveRisk::e_value(std::span<const Shares> episodes, std::size_t candidate,
                              double risk) const {
  std::vector<double> excesses;
  for (const Shares& s : episodes) {
    excesses.push_back(s.wrong[candidate] - risk * s.answered[candidate]);
  }
  return mean_below_e_value(excesses, risk);
}

RiskThreshold SelectiveRisk::threshold(double risk, double confidence) const {
  check_share("the bound of the risk", risk);
  check_share("the confidence of a threshold", confidence);
  RiskThreshold result{.risk = risk, .threshold = {}};
  if (testing_.empty()) return result;
  std::size_t candidate = 0;
  double strongest = -1.0;
  for (std::size_t c = 0; c < candidates_.size(); ++c) {
    const double e = e_value(choosing_, c, risk);
    if (e < strongest) continue;
    strongest = e;
    candidate = c;
  }
  std::optional<std::size_t> found;
  for (; candidate < candidates_.size(); ++candidate) {
    if (e_value(testing_, candidate, risk) < 1.0 / (1.0 - confidence)) break;
    found = candidate;
  }
  if (!found) return result;
  result.threshold = candidates_[*found];
  double answered = 0.0, wrong = 0.0;
  for (const Shares& s : testing_) {
    answered += s.answered[*found];
    wrong += s.wrong[*found];
  }
  result.coverage = answered / static_cast<double>(testing_.size());
  result.observed_risk = answered > 0.0 ? wrong / answered : 0.0;
  return result;
}

double conformal_quantile(std::span<const std::vector<double>> scores, double level) {
  check_share("the level of a prediction set", level);
  std::vector<std::pair<double, double>> weighted;
  std::size_t episodes = 0;
  for (const std::vector<double>& rows : scores) episodes += rows.empty() ? 0 : 1;
  for (const std::vector<double>& rows : scores) {
    const double weight =
        1.0 / (static_cast<double>(episodes + 1) * static_cast<double>(rows.size()));
    for (const double s : rows) {
      if (std::isnan(s)) throw Error("conformal prediction: a score is not a number");
      weighted.emplace_back(s, weight);
    }
  }
  std::ranges::sort(weighted);
  double sum = 0.0;
  for (const auto& [score, weight] : weighted) {
    sum += weight;
    // Rounding may leave the sum slightly below the level at the score that reaches it.
    if (sum >= level - 1e-12) return score;
  }
  return std::numeric_limits<double>::infinity();
}

std::vector<bool> prediction_set(std::span<const double> probabilities, double quantile) {
  std::vector<bool> in;
  for (const double p : probabilities) in.push_back(1.0 - p <= quantile);
  if (!in.empty()) {
    in[static_cast<std::size_t>(std::ranges::max_element(probabilities) - probabilities.begin())] =
        true;
  }
  return in;
}

}  // namespace kshot
