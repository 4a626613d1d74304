// Predictions of many episodes: made wave by wave on all workers, judged in the episodes' order.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "engine/assembly.h"
#include "engine/scheduler.h"

namespace kshot {

/// What one episode's network gives for its query rows.
struct EpisodePrediction {
  int episode = 0;
  const TaskBatch* batch = nullptr;  ///< holds the episode's rows ...
  int slot = 0;                      ///< ... here
  int rows = 0;                      ///< query rows of this episode
  int outputs_n = 0;      ///< outputs of a row: the episode's own classes, or length of a target
  bool diverged = false;  ///< some output is not finite
  /// Per inner step asked for (0, 1, ..., or the last alone): [samples, rows, outputs_n].
  std::vector<std::vector<double>> outputs;
  /// Predictive standard deviation of the last, noise included, [rows, outputs_n], where the method
  /// itself gives one (TaskProgram::predictive_variance); else empty.
  std::vector<double> std;
  /// Where PredictOptions::covariance asks for it and the method gives one: the covariance of the
  /// function values of the query rows, without noise, [rows, rows].
  std::vector<double> covariance;

  // The episode's valid rows; labels or values by TaskShape::target.
  std::span<const float> support_x() const;
  std::span<const float> query_x() const;
  std::span<const std::int32_t> support_labels() const;
  std::span<const std::int32_t> query_labels() const;
  std::span<const float> support_values() const;
  std::span<const float> query_values() const;
};

/// Draws episodes of a split, adapts, predicts. `judge` runs on worker threads, in any order; the
/// closure that it returns runs under a lock, in the episodes' order, and must not keep references
/// into the prediction. `stop` is asked before each wave; once it says true, Stopped is thrown.
void predict_episodes(
    Scheduler& scheduler, std::span<const backend::Shared> parameters, const EpisodeSource& source,
    std::uint64_t seed, Split split, int episodes, const PredictOptions& options,
    const std::function<std::function<void()>(const EpisodePrediction& prediction)>& judge,
    const std::function<bool()>& stop = {});

/// One loaded wave: adapts and predicts its tasks.
std::vector<EpisodePrediction> predict_wave(TaskProgram& program, const TaskBatch& batch, int first,
                                            int count, const StepContext& context,
                                            const PredictOptions& options);

}  // namespace kshot
