// Evaluation on test episodes: scores of the adapted network after every number of inner steps, and
// of baselines that see the same support and query rows.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kshot/calibration.h"
#include "kshot/communicator.h"
#include "kshot/config.h"
#include "kshot/count_range.h"
#include "kshot/episode.h"

namespace kshot {

/// A mean over episodes and the half width of its 95 % confidence interval (1.96 s / sqrt(n)).
struct Statistic {
  double mean = 0.0;         ///< Mean over episodes.
  double half_width = 0.0;   ///< Half width of the interval; NaN for a single episode.
  std::size_t episodes = 0;  ///< Number of episodes for which the score is defined.
  /// Lower end of the 95 % bootstrap interval over episodes; NaN where it was not computed.
  double low = std::numeric_limits<double>::quiet_NaN();
  /// Upper end of that interval.
  double high = std::numeric_limits<double>::quiet_NaN();
};

/// A statistic of all episodes together and its 95 % bootstrap interval over episodes. The ends are
/// NaN for fewer than two episodes.
struct IntervalScore {
  double value = 0.0;                                      ///< The statistic.
  double low = std::numeric_limits<double>::quiet_NaN();   ///< Lower end of the interval.
  double high = std::numeric_limits<double>::quiet_NaN();  ///< Upper end of the interval.
};

/// How often targets fell into a central band of the predictive distribution.
struct CoverageScore {
  double level = 0.0;  ///< Probability of the band under the prediction, for example 0.9.
  Statistic observed;  ///< Share of the targets that the band contained.
};

/// One bin of a reliability diagram over confidence. Evaluation::edges says which of low and high
/// belongs to the bin.
struct CalibrationBin {
  double low = 0.0,         ///< Lower edge, a confidence in [0, 1].
      high = 0.0;           ///< Upper edge.
  std::size_t count = 0;    ///< Number of rows in the bin.
  double confidence = 0.0,  ///< Mean confidence of these rows; 0 for an empty bin.
      accuracy = 0.0;       ///< Share of these rows that are right; 0 for an empty bin.
};

/// A point of a risk-coverage curve: rows are answered at or above a threshold of confidence.
struct RiskCoveragePoint {
  double threshold = 0.0,  ///< The threshold of confidence.
      coverage = 0.0,      ///< Share of the rows that are answered.
      risk = 0.0;          ///< Share of the answered rows that are wrong.
};

/// How far the probabilities of a classifier can be trusted, over the rows of all episodes.
/// docs/uncertainty.md defines each number.
struct UncertaintyScores {
  IntervalScore ece;             ///< Expected calibration error with bins of equal width.
  IntervalScore mce;             ///< Maximum calibration error with bins of equal width.
  IntervalScore ece_equal_mass;  ///< Expected calibration error with bins of equal mass.
  IntervalScore classwise_ece;   ///< Mean over classes of the calibration error of one class.
  // The Brier score is reliability - resolution + uncertainty + within-bin.
  IntervalScore brier_reliability,  ///< Reliability part of the Brier score.
      brier_resolution,             ///< Resolution part of the Brier score.
      brier_uncertainty,            ///< Uncertainty part of the Brier score.
      brier_within_bin;             ///< Within-bin part of the Brier score.
  IntervalScore aurc;               ///< Area under the risk-coverage curve.
  IntervalScore risk_at_coverage;   ///< Risk at 80 % coverage.
  IntervalScore coverage_at_risk;   ///< Largest coverage with at most the risk Evaluation::risk.
  /// Points of the risk-coverage curve, at most 200, the largest threshold first. The last point
  /// has coverage 1.
  std::vector<RiskCoveragePoint> curve;
};

/// Scores of each episode, in the order of the episodes. Scores that do not apply are empty.
struct EpisodeScores {
  std::vector<double> accuracy,  ///< Classification: share of right predictions.
      brier;                     ///< Classification: Brier score, in [0, 2].
  /// Two classes: area under the ROC curve of class 1. NaN where the queries are of one class.
  std::vector<double> auroc;
  std::vector<double> aurc;     ///< Classification: area under the episode's risk-coverage curve.
  std::vector<double> entropy,  ///< Classification: entropy, nats.
      mutual_information;       ///< Classification: mutual information, nats.
  std::vector<double> mse;      ///< Regression: mean squared error over rows and outputs.
  std::vector<double> r2;       ///< Regression: Score::r2; NaN where all query targets are equal.
  std::vector<double> crps,     ///< Regression: Score::crps, target units.
      sharpness;                ///< Regression: Score::sharpness, target units.
  std::vector<double> epistemic_variance,  ///< Regression: in squared target units.
      aleatoric_variance;                  ///< Regression: in squared target units.
  std::vector<double> nll;                 ///< Negative log-likelihood, nats per row.
  /// Regression: the share of targets within each central band, [levels of Score::coverage]
  /// [episodes].
  std::vector<std::vector<double>> coverage;
};

/// The scores of one way to predict, over all episodes. Scores that do not apply are absent.
struct Score {
  std::string name;         ///< Name of the algorithm or baseline: "maml", "nearest centroid".
  int inner_steps = -1;     ///< Number of inner steps; -1: a baseline or a closed-form head.
  bool calibrated = false;  ///< True for predictions after the calibration by `kshot calibrate`.
  std::optional<Statistic> accuracy,  ///< Classification: share of right predictions.
      brier;                          ///< Classification: Brier score, in [0, 2].
  std::optional<Statistic> auroc;     ///< Two classes: area under the ROC curve of class 1.
  std::optional<double> ece;  ///< Classification: expected calibration error, bins of equal width.
  std::vector<CalibrationBin> calibration;  ///< Classification: the bins of `ece`.
  std::optional<Statistic> mse;  ///< Regression: mean squared error over rows and outputs.
  /// Regression: coefficient of determination of an episode's queries, about their own mean.
  std::optional<Statistic> r2;
  std::optional<Statistic> nll;         ///< Negative log-likelihood, nats per row.
  std::vector<CoverageScore> coverage;  ///< Regression: coverage of the central bands.
  /// Classification: entropy of the predicted probabilities, nats.
  std::optional<Statistic> entropy,
      /// Classification: the part of the entropy that stems from not knowing the weights (mutual
      /// information), nats. Only predictions with posterior samples have this score.
      mutual_information;
  /// Regression: continuous ranked probability score, target units. For a point prediction it is
  /// the mean absolute error.
  std::optional<Statistic> crps,
      /// Regression: mean standard deviation of the predictive distribution, target units.
      sharpness;
  /// Regression: predictive variance from not knowing the function, squared target units.
  std::optional<Statistic> epistemic_variance,
      /// Regression: predictive variance from noise, squared target units.
      aleatoric_variance;
  /// Classification: further scores, for the last inner step and for baselines.
  std::optional<UncertaintyScores> uncertainty;
  /// Regression: counts of the probability integral transforms of all targets, in bins of equal
  /// width. Only the last inner step and baselines have these counts, where they predict
  /// distributions.
  std::vector<std::size_t> pit;
  EpisodeScores per_episode;  ///< Scores of the episodes in Evaluation::scored.
};

/// The risk that a threshold of RunCalibration had on the evaluated episodes.
struct RiskScore {
  double bound = 0.05;              ///< Bound that the risk should not exceed.
  std::optional<double> threshold;  ///< Threshold of confidence; absent: none keeps the bound.
  IntervalScore answered,           ///< Share of the rows that are answered.
      observed;                     ///< Share of the answered rows that are wrong.
};

/// The coverage and size of prediction sets (labels) or intervals (values) on these episodes.
struct SetScore {
  double level = 0.9;  ///< Level of the sets, in (0, 1).
  /// Quantile of the conformal score. Infinity: there were too few episodes for the level.
  double quantile = 0.0;
  IntervalScore coverage;  ///< Share of the rows whose target is in the set.
  IntervalScore size;      ///< Mean number of classes, or mean width in target units.
};

/// A baseline without a score, because it could not be fitted in every episode.
struct LeftOut {
  std::string name;    ///< Name of the baseline.
  std::string reason;  ///< The first such episode and why, in words.
};
/// The result of an evaluation. evaluation.json holds it.
struct Evaluation {
  std::string algorithm;      ///< Name of the algorithm.
  std::string checkpoint;     ///< File of the checkpoint.
  std::uint64_t step = 0;     ///< Meta-steps of the checkpoint.
  std::string source;         ///< EpisodeSource::describe of the episodes.
  Split split = Split::test;  ///< Split of the episodes.
  TaskShape shape;            ///< Shape of the episodes.
  // Ranges are from the least to the most over the episodes as they were drawn.
  CountRange support,           ///< Number of support rows.
      query,                    ///< Number of query rows.
      shots,                    ///< Classification: number of support rows per class.
      ways;                     ///< Classification: number of classes.
  std::uint64_t seed = 0;       ///< Seed of the episodes.
  int episodes = 0;             ///< Number of episodes, with those that diverged.
  int diverged = 0;             ///< Number of episodes that diverged and were left out.
  int samples = 1;              ///< Posterior samples of a prediction.
  std::string norm_statistics;  ///< "batch" or "support"; "none": no norm layers.
  std::string device;           ///< The device that computed, in words.
  double seconds = 0.0;         ///< Time that the evaluation took.
  std::string data_path,        ///< Data file of the episodes; empty for other sources.
      data_checksum;            ///< Checksum of the data file; empty for other sources.
  /// Checksum of the file that the run was trained on. Empty where it is the same file.
  std::string trained_checksum;
  std::vector<int> scored;      ///< Numbers of the episodes that did not diverge.
  int bins = 15;                ///< Number of bins of the calibration errors.
  std::string edges = "right";  ///< Edge that belongs to a bin: "right" or "left".
  double risk = 0.05;           ///< The risk of UncertaintyScores::coverage_at_risk.
  std::string calibration;      ///< The calibration and its episodes, in words; empty: none.
  /// With EvaluatorOptions::calibrated: the thresholds of the calibration on these episodes, means
  /// over episodes. Empty for regression.
  std::vector<RiskScore> risks;
  /// With EvaluatorOptions::calibrated: the prediction sets of the calibration on these episodes,
  /// means over episodes.
  std::vector<SetScore> sets;
  /// Scores after 0, 1, ... inner steps. With EvaluatorOptions::calibrated, the score of the
  /// calibrated predictions after the last inner step follows.
  std::vector<Score> steps;
  std::vector<Score> baselines;   ///< Scores of baselines on the same episodes.
  std::vector<LeftOut> left_out;  ///< Baselines without a score.
  /// The score after the last inner step, calibrated where EvaluatorOptions::calibrated is set.
  const Score& last() const { return steps.back(); }
  /// The levels of the bands whose coverage some score has; empty for classification.
  std::vector<double> coverage_levels() const;
  /// The conditions of the scores, in one line: episodes, split, ways, shots, inner steps, samples.
  std::string conditions() const;
  /// A table for people to read.
  std::string table() const;
  std::string to_json() const;  ///< The text of evaluation.json.
  /// Reads what to_json wrote. Only the written part of the episodes' shape is set. Throws Error
  /// that names `origin`.
  static Evaluation from_json(const std::string& text, const std::string& origin = "evaluation");
};

/// Evaluations of one run with several numbers of shots (`kshot evaluate RUN --shots 1,5`). The
/// queries of the episodes are the same in all evaluations.
struct ShotsEvaluation {
  /// Numbers of shots and their evaluations, in the order of the shots; at least one.
  std::vector<std::pair<int, Evaluation>> by_shots;

