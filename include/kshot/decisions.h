// Decisions with a stated risk: which predictions are answered, and sets and intervals that hold
// the target. Both are chosen on calibration episodes. Episodes, not rows, are exchangeable: the
// rows of one episode share a support set, so that no rule here treats them as independent.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

namespace kshot {

/// A threshold of confidence for a bound on the selective risk: the share of wrong answers among
/// the answered rows.
struct RiskThreshold {
  double risk = 0.05;  ///< the bound
  /// Rows are answered whose confidence is at least this; absent where no threshold keeps the
  /// bound.
  std::optional<double> threshold;
  /// On the episodes that tested the threshold, means over episodes: share of rows answered, and
  /// share of the answered rows that are wrong.
  double coverage = 0.0, observed_risk = 0.0;
};

/// The score that a share `level` of the rows of new episodes does not exceed.
struct ConformalQuantile {
  double level = 0.9;
  double score = 0.0;  ///< infinity where there are too few episodes for the level
};

/// Evidence against "the mean of independent losses in [0, 1] is at least `bound`", from
/// excesses = losses - bound, each in [-bound, 1 - bound]. It is an e-value: under that hypothesis
/// its expectation is at most 1, so that it exceeds 1 / delta with probability at most delta. It
/// averages the capital of constant bets over a grid (grid Kelly; Waudby-Smith and Ramdas 2023,
/// "Estimating means of bounded random variables by betting"), and does not depend on the order.
/// Throws Error for a bound outside (0, 1) and excesses outside their range.
double mean_below_e_value(std::span<const double> excesses, double bound);

/// Thresholds of confidence that bound the selective risk, by Learn then Test (Angelopoulos et al.
/// 2021) with a fixed sequence of tests.
///
/// Let a(t) be the share of an episode's rows that threshold t answers, w(t) the share that it
/// answers wrongly. The selective risk E[w] / E[a] is at most alpha exactly where E[w - alpha a] <=
/// 0, a statement about one number per episode, which mean_below_e_value tests. The candidates are
/// quantiles of the confidences of the choosing episodes, and the sequence begins at the candidate
/// with the strongest evidence there. The tests use other episodes, go towards more answers, and
/// stop at the first that fails. Then P(selective risk > alpha) <= 1 - confidence over the draw of
/// the testing episodes, provided that they are independent of each other and of the choosing ones.
class SelectiveRisk {
 public:
  /// One episode: confidences [rows] in [0, 1] and whether the predicted class is right, [rows]. An
  /// episode without rows is ignored. Throws Error for sizes that do not fit and for a confidence
  /// outside [0, 1]. All choosing episodes come before the first testing one.
  void add_choosing(std::span<const double> confidences, const std::vector<bool>& right);
  void add_testing(std::span<const double> confidences, const std::vector<bool>& right);
  /// The threshold with the most answers that keeps `risk` with this confidence, both in (0, 1).
  RiskThreshold threshold(double risk, double confidence) const;

 private:
  struct Rows {
    std::vector<double> confidences;
    std::vector<bool> right;
  };
  /// Shares of an episode's rows at each candidate threshold, [candidates].
  struct Shares {
    std::vector<double> answered, wrong;
  };
  void set_candidates();
  Shares shares(std::span<const double> confidences, const std::vector<bool>& right) const;
  double e_value(std::span<const Shares> episodes, std::size_t candidate, double risk) const;

  std::vector<Rows> chosen_from_;
  std::vector<double> candidates_;  ///< descending; the last is 0, which answers every row
  std::vector<Shares> choosing_, testing_;
};

/// The smallest q so that rows with a score of at most q have the weight `level`, where each of the
/// K episodes has the weight 1 / (K + 1), spread evenly over its rows, and infinity has the rest.
/// A row of a new exchangeable episode has a score of at most q with probability at least `level`
/// (hierarchical conformal prediction: Lee, Barber and Willett 2023; for one row per episode this
/// is split conformal prediction). Episodes without rows are ignored. Throws Error for a level
/// outside (0, 1) and a score that is NaN.
double conformal_quantile(std::span<const std::vector<double>> scores, double level);

/// The prediction set of one row's probabilities [classes]: the classes whose score 1 - p is at
/// most q, and always the most probable class.
std::vector<bool> prediction_set(std::span<const double> probabilities, double quantile);

}  // namespace kshot
