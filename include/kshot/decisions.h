// Decisions with a stated risk: which predictions are answered, and sets and intervals that hold
// the target. Calibration episodes fix these decisions. Episodes, not rows, are exchangeable: the
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
  double risk = 0.05;  ///< The bound on the selective risk.
  /// A row is answered if its confidence is at least this threshold. Absent: no threshold keeps the
  /// bound.
  std::optional<double> threshold;
  /// Share of rows that are answered, mean over the episodes that tested the threshold.
  double coverage = 0.0,
         /// Share of the answered rows that are wrong, on the same episodes.
      observed_risk = 0.0;
};

/// The score that a share `level` of the rows of new episodes does not exceed.
struct ConformalQuantile {
  double level = 0.9;  ///< Share of the rows, in (0, 1).
  double score = 0.0;  ///< The score; infinity where there are too few episodes for the level.
};

/// Returns the evidence against "the mean of independent losses in [0, 1] is at least `bound`",
/// from excesses = losses - bound, each in [-bound, 1 - bound]. The evidence is an e-value: under
/// that hypothesis its expectation is at most 1, so that it exceeds 1 / delta with probability at
/// most delta. The function averages the capital of constant bets over a grid (grid Kelly;
/// Waudby-Smith and Ramdas 2023, "Estimating means of bounded random variables by betting"). The
/// result does not depend on the order. Throws Error for a bound outside (0, 1) and for excesses
/// outside their range.
double mean_below_e_value(std::span<const double> excesses, double bound);

/// Thresholds of confidence that bound the selective risk, by Learn then Test (Angelopoulos et al.
/// 2021) with a fixed sequence of tests.
///
/// Let a(t) be the share of an episode's rows that threshold t answers, and w(t) the share that it
/// answers wrongly. The selective risk E[w] / E[a] is at most alpha exactly where
/// E[w - alpha a] <= 0. This is a statement about one number per episode, which mean_below_e_value
/// tests. The candidates are quantiles of the confidences of the choosing episodes. The sequence
/// begins at the candidate with the strongest evidence on these episodes. The tests use other
/// episodes, go towards more answers, and stop at the first test that fails. Then
/// P(selective risk > alpha) <= 1 - confidence over the draw of the testing episodes, provided that
/// they are independent of each other and of the choosing episodes.
class SelectiveRisk {
 public:
  /// Adds one choosing episode: confidences [rows] in [0, 1], and for each row whether the
  /// predicted class is right. An episode without rows is ignored. All choosing episodes come
  /// before the first testing episode. Throws Error for sizes that do not fit and for a confidence
  /// outside [0, 1].
  void add_choosing(std::span<const double> confidences, const std::vector<bool>& right);
  /// Adds one testing episode, with the arguments of add_choosing.
  void add_testing(std::span<const double> confidences, const std::vector<bool>& right);
  /// Returns the threshold with the most answers that keeps the bound `risk` with this confidence,
  /// both in (0, 1).
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
  std::vector<double> candidates_;  ///< Descending; the last is 0, which answers every row.
  std::vector<Shares> choosing_, testing_;
};

/// Returns the smallest q for which the rows with a score of at most q have at least the weight
/// `level`. Each of the K episodes has the weight 1 / (K + 1), divided equally among its rows;
/// infinity has the rest. A row of a new exchangeable episode has a score of at most q with
/// probability at least `level` (hierarchical conformal prediction: Lee, Barber and Willett 2023;
/// for one row per episode this is split conformal prediction). `scores` has the scores of the rows
/// of each episode. Episodes without rows are ignored. Throws Error for a level outside (0, 1) and
/// for a score that is NaN.
double conformal_quantile(std::span<const std::vector<double>> scores, double level);

/// Returns the prediction set of one row's probabilities [classes]: the classes whose score 1 - p
/// is at most `quantile`, and always the most probable class.
std::vector<bool> prediction_set(std::span<const double> probabilities, double quantile);

}  // namespace kshot
