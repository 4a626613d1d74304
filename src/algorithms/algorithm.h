// What an algorithm is to the engine: named groups of meta-learned parameters, and a program that
// takes one wave of tasks to its meta-gradient or to predictions. Device-free: everything numeric
// goes through src/backend/backend.h.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "kshot/config.h"

namespace kshot {

/// A named vector of meta-learned parameters ("theta", "mu", "log_sigma", "alpha") and its tensors.
struct ParameterGroup {
  std::string name;
  std::vector<ParameterTensor> tensors;
  std::size_t size = 0;
};

/// "theta.layers.0.weight", as checkpoints and cases name it; a tensor without a name has that of
/// its group ("log_noise").
inline std::string full_name(const ParameterGroup& group, const ParameterTensor& tensor) {
  return tensor.name.empty() ? group.name : group.name + "." + tensor.name;
}

/// A vector that every training task keeps from one of its steps to the next ("task_mu").
struct MemoryGroup {
  std::string name;
  std::size_t width = 0;
};

/// What the random numbers of a step are keyed by, or explicit noise instead (kshot verify).
struct StepContext {
  /// One layer's explicit noise by rows (GivenNoise makes blocks of it), [K, T, S, in or out]
  /// inside and [T, S', in or out] outside; the sizes are those of one sample, rows included.
  struct LayerNoise {
    const double* in = nullptr;
    const double* out = nullptr;
    std::size_t in_size = 0, out_size = 0;
  };
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
  /// Of the first task; waves count on from it.
  RandomKey key(Purpose purpose, int inner_step = 0, int sample = 0) const {
    return {seed,
            purpose,
            step,
            0,
            static_cast<std::uint32_t>(inner_step),
            static_cast<std::uint32_t>(sample)};
  }
  const double* noise_inner = nullptr;                     ///< [K, T, S, D]
  const double* noise_outer = nullptr;                     ///< [T, S', D]
  std::span<const LayerNoise> layers_inner, layers_outer;  ///< one a layer, or none
  const double* noise_latent = nullptr;                    ///< [T, N, C, L]
  const double* noise_decoder = nullptr;                   ///< [T, decodes, N, C, P]
  const double* noise_hyper = nullptr;                     ///< [2, D], shared by all tasks
  int batch_tasks = 0;                                     ///< T of the explicit arrays
  bool dropout = true;                                     ///< off in prediction
  /// The tasks' memory where it is given explicitly: a vector a group, [T, width].
  std::span<const std::vector<double>> memory = {};
};

/// How to adapt for prediction; may differ from training.
struct PredictOptions {
  int steps = 0;    ///< inner steps
  int samples = 1;  ///< posterior samples; point estimates give one, whatever is asked
  backend::NormStatistics statistics = backend::NormStatistics::batch;
  bool every_step = true;   ///< predictions after 0, 1, ..., steps inner steps; else after the last
  bool covariance = false;  ///< EpisodePrediction::covariance is asked for
};

/// What the adaptation of some tasks leaves for their predictions (TaskProgram::adapt).
using AdaptedState = std::vector<std::vector<double>>;

/// One algorithm on one wave. Not thread-safe; owned by one worker.
class TaskProgram {
 public:
  virtual ~TaskProgram() = default;
  virtual backend::Wave& wave() = 0;
  /// Meta-gradient of the loaded tasks, before the mean over tasks.
  virtual void meta_gradient(const StepContext& context) = 0;
  /// After meta_gradient: per-task gradients (widths: Algorithm::gradient_widths) and task losses
  /// [1].
  virtual std::span<const backend::Block> gradients() const = 0;
  virtual backend::Block loss() const = 0;
  /// After meta_gradient: Algorithm::metrics() of the loaded tasks, values[task * metrics + i].
  virtual void metrics(std::span<double> /*values*/) {}
  /// Outputs for a set at the state of the last meta_gradient, sample by sample:
  /// visit(sample, outputs [rows, outputs]). For kshot verify (`query_output`).
  virtual void outputs_after_gradient(
      const std::function<void(int sample, backend::Block outputs)>& visit) = 0;
  /// Adapts the loaded tasks to their support sets and predicts the query sets:
  /// visit(inner_step, sample, outputs [query rows, outputs]) for each.
  virtual void predict(
      const StepContext& context, const PredictOptions& options,
      const std::function<void(int step, int sample, backend::Block outputs)>& visit) = 0;
  /// Adapts the loaded tasks to their support sets, as predict does with options.steps inner steps.
  /// Returns what predict_adapted needs of the adaptation: vectors of every task, [tasks, width]
  /// each, which do not depend on the query rows.
  virtual AdaptedState adapt(const StepContext& context, const PredictOptions& options) = 0;
  /// Predicts the query sets of the loaded tasks from what `adapt` returned for tasks with the same
  /// support rows, on this program or on another one of the same algorithm. visit and its numbers
  /// are those of predict with every_step = false.
  virtual void predict_adapted(
      const AdaptedState& state, const StepContext& context, const PredictOptions& options,
      const std::function<void(int step, int sample, backend::Block outputs)>& visit) = 0;
  /// After predict, predict_adapted or outputs_after_gradient: the variance, noise included,
  /// [query rows, outputs], where the method itself gives one; else no block. `outputs` are then
  /// its means.
  virtual backend::Block predictive_variance() const { return {}; }
  /// After predict or predict_adapted, for one output: the covariance of the function values of all
  /// query rows, without noise, [query rows, query rows], where the method itself gives one; else
  /// no block.
  virtual backend::Block predictive_covariance() { return {}; }
  /// After predict or adapt: the adapted state, e.g. {"theta", block} or {"mu", ...}, {"log_sigma",
  /// ...}.
  struct NamedBlock {
    std::string name;
    backend::Block block;
  };
  virtual std::vector<NamedBlock> adapted() const = 0;

