// A training step on a backend: the reduction of gradients over tasks, the statistics that a step
// comes to, and what follows from them.
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

/// What a training step may come to.
enum class StepStatus {
  update,  ///< the optimiser's step is taken
  guard,   ///< it is taken with a gradient that pulls towards zero: Backend::guard
  stop,    ///< nothing changes
};

/// What a step comes to beside its gradients. Doubles alone, one after another.
struct StepStatistics {
  double loss = 0.0;              ///< sum over the tasks that did not diverge
  double tasks = 0.0;             ///< their number
  double diverged = 0.0;          ///< number of the others
  double outside = 0.0;           ///< terms that stand outside the mean over tasks
  double mean_squares = 0.0;      ///< of the means over tasks, all elements
  double gradient_squares = 0.0;  ///< of the gradients, all groups
  double clipped_squares = 0.0;   ///< likewise, of elements cut to +-clip_value
  double status = 0.0;            ///< a StepStatus, set by Step::decide_update

  double mean_loss() const { return tasks > 0.0 ? loss / tasks : 0.0; }
  double total_loss() const { return mean_loss() + outside; }
};
using Statistic = double StepStatistics::*;

/// Which status a step has, by its statistics.
struct StepRule {
  double max_diverged = 1.0;  ///< the largest share of tasks
  bool guard = false;         ///< rather than to stop, and for any task that diverged

  StepStatus status(const StepStatistics& f) const {
    const bool finite = std::isfinite(f.total_loss());
    if (guard && (f.diverged > 0.0 || !finite)) return StepStatus::guard;
    const bool many = f.tasks == 0.0 || f.diverged / (f.tasks + f.diverged) > max_diverged;
    return many || !finite ? StepStatus::stop : StepStatus::update;
  }
};

/// A training step on a backend: statistics that stay in the backend's memory, where operations add
/// to them and go by them, until the host reads all at once; and the launch of its work.
class Step {
 public:
  virtual ~Step() = default;
  /// Runs `work`: operations of the backend, of `waves` (which are loaded) and of their reduction
  /// that need nothing from the host and bring nothing back. A backend may gather them into one
  /// launch (CudaStep: a graph); then `work` may run twice, the first time in vain.
  virtual void capture(std::span<Wave* const> /*waves*/, const std::function<void()>& work) {
    work();
  }
  /// All statistics are zero.
  virtual void clear() = 0;
  virtual void add(Statistic statistic, double value) = 0;
  /// Sets the status, from loss, tasks, diverged and outside.
  virtual void decide_update(const StepRule& rule) = 0;
  /// Waits for what was begun.
  virtual StepStatistics read() const = 0;
};

/// A statistic that an operation adds its value to.
struct Sum {
  Step& step;
  Statistic statistic;
};

/// Sums over tasks, of all ranks of the backend. The order is fixed by the tasks' indices alone: a
/// binary tree over them, in double above 16 tasks (task_tree.h). Waves are added from any thread;
/// `ordinal` counts this rank's waves from 0 and commits happen in its order. A task with a
/// non-finite element in any block or in its loss counts as zero and as diverged.
class Reduction {
 public:
  virtual ~Reduction() = default;
  /// Begins a sum: this rank adds `waves` waves with its share of the tasks. The statistics of all
  /// tasks (loss, tasks, diverged) are added to those of `step`.
  virtual void begin(std::size_t waves, const TaskShares& shares, Step& step) = 0;
  /// `gradients` in the order and widths given at creation; `loss` of width 1.
  virtual void add(Wave& wave, std::size_t ordinal, std::span<const Block> gradients,
                   Block loss) = 0;
  /// A wave will never come (its worker threw): nobody waits for it any more, later adds do
  /// nothing, and finish must not be called before the next begin.
  virtual void cancel() = 0;
  /// After the last add: per block the mean over the tasks of all ranks that did not diverge. With
  /// several ranks this is an exchange (Communicator), which the host may have to wait for
  /// (Backend::exchanges_on_device).
  virtual void finish(std::span<const Shared> means) = 0;
  /// Indices of this rank's diverged tasks, ascending, after finish.
  virtual std::vector<std::uint32_t> diverged_tasks() const = 0;
};

struct OptimizerStep {
  enum class Kind { sgd, adam } kind = Kind::adam;
  double learning_rate = 1e-3;
  double momentum = 0.9;                              ///< sgd
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;  ///< adam (Kingma & Ba 2015)
  std::uint64_t step = 1;                             ///< counts from 1, for the bias correction
  double clip_value = 0.0;                            ///< 0: off; applied before clip_norm
  /// 0: off; else gradients are scaled down so that `of`'s clipped_squares is the square of at most
  /// this.
  double clip_norm = 0.0;
  double weight_decay = 0.0;  ///< times the parameters, added to the clipped gradient
  /// Where given, a step whose status is `stop` changes nothing.
  const Step* of = nullptr;
};

}  // namespace kshot::backend
