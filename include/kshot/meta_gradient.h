// The meta-gradient alone, for training loops of one's own.
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
  std::string device = "auto";
  int threads = 0;  ///< 0: all cores
};

/// The meta-objective of some tasks and its derivatives.
struct MetaGradientResult {
  double loss = 0.0;       ///< the meta-objective
  double task_loss = 0.0;  ///< its mean over tasks, without the terms outside that mean
  std::size_t tasks = 0, diverged = 0;  ///< number of tasks, and of those that diverged
  /// The derivative of `loss` by each group of parameters, in the order of MetaGradient::groups().
  /// Tasks that diverged count as zero.
  std::vector<std::vector<double>> gradients;
};

/// Computes meta-gradients of an algorithm on tasks that the caller gives. There is no optimizer
/// and no clipping. Not thread-safe.
class MetaGradient {
 public:
  /// Tasks have this shape, or fewer rows. [data], [optimizer] and [train] are not looked at.
  /// Throws Error where the shape does not fit the network or the loss, and for hvi, which keeps a
  /// state for each training task.
  MetaGradient(const Config& config, const TaskShape& shape,
               const MetaGradientOptions& options = {});
  ~MetaGradient();
  MetaGradient(MetaGradient&&) noexcept;
  MetaGradient& operator=(MetaGradient&&) noexcept;

  /// Names of the groups of meta-learned parameters ("theta"; "mu", "log_sigma"; ...).
  std::vector<std::string> groups() const;
  /// Values that a training would begin with, one flat vector per group, by the configuration's
  /// seed.
  std::vector<std::vector<double>> initial() const;
  /// `parameters` has one vector per group, of the sizes that `initial` has. `step` keys the random
  /// numbers, with the configuration's seed: the same step has the same posterior samples. Throws
  /// Error for sizes that do not fit and for tasks that are not valid.
  MetaGradientResult compute(std::span<const std::vector<double>> parameters,
                             const TaskBatch& tasks, std::uint64_t step = 0);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kshot