  // ---- algorithms whose training tasks remember (Algorithm::memory) ----
  /// The loaded tasks' memory, a block a group: filled before meta_gradient, which leaves there
  /// what the tasks keep.
  virtual std::span<const backend::Block> memory() const { return {}; }
  /// After meta_gradient: each task's loss by its memory at the start. For kshot verify
  /// (`grad.<name>`, there by the mean over tasks).
  virtual std::vector<NamedBlock> memory_gradients() const { return {}; }
};

class Algorithm {
 public:
  virtual ~Algorithm() = default;
  virtual std::string name() const = 0;
  virtual const std::vector<ParameterGroup>& groups() const = 0;
  /// Initial values, one vector a group.
  virtual std::vector<std::vector<double>> initial(std::uint64_t seed) const = 0;
  /// Inner steps of training.
  virtual int steps() const = 0;
  /// Posterior samples of training's outer loss (1 for point estimates).
  virtual int samples() const { return 1; }
  /// Widths of TaskProgram::gradients().
  virtual std::vector<std::size_t> gradient_widths() const = 0;
  /// Once a step, before any program runs: derives what all tasks share (expanded rates).
  /// `parameters` in the order of groups(); they stay alive and unchanged until the step's end.
  virtual void prepare(backend::Backend& backend, std::span<const backend::Shared> parameters,
                       const StepContext& context) = 0;
  virtual std::unique_ptr<TaskProgram> open(backend::Backend& backend,
                                            const TaskShape& shape) const = 0;
  /// Mean task gradients (gradient_widths) to the gradient of each group, with the terms that stand
  /// outside the task mean added; the value of those terms goes to `outside`.
  virtual void finish(backend::Backend& backend, std::span<const backend::Shared> parameters,
                      std::span<const backend::Shared> means,
                      std::span<const backend::Shared> gradients, backend::Sum outside) const = 0;

  // ---- training tasks that remember ----
  /// What every training task keeps between steps; empty for algorithms that start each task anew.
  virtual const std::vector<MemoryGroup>& memory() const {
    static const std::vector<MemoryGroup> none;
    return none;
  }
  /// The memory of a task that was never trained on, a vector a group.
  virtual std::vector<std::vector<double>> fresh_memory(
      std::span<const backend::Shared> /*parameters*/) const {
    return {};
  }
  /// Where there is no end of training tasks: so many successive steps see the same meta-batch,
  /// whose tasks remember for that long.
  virtual int steps_per_batch() const { return 1; }
  /// Before training: how many tasks there are, and how many rows each one's own set has (0: those
  /// at hand in a step).
  virtual void begin_training(std::uint64_t /*tasks*/, double /*rows*/) {}

  /// True where TaskProgram::predict gives several samples.
  virtual bool bayesian() const { return false; }
  /// What a training log shows of an algorithm beside its loss: names of per-task numbers, whose
  /// mean over tasks counts.
  virtual std::vector<std::string> metrics() const { return {}; }
  /// What these means say is going wrong, for a warning; empty where nothing is.
  virtual std::string warning(std::span<const double> /*means*/) const { return {}; }
  /// The likely cause when many tasks diverge, for the error message.
  virtual std::string divergence_hint() const = 0;
};

/// The algorithm a configuration names.
std::unique_ptr<Algorithm> make_algorithm(const Config& config,
                                          std::shared_ptr<const Network> network);

}  // namespace kshot