  /// A table for people to read. For each number of shots it has one row for the run, scored after
  /// its last inner step, and one row for each baseline.
  std::string table() const;
  std::string to_json() const;  ///< The text of evaluation-shots.json.
  /// Reads what to_json wrote. Throws Error that names `origin`.
  static ShotsEvaluation from_json(const std::string& text,
                                   const std::string& origin = "evaluation");
};
/// Options of an Evaluator.
struct EvaluatorOptions {
  std::string device = "auto";  ///< The device, as TrainerOptions::device.
  int threads = 0;              ///< Number of CPU threads; 0: all cores.
  /// Changes to the checkpoint's configuration: "evaluate.steps=10", "data.shots=5".
  std::vector<std::string> overrides = {};
  Split split = Split::test;  ///< Split of the episodes.
  bool baselines = true;      ///< Evaluate baselines on the same episodes.
  bool progress = false;      ///< Write a progress line to standard error.
  /// Evaluate although the data file is not the one that the run was trained on.
  bool allow_changed_data = false;
  /// Score the calibrated predictions too. Throws Error where the checkpoint was not calibrated.
  bool calibrated = false;
  /// A function that is called between waves of episodes, on the calling thread and on others. Once
  /// it returns true, the work ends with kshot::Stopped. Empty: never.
  std::function<bool()> stop = {};
  /// The ranks that evaluate together; each evaluates a part of the episodes. Null: this process
  /// alone. All ranks get the same result.
  std::shared_ptr<Communicator> ranks = {};
};
/// Evaluates a run on episodes, and calibrates it. Not thread-safe.
class Evaluator {
 public:
  /// `run` is a run folder (its best checkpoint, else the last) or a checkpoint. The episodes come
  /// from the run's own [data]. Throws Error where its data file is not that of the training.
  explicit Evaluator(const std::filesystem::path& run, EvaluatorOptions options = {});
  /// Evaluates episodes of the caller's own source.
  Evaluator(const std::filesystem::path& run, std::shared_ptr<const EpisodeSource> source,
            EvaluatorOptions options = {});
  ~Evaluator();
  Evaluator(Evaluator&&) noexcept;
  Evaluator& operator=(Evaluator&&) noexcept;

  const Config& config() const;  ///< The checkpoint's configuration with the overrides.
  /// Evaluates. The episodes and the scores are the same every time, for any number of threads.
  Evaluation run();
  /// Fits a temperature or a variance factor to the episodes. Then it fits the thresholds and
  /// quantiles of decisions to as many other episodes. Each threshold holds with this confidence,
  /// in (0, 1). EvaluatorOptions::split should be Split::validation. Nothing is written. Throws
  /// Error where the predictions have no distribution.
  RunCalibration calibrate(double confidence = 0.95);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kshot
