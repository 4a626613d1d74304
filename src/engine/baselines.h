// The baselines of an evaluation: what each predicts for an episode from its support rows alone.
#pragma once

#include <string>
#include <vector>

#include "engine/predictor.h"

namespace kshot {

/// What one way to predict gives for an episode's query rows.
struct Entry {
  std::vector<double> values =
      {};  ///< probabilities [rows, classes] or values [samples, rows, outputs]
  std::size_t samples = 1;
  std::vector<double> noise = {};  ///< standard deviation of each target; none: a point
  /// Where one sample's `noise` holds more than observation noise (closed-form heads): the standard
  /// deviation of the observation noise, [outputs].
  std::vector<double> observation_std = {};
  /// Why there is no prediction; empty: there is one.
  std::string missing = {};
};

template <class Archive>
void fields(Archive& a, Entry& e) {
  a(e.values, e.samples, e.noise, e.observation_std, e.missing);
}

/// Names of the baselines in the order of predict_baselines.
const std::vector<std::string>& baseline_names(bool classify);

/// The `missing` of baselines that say nothing about data of this kind (a Tanimoto kernel of
/// features that are not 0 or 1).
inline constexpr const char* not_applicable = "does not apply to these features";

/// Predictions of all baselines. One that an episode gives nothing to learn from, or that is too
/// large to be fitted in each of many episodes, says so (Entry::missing) instead.
std::vector<Entry> predict_baselines(const EpisodePrediction& p, bool classify);

}  // namespace kshot
