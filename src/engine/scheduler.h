// The scheduler: cuts a meta-batch into waves, runs them on the backend's workers, and sums in an
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

/// One meta-gradient: its mean task loss and what happened on the way.
struct StepResult {
  double loss = 0.0;       ///< mean task loss + terms outside the mean
  double task_loss = 0.0;  ///< mean over the tasks that did not diverge
  std::size_t tasks = 0;
  std::size_t diverged = 0;
  // By Scheduler::Update, where there is one:
  backend::StepStatus status = backend::StepStatus::update;
  double gradient_norm = 0.0;
  // Where asked for; over the tasks whose numbers are finite:
  std::vector<double> metrics;  ///< means of Algorithm::metrics()
  /// Signal to noise of the mean over tasks: |mean|^2 over its own variance, estimated from the
  /// tasks' scatter, sum |g_t - mean|^2 / (T (T - 1)). NaN for a single task.
  double gradient_snr = 0.0;
};

/// Runs an algorithm over tasks on a backend. Owns the workers and their waves. With several ranks
/// (Backend::ranks) each takes its share of the tasks; results are the same on all.
class Scheduler {
 public:
  Scheduler(backend::Backend& backend, Algorithm& algorithm, const TaskShape& shape);
  ~Scheduler();

  /// What follows the meta-gradient within a step (status, clipping, optimiser): operations on
  /// shared vectors that need nothing from the host and bring nothing back.
  using Update = std::function<void(backend::Step& step)>;
  /// Meta-gradient of `tasks` tasks of one step, drawn from the source (Split::train); fills
  /// gradients(), and with `monitor` the result's metrics. `parameters` in the order of
  /// Algorithm::groups(). Where the algorithm's tasks remember, `memory` is given and changes: the
  /// tasks are then different members of the source's finite set, or, where there is no end of
  /// them, the same meta-batch for some steps. The host waits once, when all is done; but to look
  /// at tasks (`monitor`, `memory`), and for the waves before where there are more than workers.
  StepResult step(std::span<const backend::Shared> parameters, const EpisodeSource& source,
                  std::uint64_t seed, std::uint64_t step, int tasks, bool monitor = false,
                  TaskMemory* memory = nullptr, const Update& update = {});
  /// The same for tasks given explicitly; visit (optional) sees each wave after its gradient, from
  /// worker threads.
  StepResult step(std::span<const backend::Shared> parameters, const TaskBatch& batch,
                  const StepContext& context,
                  const std::function<void(TaskProgram&, int first_task)>& visit = {});
  /// From now on the episodes of the next step are drawn while this one computes, where the backend
  /// leaves the host's threads free for it. Sources must then live as long as this.
  void draw_ahead();
  /// From now on the episodes of steps with this source are drawn by the backend (place_episodes),
  /// but for those of a given member of its training tasks.
  void draw_on_device(const EpisodeSource& source,
                      std::shared_ptr<const backend::Episodes> episodes);
  /// Gradient of each group after step().
  std::span<const backend::Shared> gradients() const { return gradients_; }
  /// Of this rank's share.
  std::vector<std::uint32_t> diverged_tasks() const;

  /// The meta-batch of so many tasks, or as many episodes, divided among the backend's ranks.
  backend::TaskShares shares(int tasks) const;
  Communicator* ranks() const { return backend_.ranks().get(); }
  /// How many episodes all ranks together predict before they exchange what they have.
  int episodes_per_exchange() const;

  /// Draws episodes [begin, end) of a split and hands each loaded wave to `visit` on a worker
  /// thread: first_task is the first episode's number, batch holds the drawn rows (task i of the
  /// wave at slot i). Waves come in any order; what visit writes must be indexed by the episode.
  void for_each_wave(std::span<const backend::Shared> parameters, const EpisodeSource& source,
                     std::uint64_t seed, Split split, int begin, int end,
                     const std::function<void(TaskProgram& program, const TaskBatch& batch,
                                              int first_task, int count)>& visit);

 private:
  struct Worker;
  Worker& worker(std::size_t index);
  /// What run() does with each wave of a step.
  struct Body {
    std::function<void(Worker&worker, int first, int count)> load, compute;
    std::function<void(Worker& worker, int first, int count)> after;  ///< may look at its tasks
    bool gather = true;  ///< compute needs nothing from the host and brings nothing back
  };
  /// Waves of `tasks` tasks: reduces, finishes, updates.
  StepResult run(std::span<const backend::Shared> parameters, int tasks, const StepContext& context,
                 const Body& body, const Update& update, bool monitor = false);
  struct Monitor;

  backend::Backend& backend_;
  Algorithm& algorithm_;
  TaskShape shape_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::unique_ptr<backend::Reduction> reduction_;
  std::unique_ptr<backend::Step> step_;
  std::vector<backend::Shared> means_, gradients_;
  int capacity_ = 0;
  std::unique_ptr<EpisodesAhead> ahead_;
  std::shared_ptr<const backend::Episodes> on_device_;  ///< of on_device_source_
  const EpisodeSource* on_device_source_ = nullptr;
};

}  // namespace kshot
