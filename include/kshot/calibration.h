// Calibration of a run's predictions after training: one number that is fitted on validation
// episodes, the thresholds by which predictions are answered, and the quantiles that make sets of
// them. The run folder keeps all of it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kshot/decisions.h"
#include "kshot/episode.h"

namespace kshot {

/// The result of `kshot calibrate`. Its number `value` minimises the mean negative log-likelihood
/// over validation episodes.
///
/// Classification: a temperature T (Guo et al. 2017). It divides the log-probabilities of the
/// posterior predictive distribution, the mean of the probabilities over posterior samples:
/// p_c^(1/T) / sum_k p_k^(1/T). For one sample this is the temperature of the logits.
///
/// Regression: a variance factor c. The predictive distribution is stretched about its mean by
/// sqrt(c), so that its variance is multiplied by c and its mean stays.
struct RunCalibration {
  bool classification = true;        ///< True: `value` is T; false: `value` is c.
  double value = 1.0;                ///< T or c, above 0.
  std::string checkpoint;            ///< File name of the checkpoint that was calibrated.
  std::string checkpoint_checksum;   ///< Checksum of that file, "crc32c:1a2b3c4d".
  std::uint64_t step = 0;            ///< Meta-steps of the checkpoint.
  int inner_steps = 0,               ///< Inner steps of the calibrated predictions.
      samples = 1;                   ///< Posterior samples of the calibrated predictions.
  std::string source;                ///< EpisodeSource::describe of the episodes.
  Split split = Split::validation;   ///< Split of the episodes.
  std::uint64_t seed = 0;            ///< Seed of the episodes on which `value` was fitted.
  int episodes = 0,                  ///< Number of these episodes, with those that diverged.
      diverged = 0;                  ///< Number of these episodes that diverged and were left out.
  double nll_before = 0.0,           ///< Mean negative log-likelihood (nats) before calibration.
      nll_after = 0.0;               ///< Mean negative log-likelihood (nats) after calibration.
  std::optional<double> ece_before,  ///< Classification: ECE before calibration.
      ece_after;                     ///< Classification: ECE after calibration.

  // Decisions, from `episodes` other episodes. They hold for the calibrated predictions.
  std::uint64_t decision_seed = 0;  ///< Seed of the other episodes.
  int decision_episodes = 0;        ///< Number of other episodes, without those that diverged.
  double confidence = 0.95;         ///< Confidence with which each threshold by itself holds.
  /// Classification: thresholds by SelectiveRisk, in ascending order of RiskThreshold::risk.
  std::vector<RiskThreshold> thresholds;
  /// Quantiles by conformal_quantile, in ascending order of their levels. The score of a row is
  /// 1 - p of the true class; for regression the largest |target - mean| / standard deviation over
  /// the row's targets.
  std::vector<ConformalQuantile> quantiles;

  /// Returns the threshold of the largest bound in `thresholds` that is at most `risk`. Throws
  /// Error for a regression, for a risk below the smallest bound, and where no threshold keeps the
  /// bound.
  RiskThreshold threshold_for(double risk) const;
  /// Returns the quantile of the smallest level in `quantiles` that is at least `level`. Throws
  /// Error for a level above the largest one, and where there were too few episodes for it.
  ConformalQuantile quantile_for(double level) const;

  /// Returns "temperature 1.43" or "variance factor 2.1".
  std::string describe() const;
  std::string to_json() const;  ///< The text of calibration.json.
  /// Reads what to_json wrote. Throws Error that names `origin`.
  static RunCalibration from_json(const std::string& text, const std::string& origin);
  /// Reads the calibration beside a checkpoint file. Throws Error, which names the file and says
  /// what to do, where there is none, and where it belongs to another checkpoint.
  static RunCalibration read(const std::filesystem::path& checkpoint);
  /// Throws Error where this calibration was fitted with another number of inner steps or posterior
  /// samples.
  void check_fit(int inner_steps, int samples) const;

  /// Applies the temperature to probabilities [rows, classes], in place.
  void apply(std::span<double> probabilities, std::size_t classes) const;
  /// Stretches posterior samples [samples, size] about their mean, in place. The caller multiplies
  /// the standard deviation of the noise by the square root of `value`.
  void stretch(std::span<double> values, std::size_t samples) const;
};

/// Name of the calibration file beside a checkpoint.
inline constexpr const char* calibration_file = "calibration.json";

}  // namespace kshot
