// Evaluation on test episodes: the adapted network per inner step, beside baselines that see the
// same support and query rows.
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
  double mean = 0.0;
  double half_width = 0.0;  ///< NaN for a single episode
  std::size_t episodes = 0;
  /// 95 % bootstrap interval over episodes; NaN where it was not computed.
  double low = std::numeric_limits<double>::quiet_NaN();
  double high = std::numeric_limits<double>::quiet_NaN();
};

/// A statistic of all episodes together and its 95 % bootstrap interval over episodes. The ends are
/// NaN for fewer than two episodes.
struct IntervalScore {
  double value = 0.0;
  double low = std::numeric_limits<double>::quiet_NaN();
  double high = std::numeric_limits<double>::quiet_NaN();
};

/// How often targets fell into the central bands of the prediction.
struct CoverageScore {
  double level = 0.0;  ///< 0.9
  Statistic observed;
};

/// One bin of a reliability diagram over confidence; Evaluation::edges says which of low and high
/// belongs to it.
struct CalibrationBin {
  double low = 0.0, high = 0.0;
  std::size_t count = 0;
  double confidence = 0.0, accuracy = 0.0;
};

/// A threshold of confidence: the share of rows that are answered at or above it, and the share of
/// the answered rows that are wrong.
struct RiskCoveragePoint {
  double threshold = 0.0, coverage = 0.0, risk = 0.0;
};

/// How far the probabilities of a classifier can be trusted, over the rows of all episodes.
/// docs/uncertainty.md defines each number.
struct UncertaintyScores {
  IntervalScore ece;             ///< expected calibration error, bins of equal width
  IntervalScore mce;             ///< maximum calibration error
  IntervalScore ece_equal_mass;  ///< bins of equal mass
  IntervalScore classwise_ece;
  /// The parts of the Brier score: reliability - resolution + uncertainty + within-bin.
  IntervalScore brier_reliability, brier_resolution, brier_uncertainty, brier_within_bin;
  IntervalScore aurc;              ///< area under the risk-coverage curve
  IntervalScore risk_at_coverage;  ///< at 80 % coverage
  IntervalScore coverage_at_risk;  ///< at Evaluation::risk
  /// At most 200 thresholds, the largest first; the last has coverage 1.
  std::vector<RiskCoveragePoint> curve;
};

/// Scores of the single episodes, in their order; what does not apply is empty.
struct EpisodeScores {
  std::vector<double> accuracy, brier;  ///< classification
  std::vector<double> auroc;  ///< two classes: of class 1; NaN where the queries are of one class
  std::vector<double> aurc;   ///< classification
  std::vector<double> entropy, mutual_information;  ///< classification, nats
  std::vector<double> mse;                          ///< regression
  std::vector<double> r2;                           ///< NaN where all query targets are equal
  std::vector<double> crps, sharpness;              ///< target units
  std::vector<double> epistemic_variance, aleatoric_variance;  ///< squared target units
  std::vector<double> nll;                                     ///< nats per row
  /// Regression: the share of targets within each central band, [levels of Score::coverage]
  /// [episodes].
  std::vector<std::vector<double>> coverage;
};

/// The scores of one way to predict, over all episodes. Scores that do not apply are absent.
struct Score {
  std::string name;                          ///< "maml", "nearest centroid"
  int inner_steps = -1;                      ///< -1: a baseline
  bool calibrated = false;                   ///< after what `kshot calibrate` fitted
  std::optional<Statistic> accuracy, brier;  ///< classification
  std::optional<Statistic> auroc;            ///< two classes: area under the ROC curve of class 1
  std::optional<double> ece;                 ///< expected calibration error
  std::vector<CalibrationBin> calibration;
  std::optional<Statistic> mse;  ///< regression: mean over rows and outputs
  /// Regression: coefficient of determination of an episode's queries, about their own mean.
  std::optional<Statistic> r2;
  std::optional<Statistic> nll;  ///< nats per row
  std::vector<CoverageScore> coverage;
  /// Classification: entropy of the predicted probabilities, and the part of it that stems from not
  /// knowing the weights (mutual information; posterior samples alone have it). Nats.
  std::optional<Statistic> entropy, mutual_information;
  /// Regression, target units: continuous ranked probability score (of a point prediction the mean
  /// absolute error); mean standard deviation of the predictive distribution.
  std::optional<Statistic> crps, sharpness;
  /// Regression: the predictive variance from not knowing the function, and from noise.
  std::optional<Statistic> epistemic_variance, aleatoric_variance;
  /// The last inner step and the baselines of a classification.
  std::optional<UncertaintyScores> uncertainty;
  /// The last inner step and the baselines of a regression, where they predict distributions:
  /// counts of the probability integral transforms of all targets in bins of equal width.
  std::vector<std::size_t> pit;
  EpisodeScores per_episode;  ///< of the episodes in Evaluation::scored
};

/// The risk that a threshold of RunCalibration had on the evaluated episodes.
struct RiskScore {
  double bound = 0.05;               ///< which the risk should not exceed
  std::optional<double> threshold;   ///< absent: none keeps the bound
  IntervalScore answered, observed;  ///< share of rows answered; share of wrong ones among these
};

/// The coverage and size of prediction sets (labels) or intervals (values) on these episodes.
struct SetScore {
  double level = 0.9;
  double quantile = 0.0;   ///< of the conformal score; infinity: too few episodes for the level
  IntervalScore coverage;  ///< share of rows whose target is in
  IntervalScore size;      ///< mean number of classes, or mean width in target units
};

