// Scores of one way to predict, collected episode by episode.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "engine/baselines.h"
#include "kshot/evaluator.h"
#include "metrics/bootstrap.h"
#include "metrics/metrics.h"
#include "metrics/predictive.h"
#include "metrics/uncertainty.h"

namespace kshot {

/// The interval of the metrics as a score of an evaluation.
inline IntervalScore interval_score(const metrics::Interval& i) {
  return {i.value, i.low, i.high};
}

/// Options of the scores, which are the same for all ways to predict.
struct ScoringOptions {
  bool classify = true;
  metrics::UncertaintyOptions uncertainty = {};
  std::uint64_t seed = 0;  ///< seed of the bootstrap
};

/// An episode's query targets: labels [rows], or values [rows, outputs].
struct QueryTargets {
  std::vector<std::int32_t> labels;
  std::vector<double> values;
  std::size_t outputs = 0;  ///< number of classes, or of values per target
};
template <class Archive>
void fields(Archive& a, QueryTargets& t) {
  a(t.labels, t.values, t.outputs);
}

/// Numbers of one episode's prediction that are costly to compute, as means over its rows. Numbers
/// that do not apply are NaN.
struct EpisodeUncertainty {
  static constexpr double none = std::numeric_limits<double>::quiet_NaN();
  double entropy = none, mutual_information = none;
  double crps = none, sharpness = none, epistemic_variance = none, aleatoric_variance = none;
  /// Probability integral transform of each target. Empty for point predictions.
  std::vector<double> pit = {};
};
template <class Archive>
void fields(Archive& a, EpisodeUncertainty& u) {
  a(u.entropy, u.mutual_information, u.crps, u.sharpness, u.epistemic_variance,
    u.aleatoric_variance, u.pit);
}
/// The uncertainty of one episode's predicted probabilities, Entry::values. They are the mean over
/// the posterior samples of softmax(logits). `logits` has the shape [samples, rows, classes]; it is
/// empty for a method without logits.
EpisodeUncertainty classification_uncertainty(const Entry& entry, std::span<const double> logits,
                                              std::size_t samples, std::size_t classes);
EpisodeUncertainty regression_uncertainty(const Entry& entry, const QueryTargets& targets);

/// Collects the scores of one way to predict, in the order of the episodes.
class MethodScores {
 public:
  /// With `complete`, the scores have the statistics of all episodes together and bootstrap
  /// intervals. `inner_steps` is -1 for a baseline.
  MethodScores(std::string name, int inner_steps, bool complete, const ScoringOptions& options);

  /// Adds an episode, unless the way to predict is missing in it or in an earlier one.
  void add(int episode, const Entry& entry, const EpisodeUncertainty& uncertainty,
           const QueryTargets& targets);
  const std::string& name() const { return name_; }
  bool is_baseline() const { return inner_steps_ < 0; }
  bool complete() const { return complete_; }
  /// Why a baseline cannot be compared with the others: it is missing in an episode. Empty where it
  /// is missing in none.
  const std::string& left_out() const { return left_out_; }
  Score score() const;

 private:
  void add_classification(const Entry& entry, const QueryTargets& targets);
  void add_regression(const Entry& entry, const QueryTargets& targets);
  void put_classification(Score& score) const;
  void put_regression(Score& score) const;

  std::string name_;
  int inner_steps_;
  bool complete_;
  ScoringOptions options_;
  metrics::ClassificationMetrics classification_;
  metrics::EpisodeAnswers answers_;
  metrics::RegressionMetrics regression_;
  metrics::PitHistogram pit_;
  EpisodeScores per_episode_;
  std::string left_out_;
};

}  // namespace kshot
