// Decisions of a run on episodes: the fit that calibration makes, and the scores that evaluation
// computes.
#pragma once

#include <vector>

#include "engine/scoring.h"
#include "kshot/calibration.h"
#include "kshot/evaluator.h"

namespace kshot {

/// Mean and standard deviation of the predictive distribution of each target, [rows, outputs]. The
/// distribution is the mixture of the samples, with the noise added. The variance of the samples is
/// divided by samples - 1.
struct PredictiveMoments {
  std::vector<double> mean, std;
};
PredictiveMoments predictive_moments(const Entry& entry);

/// Gathers calibrated predictions and fits the thresholds and quantiles of a RunCalibration.
class DecisionFit {
 public:
  explicit DecisionFit(bool classify) : classify_(classify) {}
  /// All choosing episodes are added before the testing ones. Choosing episodes are ignored for
  /// values.
  void add_choosing(const Entry& entry, const QueryTargets& targets);
  void add_testing(const Entry& entry, const QueryTargets& targets);
  /// Fills in thresholds, quantiles and the number of episodes.
  void finish(RunCalibration& result, double confidence) const;

 private:
  bool classify_;
  SelectiveRisk selective_;
  std::vector<std::vector<double>> scores_;
};

/// Scores of a calibration's thresholds and quantiles on other episodes.
class DecisionScores {
 public:
  /// `risk` is a bound that is shown beside the usual bounds.
  DecisionScores(const RunCalibration& calibration, double risk);
  /// Adds one episode's calibrated prediction.
  void add(const Entry& entry, const QueryTargets& targets);
  /// Fills in Evaluation::risks and Evaluation::sets. `seed` is that of the bootstrap intervals
  /// over episodes.
  void finish(Evaluation& result, std::uint64_t seed) const;

 private:
  /// Means over the rows of an episode, for each entry of risks_ or sets_.
  struct Shares {
    std::vector<double> answered, wrong, covered, size;
  };

  bool classify_;
  std::vector<RiskThreshold> risks_;
  std::vector<ConformalQuantile> sets_;
  std::vector<Shares> episodes_;
};

}  // namespace kshot
