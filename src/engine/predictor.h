// Predictions of many episodes. They are computed wave by wave on all workers, and taken in the
// order of the episodes.
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

/// The outputs of one episode's adapted network for its query rows.
struct EpisodePrediction {
  int episode = 0;
  const TaskBatch* batch = nullptr;  ///< the batch that holds the episode's rows
  int slot = 0;                      ///< the slot of the episode in the batch
  int rows = 0;                      ///< query rows of this episode
  int outputs_n = 0;      ///< outputs of a row: the episode's own classes, or length of a target
  bool diverged = false;  ///< some output is not finite
  /// Outputs per requested inner step (0, 1, ..., or only the last): [samples, rows, outputs_n].
  std::vector<std::vector<double>> outputs;
  /// Predictive standard deviation after the last inner step, noise included, [rows, outputs_n],
  /// where the method itself gives one (TaskProgram::predictive_variance). Empty otherwise.
  std::vector<double> std;
  /// Where PredictOptions::covariance asks for it and the method gives one: the covariance of the
  /// function values of the query rows, without noise, [rows, rows].
  std::vector<double> covariance;

  // The episode's valid rows. TaskShape::target says whether it has labels or values.
  std::span<const float> support_x() const;
  std::span<const float> query_x() const;
  std::span<const std::int32_t> support_labels() const;
  std::span<const std::int32_t> query_labels() const;
  std::span<const float> support_values() const;
  std::span<const float> query_values() const;
};

/// The episodes that are predicted.
struct EpisodeRange {
  std::uint64_t seed = 0;
  Split split = Split::test;
  int episodes = 0;
};

/// Predicts episodes [begin, end) on this rank. `work` runs on worker threads, in any order. The
/// closure that it returns runs under a lock, in the order of the episodes. `stop` is asked before
/// each wave. Once it returns true, Stopped is thrown.
void predict_in_order(
    Scheduler& scheduler, std::span<const backend::Shared> parameters, const EpisodeSource& source,
    const EpisodeRange& range, int begin, int end, const PredictOptions& options,
    const std::function<std::function<void()>(const EpisodePrediction& prediction)>& work,
    const std::function<bool()>& stop);

/// Draws episodes of a split, adapts to them and predicts. With several ranks (Backend::ranks),
/// each rank takes a part of the episodes. work(prediction) runs on worker threads, in any order.
/// Its result must not keep references into the prediction. take(result) gets the results of all
/// ranks' episodes, one at a time and in the order of the episodes, on every rank. `Result` needs
/// fields(archive, result) (base/archive.h), which packs it for the other ranks. `stop` is that of
/// predict_in_order.
template <class Work, class Take>
void predict_episodes(Scheduler& scheduler, std::span<const backend::Shared> parameters,
                      const EpisodeSource& source, const EpisodeRange& range,
                      const PredictOptions& options, const Work& work, const Take& take,
                      const std::function<bool()>& stop = {}) {
  using Result = std::invoke_result_t<Work, const EpisodePrediction&>;
  const auto total = static_cast<std::size_t>(range.episodes);
  const std::size_t portion =
      scheduler.ranks() ? static_cast<std::size_t>(scheduler.episodes_per_exchange()) : total;
  divide_work<Result>(
      scheduler.ranks(),
      {total, portion, scheduler.shares(range.episodes).unit, "predictions of the episodes"},
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

/// Adapts and predicts the tasks of one loaded wave. Where `adapted` (the result of
/// TaskProgram::adapt) is given, the tasks are predicted from it.
std::vector<EpisodePrediction> predict_wave(TaskProgram& program, const TaskBatch& batch, int first,
                                            int count, const StepContext& context,
                                            const PredictOptions& options,
                                            const AdaptedState* adapted = nullptr);

}  // namespace kshot
