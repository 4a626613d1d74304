// The interface between the engine and an algorithm: named groups of meta-learned parameters, and a
// program that computes the meta-gradient or the predictions of one wave of tasks. Algorithms are
// device-free: all numerical work goes through src/backend/backend.h.
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

/// The name of a tensor in checkpoints and cases, such as "theta.layers.0.weight". A tensor without
/// a name has the name of its group ("log_noise").
inline std::string full_name(const ParameterGroup& group, const ParameterTensor& tensor) {
  return tensor.name.empty() ? group.name : group.name + "." + tensor.name;
}

/// A vector that every training task keeps from one of its steps to the next ("task_mu").
struct MemoryGroup {
  std::string name;
  std::size_t width = 0;
};

/// The keys of a step's random numbers, or explicit noise in their place (kshot verify).
struct StepContext {
  /// One layer's explicit noise by rows, from which GivenNoise makes blocks: [K, T, S, in or out]
  /// inside and [T, S', in or out] outside. The sizes are those of one sample, rows included.
  struct LayerNoise {
    const double* in = nullptr;
    const double* out = nullptr;
    std::size_t in_size = 0, out_size = 0;
  };
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
  /// The key of the first task. Waves count up from it for the following tasks.
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
  std::span<const LayerNoise> layers_inner, layers_outer;  ///< one per layer, or none
  const double* noise_latent = nullptr;                    ///< [T, N, C, L]
  const double* noise_decoder = nullptr;                   ///< [T, decodes, N, C, P]
  const double* noise_hyper = nullptr;                     ///< [2, D], shared by all tasks
  int batch_tasks = 0;                                     ///< T of the explicit arrays
  bool dropout = true;                                     ///< off in prediction
  /// The tasks' state where it is given explicitly: one vector per group, [T, width].
  std::span<const std::vector<double>> memory = {};
};

/// How to adapt for prediction. These settings may differ from those of training.
struct PredictOptions {
  int steps = 0;    ///< inner steps
  int samples = 1;  ///< posterior samples; a point estimate always gives one
  backend::NormStatistics statistics = backend::NormStatistics::batch;
  /// True: predictions after 0, 1, ..., steps inner steps. False: only after the last step.
  bool every_step = true;
  bool covariance = false;  ///< true: the prediction needs EpisodePrediction::covariance
};

/// Results of the adaptation of some tasks, from which their query rows are predicted
/// (TaskProgram::adapt).
using AdaptedState = std::vector<std::vector<double>>;

/// One algorithm on one wave. Not thread-safe; owned by one worker.
class TaskProgram {
 public:
  virtual ~TaskProgram() = default;
  virtual backend::Wave& wave() = 0;
  /// Computes the meta-gradient of each loaded task, before the mean over tasks.
  virtual void meta_gradient(const StepContext& context) = 0;
  /// After meta_gradient: per-task gradients (widths: Algorithm::gradient_widths) and task losses
  /// [1].
  virtual std::span<const backend::Block> gradients() const = 0;
  virtual backend::Block loss() const = 0;
  /// After meta_gradient: Algorithm::metrics() of the loaded tasks, values[task * metrics + i].
  virtual void metrics(std::span<double> /*values*/) {}
  /// Visits the outputs for the query set at the state of the last meta_gradient, sample by sample:
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
  /// support rows, on this program or on another one of the same algorithm. Calls `visit` as
  /// predict does with every_step = false.
  virtual void predict_adapted(
      const AdaptedState& state, const StepContext& context, const PredictOptions& options,
      const std::function<void(int step, int sample, backend::Block outputs)>& visit) = 0;
  /// After predict, predict_adapted or outputs_after_gradient: the predictive variance, noise
  /// included, [query rows, outputs], where the method itself gives one. The outputs are then its
  /// means. Otherwise an empty block.
  virtual backend::Block predictive_variance() const { return {}; }
  /// After predict or predict_adapted, for one output: the covariance of the function values of all
  /// query rows, without noise, [query rows, query rows], where the method itself gives one.
  /// Otherwise an empty block.
  virtual backend::Block predictive_covariance() { return {}; }
  /// After predict or adapt: the adapted state, e.g. {"theta", block} or {"mu", ...}, {"log_sigma",
  /// ...}.
  struct NamedBlock {
    std::string name;
    backend::Block block;
  };
  virtual std::vector<NamedBlock> adapted() const = 0;

