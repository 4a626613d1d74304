// Fitting a temperature or a variance factor to episodes, and the file that keeps it.
#pragma once

#include <filesystem>
#include <string>

#include "engine/scoring.h"
#include "kshot/calibration.h"
#include "kshot/evaluator.h"
#include "metrics/recalibration.h"

namespace kshot {

/// Gathers a method's predictions and fits RunCalibration::value.
class CalibrationFit {
 public:
  explicit CalibrationFit(const ScoringOptions& options) : options_(options) {}
  /// Throws Error for a regression whose predictions are points.
  void add(const Entry& entry, const QueryTargets& targets);
  /// Fills in the value, its likelihoods and its calibration errors. Warns where the value is at
  /// the end of the searched range.
  void finish(RunCalibration& result) const;

 private:
  double ece(double temperature) const;

  ScoringOptions options_;
  metrics::TemperatureFit temperature_;
  metrics::VarianceFit variance_;
  /// Classification: predictions and labels of the episodes, for the calibration errors.
  struct Kept {
    std::vector<double> probabilities;
    QueryTargets targets;
  };
  std::vector<Kept> kept_;
};

/// The calibration that calibrate_run fitted, and the file beside the checkpoint that holds it.
struct WrittenCalibration {
  RunCalibration calibration;
  std::filesystem::path file;
};
/// Calibrates a run on the episodes that `options` name and writes the file that
/// RunCalibration::read looks for. Checks before any work that the file can be written. With
/// EvaluatorOptions::ranks, all ranks get the result and rank 0 writes the file.
WrittenCalibration calibrate_run(const std::filesystem::path& run, const EvaluatorOptions& options,
                                 double confidence = 0.95);

/// Checksum of a whole file: "crc32c:1a2b3c4d".
std::string file_checksum(const std::filesystem::path& file);

}  // namespace kshot
