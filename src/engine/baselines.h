// The baselines of an evaluation, which predict an episode's query rows from its support rows
// alone.
#pragma once

#include <string>
#include <vector>

#include "engine/predictor.h"

namespace kshot {

/// The prediction of one method for an episode's query rows.
struct Entry {
  /// Probabilities [rows, classes] or values [samples, rows, outputs].
  std::vector<double> values = {};
  std::size_t samples = 1;
  std::vector<double> noise = {};  ///< standard deviation of each target; empty: point values
  /// Where one sample's `noise` holds more than observation noise (closed-form heads): the standard
  /// deviation of the observation noise, [outputs].
  std::vector<double> observation_std = {};
  /// The reason why there is no prediction. Empty where there is one.
  std::string missing = {};
};

template <class Archive>
void fields(Archive& a, Entry& e) {
  a(e.values, e.samples, e.noise, e.observation_std, e.missing);
}

/// Names of the baselines in the order of predict_baselines.
const std::vector<std::string>& baseline_names(bool classify);

/// The `missing` of baselines that do not apply to data of this kind (a Tanimoto kernel of features
/// that are not 0 or 1).
inline constexpr const char* not_applicable = "does not apply to these features";

/// Predicts with all baselines. Entry::missing is set where an episode gives a baseline nothing to
/// learn from, and where a baseline is too large to be fitted in each of many episodes.
std::vector<Entry> predict_baselines(const EpisodePrediction& p, bool classify);

}  // namespace kshot
