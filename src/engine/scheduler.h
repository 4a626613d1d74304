// The scheduler cuts a meta-batch into waves, runs them on the backend's workers, and sums in an
// order that depends on the tasks alone.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "algorithms/algorithm.h"
#include "backend/backend.h"
#include "engine/episodes_ahead.h"
#include "engine/task_memory.h"
#include "kshot/episode.h"

namespace kshot {

/// The result of one step: losses, diverged tasks, and statistics where they are asked for.
struct StepResult {
  double loss = 0.0;       ///< mean task loss + terms outside the mean
  double task_loss = 0.0;  ///< mean over the tasks that did not diverge
  std::size_t tasks = 0;
  std::size_t diverged = 0;
  // Set by Scheduler::Update, where there is one:
  backend::StepStatus status = backend::StepStatus::update;
  double gradient_norm = 0.0;
  // Computed where `monitor` asks for them, over the tasks whose numbers are finite:
  std::vector<double> metrics;  ///< means of Algorithm::metrics()
  /// Signal-to-noise ratio of the mean over tasks: |mean|^2 over its own variance, which is
  /// estimated from the tasks' scatter, sum |g_t - mean|^2 / (T (T - 1)). NaN for a single task.
  double gradient_snr = 0.0;
};

/// Runs an algorithm over tasks on a backend. Owns the workers and their waves. With several ranks
/// (Backend::ranks), each rank takes its share of the tasks, and the results are the same on all
/// ranks.
class Scheduler {
 public:
  Scheduler(backend::Backend& backend, Algorithm& algorithm, const TaskShape& shape);
  ~Scheduler();

  /// The work of a step that follows the meta-gradient (status, clipping, optimiser): operations on
  /// shared vectors that need nothing from the host and return nothing to it.
  using Update = std::function<void(backend::Step& step)>;
  /// Computes the meta-gradient of `tasks` tasks of one step, which are drawn from the source
  /// (Split::train). Fills gradients(), and with `monitor` the result's metrics. `parameters` are
  /// in the order of Algorithm::groups(). For an algorithm with per-task state, `memory` is given
  /// and changes. The tasks are then different members of the source's finite set or, where the
  /// source has no finite set, the same meta-batch for some steps. The host waits once, when all
  /// work is done. It waits before that only to read tasks (`monitor`, `memory`), and for earlier
  /// waves where there are more waves than workers.
  StepResult step(std::span<const backend::Shared> parameters, const EpisodeSource& source,
                  std::uint64_t seed, std::uint64_t step, int tasks, bool monitor = false,
                  TaskMemory* memory = nullptr, const Update& update = {});
  /// Makes a step with tasks that are given explicitly. `visit` (optional) is called for each wave
  /// after its gradient, on worker threads.
  StepResult step(std::span<const backend::Shared> parameters, const TaskBatch& batch,
                  const StepContext& context,
                  const std::function<void(TaskProgram&, int first_task)>& visit = {});
  /// From now on, the episodes of the next step are drawn while the current step computes, where
  /// the backend leaves the host's threads free for this. Sources must then outlive the scheduler.
  void draw_ahead();
  /// From now on, the backend draws the episodes of steps with this source (place_episodes), except
  /// for tasks of which the member is given (TaskId::member).
  void draw_on_device(const EpisodeSource& source,
                      std::shared_ptr<const backend::Episodes> episodes);
  /// Gradient of each group after step().
  std::span<const backend::Shared> gradients() const { return gradients_; }
  /// Indices of the diverged tasks in this rank's share.
  std::vector<std::uint32_t> diverged_tasks() const;

  /// The division of a meta-batch of so many tasks, or of as many episodes, among the backend's
  /// ranks.
  backend::TaskShares shares(int tasks) const;
  Communicator* ranks() const { return backend_.ranks().get(); }
  /// The number of episodes that all ranks together predict before they exchange the results.
  int episodes_per_exchange() const;

  /// Draws episodes [begin, end) of a split and calls `visit` for each loaded wave on a worker
  /// thread. first_task is the number of the first episode, and batch holds the drawn rows (task i
  /// of the wave at slot i). Waves come in any order, so that `visit` must index what it writes by
  /// the episode.
  void for_each_wave(std::span<const backend::Shared> parameters, const EpisodeSource& source,
                     std::uint64_t seed, Split split, int begin, int end,
                     const std::function<void(TaskProgram& program, const TaskBatch& batch,
                                              int first_task, int count)>& visit);

 private:
  struct Worker;
  Worker& worker(std::size_t index);
  /// The functions that run() calls for each wave of a step.
  struct WaveWork {
    std::function<void(Worker&worker, int first, int count)> load, compute;
    std::function<void(Worker& worker, int first, int count)> after;  ///< may read the wave's tasks
    /// True: compute needs nothing from the host and returns nothing to it, so that a device can
    /// capture it as a graph.
    bool capturable = true;
  };
  /// Runs the waves of `tasks` tasks, reduces, finishes and updates.
  StepResult run(std::span<const backend::Shared> parameters, int tasks, const StepContext& context,
                 const WaveWork& work, const Update& update, bool monitor = false);
  struct Monitor;
  class StepRun;

  backend::Backend& backend_;
  Algorithm& algorithm_;
  TaskShape shape_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::unique_ptr<backend::Reduction> reduction_;
  std::unique_ptr<backend::Step> step_;
  std::vector<backend::Shared> means_, gradients_;
  int capacity_ = 0;
  std::unique_ptr<EpisodesAhead> ahead_;
  std::shared_ptr<const backend::Episodes> on_device_;  ///< episodes of on_device_source_
  const EpisodeSource* on_device_source_ = nullptr;
};

}  // namespace kshot
