// Decisions of a run on episodes: what calibration fits for them, and what evaluation finds of
// them.
#pragma once

#include <vector>

#include "engine/scoring.h"
#include "kshot/calibration.h"
#include "kshot/evaluator.h"

namespace kshot {

/// Mean and standard deviation of the predictive distribution of each target, [rows, outputs]: of
/// the mixture of the samples (whose variance is divided by samples - 1) under the noise.
struct PredictiveMoments {
  std::vector<double> mean, std;
};
PredictiveMoments predictive_moments(const Entry& entry);

/// Gathers calibrated predictions and fits the thresholds and quantiles of a RunCalibration.
class DecisionFit {
 public:
  explicit DecisionFit(bool classify) : classify_(classify) {}
  /// Choosing episodes come before all testing ones; of values they are ignored.
  void add_choosing(const Entry& entry, const QueryTargets& targets);
  void add_testing(const Entry& entry, const QueryTargets& targets);
  /// Fills thresholds, quantiles and the number of episodes.
  void finish(RunCalibration& result, double confidence) const;

 private:
  bool classify_;
  SelectiveRisk selective_;
  std::vector<std::vector<double>> scores_;
};

/// What the thresholds and quantiles of a calibration do on other episodes.
class DecisionScores {
 public:
  /// `risk` is shown beside the usual bounds.
  DecisionScores(const RunCalibration& calibration, double risk);
  /// One episode's calibrated prediction.
  void add(const Entry& entry, const QueryTargets& targets);
  /// Fills Evaluation::risks and Evaluation::sets; bootstrap intervals over episodes by `seed`.
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