  // ---- algorithms with per-task state (Algorithm::memory) ----
  /// The state of the loaded tasks, one block per group. The caller fills it before meta_gradient,
  /// which leaves the new state there.
  virtual std::span<const backend::Block> memory() const { return {}; }
  /// After meta_gradient: the gradient of each task's loss with respect to its state at the start
  /// of the step. For kshot verify (`grad.<name>`, where it is divided by the number of tasks).
  virtual std::vector<NamedBlock> memory_gradients() const { return {}; }
};

/// A meta-learning algorithm: its parameter groups and the programs that compute on waves.
class Algorithm {
 public:
  virtual ~Algorithm() = default;
  virtual std::string name() const = 0;
  virtual const std::vector<ParameterGroup>& groups() const = 0;
  /// Initial values, one vector per group.
  virtual std::vector<std::vector<double>> initial(std::uint64_t seed) const = 0;
  /// Inner steps of training.
  virtual int steps() const = 0;
  /// Posterior samples of training's outer loss (1 for point estimates).
  virtual int samples() const { return 1; }
  /// Widths of TaskProgram::gradients().
  virtual std::vector<std::size_t> gradient_widths() const = 0;
  /// Called once per step, before any program runs. Derives what all tasks share (expanded rates).
  /// `parameters` are in the order of groups(). They stay alive and unchanged until the end of the
  /// step.
  virtual void prepare(backend::Backend& backend, std::span<const backend::Shared> parameters,
                       const StepContext& context) = 0;
  virtual std::unique_ptr<TaskProgram> open(backend::Backend& backend,
                                            const TaskShape& shape) const = 0;
  /// Turns the mean task gradients (gradient_widths) into the gradient of each group. Adds the
  /// terms that stand outside the mean over tasks, and adds the value of these terms to `outside`.
  virtual void finish(backend::Backend& backend, std::span<const backend::Shared> parameters,
                      std::span<const backend::Shared> means,
                      std::span<const backend::Shared> gradients, backend::Sum outside) const = 0;

  // ---- per-task state ----
  /// The state that every training task keeps between steps. Empty for algorithms that start each
  /// task anew.
  virtual const std::vector<MemoryGroup>& memory() const {
    static const std::vector<MemoryGroup> none;
    return none;
  }
  /// The state of a task that was never trained on, one vector per group.
  virtual std::vector<std::vector<double>> fresh_memory(
      std::span<const backend::Shared> /*parameters*/) const {
    return {};
  }
  /// The number of successive steps that use the same meta-batch, where the source has no finite
  /// number of training tasks. The tasks keep their state for these steps.
  virtual int steps_per_batch() const { return 1; }
  /// Called before training with the number of training tasks and the number of rows in each task's
  /// own set (0: the number of rows in the step at hand).
  virtual void begin_training(std::uint64_t /*tasks*/, double /*rows*/) {}

  /// True where TaskProgram::predict gives several samples.
  virtual bool bayesian() const { return false; }
  /// Names of per-task numbers that the training log shows beside the loss, as means over tasks.
  virtual std::vector<std::string> metrics() const { return {}; }
  /// A warning if these means show that something goes wrong. Empty otherwise.
  virtual std::string warning(std::span<const double> /*means*/) const { return {}; }
  /// The likely cause when many tasks diverge, for the error message.
  virtual std::string divergence_hint() const = 0;
};

/// Makes the algorithm that a configuration names.
std::unique_ptr<Algorithm> make_algorithm(const Config& config,
                                          std::shared_ptr<const Network> network);

}  // namespace kshot
