// The meta-gradient alone, for the caller's own training loop.
//
//   kshot::MetaGradient engine(config, batch.shape());
//   std::vector<std::vector<double>> parameters = engine.initial();
//   kshot::MetaGradientResult result = engine.compute(parameters, batch);
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kshot/config.h"
#include "kshot/episode.h"

namespace kshot {

/// Options of a MetaGradient.
struct MetaGradientOptions {
  std::string device = "auto";  ///< The device, as TrainerOptions::device.
  int threads = 0;              ///< Number of CPU threads; 0: all cores.
};

/// The meta-objective of some tasks and its derivatives.
struct MetaGradientResult {
  double loss = 0.0;  ///< The meta-objective.
  /// The part of the meta-objective that is a mean over tasks, without the terms outside this mean.
  double task_loss = 0.0;
  std::size_t tasks = 0,  ///< Number of tasks, with those that diverged.
      diverged = 0;       ///< Number of tasks that diverged.
  /// The derivative of `loss` by each group of parameters, in the order of MetaGradient::groups().
  /// Tasks that diverged count as zero.
  std::vector<std::vector<double>> gradients;
};

/// Computes meta-gradients of an algorithm on tasks that the caller gives. There is no optimizer
/// and no clipping. Not thread-safe.
class MetaGradient {
 public:
  /// The tasks have this shape, or fewer rows. The tables [data], [optimizer] and [train] of the
  /// configuration are not used. Throws Error where the shape does not fit the network or the loss,
  /// and for hvi, which keeps a state for each training task.
  MetaGradient(const Config& config, const TaskShape& shape,
               const MetaGradientOptions& options = {});
  ~MetaGradient();
  MetaGradient(MetaGradient&&) noexcept;
  MetaGradient& operator=(MetaGradient&&) noexcept;

  /// Names of the groups of meta-learned parameters ("theta"; "mu", "log_sigma"; ...).
  std::vector<std::string> groups() const;
  /// The initial values of a training by the configuration's seed, one flat vector per group.
  std::vector<std::vector<double>> initial() const;
  /// Computes the meta-gradient at `parameters`, which has one vector per group, with the sizes of
  /// `initial`. `step` and the configuration's seed key the random numbers: the same step has the
  /// same posterior samples. Throws Error for sizes that do not fit and for tasks that are not
  /// valid.
  MetaGradientResult compute(std::span<const std::vector<double>> parameters,
                             const TaskBatch& tasks, std::uint64_t step = 0);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kshot
