// Predictions of many episodes: made wave by wave on all workers, judged in the episodes' order.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "engine/assembly.h"
#include "engine/divided_work.h"
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

/// Which episodes are predicted, and how.
struct EpisodeRange {
  std::uint64_t seed = 0;
  Split split = Split::test;
  int episodes = 0;
};

/// Episodes [begin, end) of this rank. `work` runs on worker threads, in any order; the closure
/// that it returns runs under a lock, in the episodes' order. `stop` is asked before each wave;
/// once it says true, Stopped is thrown.
void predict_in_order(
    Scheduler& scheduler, std::span<const backend::Shared> parameters, const EpisodeSource& source,
    const EpisodeRange& range, int begin, int end, const PredictOptions& options,
    const std::function<std::function<void()>(const EpisodePrediction& prediction)>& work,
    const std::function<bool()>& stop);

/// Draws episodes of a split, adapts, predicts. With several ranks (Backend::ranks) each takes a
/// part of the episodes. work(prediction) runs on worker threads, in any order; its result must not
/// keep references into the prediction. take(result) gets the results of all ranks' episodes, one
/// at a time and in the episodes' order, on every rank. `Result` has fields(archive, result)
/// (base/archive.h), by which it travels between ranks. `stop`: as above.
template <class Work, class Take>
void predict_episodes(Scheduler& scheduler, std::span<const backend::Shared> parameters,
                      const EpisodeSource& source, const EpisodeRange& range,
                      const PredictOptions& options, const Work& work, const Take& take,
                      const std::function<bool()>& stop = {}) {
  using Result = std::invoke_result_t<Work, const EpisodePrediction&>;
  const auto total = static_cast<std::size_t>(range.episodes);
  const std::size_t at_once =
      scheduler.ranks() ? static_cast<std::size_t>(scheduler.episodes_per_exchange()) : total;
  divide_work<Result>(
      scheduler.ranks(),
      {total, at_once, scheduler.shares(range.episodes).unit, "predictions of the episodes"},
      [&](std::size_t first, std::size_t count, const auto& put) {
        const int begin = static_cast<int>(first);
        predict_in_order(
            scheduler, parameters, source, range, begin, begin + static_cast<int>(count), options,
            [&](const EpisodePrediction& p) -> std::function<void()> {
              return
                  [&put, result = std::make_shared<Result>(work(p))] { put(std::move(*result)); };
            },
            stop);
      },
      take);
}

/// One loaded wave: adapts and predicts its tasks. Where `adapted` is given
/// (TaskProgram::adapt), the tasks are predicted from it.
std::vector<EpisodePrediction> predict_wave(TaskProgram& program, const TaskBatch& batch, int first,
                                            int count, const StepContext& context,
                                            const PredictOptions& options,
                                            const AdaptedState* adapted = nullptr);

}  // namespace kshot
