// A training step on a backend: the reduction of gradients over tasks, the statistics of the step,
// and the decision that follows from them.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "backend/shared_vector.h"
#include "backend/task_tree.h"
#include "backend/wave.h"

namespace kshot::backend {

/// The decision about a training step.
enum class StepStatus {
  update,  ///< the optimizer makes its step
  guard,   ///< the optimizer makes its step with the gradient of SharedVectors::guard
  stop,    ///< no parameter changes
};

/// Statistics of a step besides its gradients. All members are doubles, so that a backend can store
/// them as an array.
struct StepStatistics {
  /// Sum over the tasks that did not diverge.
  double loss = 0.0;
  /// Number of tasks that did not diverge.
  double tasks = 0.0;
  /// Number of tasks that diverged.
  double diverged = 0.0;
  /// Terms of the objective outside the mean over tasks.
  double outside = 0.0;
  /// Sum of squares of the means over tasks, all elements.
  double mean_squares = 0.0;
  /// Sum of squares of the gradients, all groups.
  double gradient_squares = 0.0;
  /// Sum of squares of the gradients, whose elements are first limited to [-clip_value,
  /// clip_value].
  double clipped_squares = 0.0;
  /// A StepStatus, set by Step::decide_update.
  double status = 0.0;

  double mean_loss() const { return tasks > 0.0 ? loss / tasks : 0.0; }
  double total_loss() const { return mean_loss() + outside; }
};
using Statistic = double StepStatistics::*;

/// How the statistics of a step decide its status.
struct StepRule {
  /// Largest share of diverged tasks with which an update is made.
  double max_diverged = 1.0;
  /// Any diverged task, or an objective that is not finite, gives the status `guard` instead of
  /// `stop`.
  bool guard = false;

  StepStatus status(const StepStatistics& f) const {
    const bool finite = std::isfinite(f.total_loss());
    if (guard && (f.diverged > 0.0 || !finite)) return StepStatus::guard;
    const bool many = f.tasks == 0.0 || f.diverged / (f.tasks + f.diverged) > max_diverged;
    return many || !finite ? StepStatus::stop : StepStatus::update;
  }
};

/// A training step on a backend. Its statistics stay in the backend's memory, where operations add
/// to them and read them; the host reads all of them once. A step also launches its work.
class Step {
 public:
  virtual ~Step() = default;
  /// Runs `work`: operations of the backend, of `waves` (which are loaded) and of their reduction
  /// that take nothing from the host and return nothing to it. A backend may capture them into one
  /// launch (CudaStep: a CUDA graph). `work` may then run twice, where the first run computes
  /// nothing.
  virtual void capture(std::span<Wave* const> /*waves*/, const std::function<void()>& work) {
    work();
  }
  /// Sets all statistics to zero.
  virtual void clear() = 0;
  virtual void add(Statistic statistic, double value) = 0;
  /// Sets the status by loss, tasks, diverged and outside.
  virtual void decide_update(const StepRule& rule) = 0;
  /// Waits for all work that was launched, and returns the statistics.
  virtual StepStatistics read() const = 0;
};

/// The statistic to which an operation adds its value.
struct Sum {
  Step& step;
  Statistic statistic;
};

/// Sums over the tasks of all ranks of the backend. The tasks' indices alone fix the order: a
/// binary tree over them, in double above 16 tasks (task_tree.h). Any thread may add a wave.
/// `ordinal` counts this rank's waves from 0, and sums are committed in that order. A task with an
/// element that is not finite, in a block or in its loss, counts as zero and as diverged.
class Reduction {
 public:
  virtual ~Reduction() = default;
  /// Begins a sum to which this rank adds `waves` waves with its share of the tasks. The statistics
  /// of all tasks (loss, tasks, diverged) are added to those of `step`.
  virtual void begin(std::size_t waves, const TaskShares& shares, Step& step) = 0;
  /// `gradients` have the order and the widths that were given when the reduction was made. `loss`
  /// has width 1.
  virtual void add(Wave& wave, std::size_t ordinal, std::span<const Block> gradients,
                   Block loss) = 0;
  /// Cancels the sum because a wave will not come (its worker threw an exception). Nobody waits for
  /// the wave any more, and later adds do nothing. finish must not be called before the next begin.
  virtual void cancel() = 0;
  /// After the last add: sets each vector to the mean of its block over the tasks of all ranks that
  /// did not diverge. With several ranks this is an exchange (Communicator), for which the host may
  /// have to wait (Backend::exchanges_on_device).
  virtual void finish(std::span<const Shared> means) = 0;
  /// Indices of this rank's diverged tasks, ascending. Valid after finish.
  virtual std::vector<std::uint32_t> diverged_tasks() const = 0;
};

/// One step of the optimizer.
struct OptimizerStep {
  enum class Kind { sgd, adam } kind = Kind::adam;
  double learning_rate = 1e-3;
  double momentum = 0.9;                              ///< sgd
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;  ///< adam (Kingma & Ba 2015)
  std::uint64_t step = 1;   ///< number of the step, from 1, for the bias correction
  double clip_value = 0.0;  ///< 0: off; applied before clip_norm
  /// Largest norm of the gradients, 0: off. Gradients are scaled down where the root of
  /// `training_step`'s clipped_squares is larger.
  double clip_norm = 0.0;
  double weight_decay = 0.0;  ///< this times the parameters is added to the clipped gradient
  /// The training step, or null. Where its status is `stop`, nothing changes.
  const Step* training_step = nullptr;
};

}  // namespace kshot::backend
