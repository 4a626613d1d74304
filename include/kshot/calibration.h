// Calibration of a run's predictions after training: one number, fitted on validation episodes, and
// the thresholds and quantiles by which predictions are answered or become sets. All of it is kept
// in the run folder.
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

/// What `kshot calibrate` fits by the mean negative log-likelihood over validation episodes.
///
/// Classification: a temperature T (Guo et al. 2017). It divides the log-probabilities of the
/// posterior predictive distribution, the mean of the probabilities over posterior samples:
/// p_c^(1/T) / sum_k p_k^(1/T). For one sample this is the temperature of the logits.
///
/// Regression: a variance factor c. The predictive distribution is stretched about its mean by
/// sqrt(c), so that its variance is multiplied by c and its mean stays.
struct RunCalibration {
  bool classification = true;
  double value = 1.0;               ///< T or c, above 0
  std::string checkpoint;           ///< file name of the checkpoint it belongs to
  std::string checkpoint_checksum;  ///< "crc32c:1a2b3c4d", of that file
  std::uint64_t step = 0;           ///< meta-steps of the checkpoint
  int inner_steps = 0, samples = 1;
  std::string source;  ///< the episodes, in words
  Split split = Split::validation;
  std::uint64_t seed = 0;
  int episodes = 0, diverged = 0;
  double nll_before = 0.0, nll_after = 0.0;     ///< nats, mean over episodes
  std::optional<double> ece_before, ece_after;  ///< classification

  // Decisions, from as many other episodes, drawn with the seed `decision_seed`. They hold for the
  // calibrated predictions.
  std::uint64_t decision_seed = 0;
  int decision_episodes = 0;  ///< without those that diverged
  double confidence = 0.95;   ///< of every threshold by itself
  /// Classification: thresholds by SelectiveRisk, the bounds of the risk ascending.
  std::vector<RiskThreshold> thresholds;
  /// Quantiles by conformal_quantile, the levels ascending. The score of a row is 1 - p of the true
  /// class; of values the largest |target - mean| / standard deviation over the row's targets.
  std::vector<ConformalQuantile> quantiles;

  /// The threshold of the largest bound in `thresholds` that is at most `risk`. Throws Error for a
  /// regression, a bound below the smallest one, and where no threshold keeps the bound.
  RiskThreshold threshold_for(double risk) const;
  /// The quantile of the smallest level in `quantiles` that is at least `level`. Throws Error for a
  /// level above the largest one, and where there were too few episodes for it.
  ConformalQuantile quantile_for(double level) const;

  /// "temperature 1.43" or "variance factor 2.1".
  std::string describe() const;
  std::string to_json() const;  ///< the text of calibration.json
  /// Reads what to_json wrote. Throws Error naming `origin`.
  static RunCalibration from_json(const std::string& text, const std::string& origin);
  /// The calibration beside a checkpoint file. Throws Error, which names the file and says what to
  /// do, where there is none, and where it belongs to another checkpoint.
  static RunCalibration read(const std::filesystem::path& checkpoint);
  /// Throws Error where it was fitted with another number of inner steps or posterior samples.
  void check_fit(int inner_steps, int samples) const;

  /// Applies the temperature to probabilities [rows, classes], in place.
  void apply(std::span<double> probabilities, std::size_t classes) const;
  /// Stretches posterior samples [samples, size] about their mean, in place. The standard
  /// deviation of the noise is to be multiplied by the square root of `value`.
  void stretch(std::span<double> values, std::size_t samples) const;
};

/// Name of the file beside a checkpoint.
inline constexpr const char* calibration_file = "calibration.json";

}  // namespace kshot