/// A baseline without a score, because it could not be fitted in every episode.
struct LeftOut {
  std::string name;
  std::string reason;  ///< the first such episode and why, in words
};
/// The result of an evaluation, which evaluation.json holds.
struct Evaluation {
  std::string algorithm;
  std::string checkpoint;  ///< file
  std::uint64_t step = 0;  ///< meta-steps it was trained for
  std::string source;      ///< the episodes, in words
  Split split = Split::test;
  TaskShape shape;
  /// Rows of the episodes as they were drawn, and for classification support rows per class and
  /// classes: the least and the most over episodes.
  CountRange support, query, shots, ways;
  std::uint64_t seed = 0;
  int episodes = 0;
  int diverged = 0;  ///< episodes left out: their adapted network left the finite range
  int samples = 1;
  std::string norm_statistics;  ///< "batch", "support"; "none": no norm layers
  std::string device;
  double seconds = 0.0;
  /// The data file that the episodes were drawn from and its checksum; empty for other sources.
  std::string data_path, data_checksum;
  /// Checksum of the file that the run was trained on, where it is another one.
  std::string trained_checksum;
  std::vector<int> scored;      ///< numbers of the episodes that did not diverge
  int bins = 15;                ///< of the calibration errors
  std::string edges = "right";  ///< edges that belong to a bin: "right" or "left"
  double risk = 0.05;           ///< of UncertaintyScores::coverage_at_risk
  std::string calibration;      ///< what was fitted and on what, in words; empty: nothing
  /// With EvaluatorOptions::calibrated: the thresholds and sets of the calibration on these
  /// episodes, means over episodes. Empty where they do not apply.
  std::vector<RiskScore> risks;
  std::vector<SetScore> sets;
  /// After 0, 1, ... inner steps; with EvaluatorOptions::calibrated, the calibrated predictions
  /// after the last inner step follow.
  std::vector<Score> steps;
  std::vector<Score> baselines;  ///< the same episodes
  std::vector<LeftOut> left_out;
  /// The score after the last inner step, calibrated where that was asked for.
  const Score& last() const { return steps.back(); }
  /// The levels of the bands whose coverage some score has; empty for classification.
  std::vector<double> coverage_levels() const;
  /// What the numbers hold for, in one line: episodes, split, ways, shots, inner steps, samples.
  std::string conditions() const;
  /// A table for people to read.
  std::string table() const;
  std::string to_json() const;  ///< the text of evaluation.json
  /// Reads it. Of the episodes' shape only the written part is set. Throws Error naming `origin`.
  static Evaluation from_json(const std::string& text, const std::string& origin = "evaluation");
};

/// Evaluations of one run with several numbers of shots (`kshot evaluate RUN --shots 1,5`), the
/// episodes' queries the same in all. In the order of the shots, at least one.
struct ShotsEvaluation {
  std::vector<std::pair<int, Evaluation>> by_shots;

  /// A table for people to read. For each number of shots it has one row for the run, scored after
  /// its last inner step, and one row for each baseline.
  std::string table() const;
  std::string to_json() const;  ///< the text of evaluation-shots.json
  /// Reads it. Throws Error naming `origin`.
  static ShotsEvaluation from_json(const std::string& text,
                                   const std::string& origin = "evaluation");
};
/// Options of an Evaluator.
struct EvaluatorOptions {
  std::string device = "auto";
  int threads = 0;  ///< 0: all cores
  /// Changes to the checkpoint's configuration: "evaluate.steps=10", "data.shots=5".
  std::vector<std::string> overrides = {};
  Split split = Split::test;  ///< of the episodes
  bool baselines = true;      ///< evaluate baselines on the same episodes
  bool progress = false;      ///< a progress line on standard error
  /// Evaluate although the data file is not the one that the run was trained on.
  bool allow_changed_data = false;
  /// Score the calibrated predictions too. Throws Error where the checkpoint was not calibrated.
  bool calibrated = false;
  /// Asked between waves of episodes, on the calling thread and on others; the work ends with
  /// kshot::Stopped once it says true. Empty: never.
  std::function<bool()> stop = {};
  /// The ranks that evaluate together, each a part of the episodes; null: this process alone. All
  /// ranks get the same result.
  std::shared_ptr<Communicator> ranks = {};
};
/// Evaluates a run on episodes, and calibrates it. Not thread-safe.
class Evaluator {
 public:
  /// `run` is a run folder (its best checkpoint, else the last) or a checkpoint. Episodes from the
  /// run's own [data]; throws Error where its data file is another one than in training ...
  explicit Evaluator(const std::filesystem::path& run, EvaluatorOptions options = {});
  /// ... or from a source.
  Evaluator(const std::filesystem::path& run, std::shared_ptr<const EpisodeSource> source,
            EvaluatorOptions options = {});
  ~Evaluator();
  Evaluator(Evaluator&&) noexcept;
  Evaluator& operator=(Evaluator&&) noexcept;

  const Config& config() const;  ///< of the checkpoint, with the overrides
  /// Evaluates. Episodes and numbers are the same every time, whatever the number of threads.
  Evaluation run();
  /// Fits a temperature or a variance factor to the episodes, and then, on as many others, the
  /// thresholds and quantiles of decisions; each threshold holds with this confidence, in (0, 1).
  /// EvaluatorOptions::split should be Split::validation. Throws Error where the predictions have
  /// no distribution. Writes nothing.
  RunCalibration calibrate(double confidence = 0.95);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kshot
