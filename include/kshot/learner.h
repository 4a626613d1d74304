// Adapts a trained checkpoint to the support rows of new tasks and predicts their query rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kshot/calibration.h"
#include "kshot/config.h"
#include "kshot/network.h"

namespace kshot {
/// Options of a Learner.
struct LearnerOptions {
  std::string device = "auto";  ///< The device, as TrainerOptions::device.
  int threads = 0;              ///< Number of CPU threads; 0: all cores.
  /// Changes to the checkpoint's configuration: "evaluate.steps=10", "evaluate.samples=100".
  std::vector<std::string> overrides = {};
  /// Apply what `kshot calibrate` fitted to the checkpoint. Throws Error where the checkpoint was
  /// not calibrated, or was calibrated with other inner steps or samples.
  bool calibrated = false;
  /// A function that predict_many, adapt_many and AdaptedTasks::predict call between waves of
  /// tasks, on the calling thread and on others. Once it returns true, they throw kshot::Stopped.
  /// Empty: never.
  std::function<bool()> stop = {};
};

/// The support rows of a task.
struct SupportRows {
  /// Inputs [rows, inputs], row-major (NCHW for images), in the units that the network was trained
  /// on.
  std::span<const float> x;
  /// Classification: labels [rows] in [0, outputs). Closed-form heads take any number of classes.
  std::span<const std::int32_t> labels = {};
  std::span<const float> values = {};  ///< Regression: targets [rows, outputs].
  /// Closed-form heads, classification: the task's number of classes; 0: the largest label + 1.
  int ways = 0;
};

/// A named tensor of the adapted state.
struct AdaptedTensor {
  std::string name;            ///< Group and tensor: "theta.layers.0.weight".
  std::vector<int> shape;      ///< Shape of the tensor.
  std::vector<double> values;  ///< The numbers of the tensor, row-major.
};

/// A task of Learner::predict_many.
struct TaskRows {
  SupportRows support;             ///< The support rows.
  std::span<const float> query_x;  ///< The query rows, [rows, inputs].
};
/// The prediction of query rows by the adapted network.
struct Prediction {
  int rows = 0,                 ///< Number of query rows.
      outputs = 0,              ///< Number of classes, or values of a target.
      samples = 1,              ///< Number of posterior samples.
      inner_steps = 0;          ///< Number of inner steps before the prediction.
  bool classification = false;  ///< True: `mean` has probabilities; false: target values.
  /// True if the adaptation left the finite range. All numbers are NaN then. Only predict_many and
  /// AdaptedTasks::predict return such a prediction; the other functions throw Error.
  bool diverged = false;
  /// Outputs of the network, [samples, rows, outputs].
  std::vector<double> raw;
  /// Probabilities, mean over samples (0 for a class that no support row has), or the mean
  /// prediction, [rows, outputs].
  std::vector<double> mean;
  /// Standard deviation over posterior samples of the probabilities, or of the prediction without
  /// observation noise, [rows, outputs]. Zero for one sample.
  std::vector<double> std;
  /// Standard deviation of the observation noise, where loss.type = "gaussian_nll". For a Bayesian
  /// model with loss.type = "mse" it is the noise that the squared error implies, as in an
  /// evaluation; else 0. Calibrated predictions have the noise of the calibrated distribution.
  double noise_std = 0.0;
  /// Standard deviation of the predictive distribution with noise, [rows, outputs], where the
  /// method itself gives a distribution (alpaca, dkt); else empty.
  std::vector<double> predictive_std;
  // `std` and `mutual_information` of a classification are those of the samples before a
  // calibration.
  /// Classification: entropy of `mean`, nats, [rows].
  std::vector<double> entropy,
      /// Classification: the part of the entropy that stems from not knowing the weights (mutual
      /// information), nats, [rows]. Zero for one sample.
      mutual_information;
  /// The adapted state. Empty in the predictions of predict_many and AdaptedTasks::predict, and in
  /// all predictions of predict_steps but the last one.
  std::vector<AdaptedTensor> adapted;
};

/// A task that a Learner has adapted to. It keeps the task's support rows and the result of the
/// adaptation: weights, a posterior, or the fit of a closed-form head. It may outlive the learner.
class AdaptedTask {
 public:
  ~AdaptedTask();
  AdaptedTask(AdaptedTask&&) noexcept;
  AdaptedTask& operator=(AdaptedTask&&) noexcept;

  /// Predicts query rows [rows, inputs] without adapting. The prediction is that of
  /// Learner::predict, bit for bit. Throws Error for rows that do not fit, and where the adapted
  /// weights have left the finite range.
  Prediction predict(std::span<const float> query_x) const;
  /// The adapted state, as in Prediction::adapted.
  const std::vector<AdaptedTensor>& adapted() const;
  /// The adapted tensors of every posterior sample, in the order of Prediction::raw. Only leo has
  /// them, because it adapts one network for each sample. Empty for the other algorithms.
  std::vector<std::vector<AdaptedTensor>> samples() const;

 private:
  friend class Learner;
  struct State;
  explicit AdaptedTask(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Tasks that a Learner has adapted to. The tasks may differ in size. They take less memory than as
/// many AdaptedTask objects. AdaptedTasks may outlive the learner.
class AdaptedTasks {
 public:
  ~AdaptedTasks();
  AdaptedTasks(AdaptedTasks&&) noexcept;
  AdaptedTasks& operator=(AdaptedTasks&&) noexcept;

  std::size_t size() const;  ///< Number of tasks.
  /// Bytes of memory that the adapted state of one task takes. Each number takes 4 bytes, or 8 in
  /// double precision. The state is the adapted weights (abml, hvi: twice as many numbers; leo: the
  /// weights of every sample), or the fit of a closed-form head (dkt: a matrix [n, n], where n is
  /// the largest number of support rows of a task). 0 without tasks.
  std::size_t bytes_per_task() const;
  /// Predicts the query rows [rows, inputs] of every task without adapting, wave by wave on all
  /// threads. The predictions are those of Learner::predict_many, bit for bit. A task that diverged
  /// is marked. Throws Error that begins with "task i: " for rows that do not fit.
  std::vector<Prediction> predict(std::span<const std::span<const float>> query_x) const;

 private:
  friend class Learner;
  struct State;
  explicit AdaptedTasks(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};
/// A trained run for new tasks. Not thread-safe, also not together with the tasks that it has
/// adapted.
class Learner {
 public:
  /// `run` is a run folder (its best checkpoint, else the last) or a checkpoint.
  explicit Learner(const std::filesystem::path& run, const LearnerOptions& options = {});
  ~Learner();
  Learner(Learner&&) noexcept;
  Learner& operator=(Learner&&) noexcept;

  const Config& config() const;    ///< The checkpoint's configuration with the overrides.
  const Network& network() const;  ///< The network that the weights belong to.
  /// The meta-learned parameters: "theta.layers.0.weight", "head.log_scale".
  std::vector<AdaptedTensor> parameters() const;
  /// Classes or target values of a task; 0 where a closed-form head takes any number of classes.
  int outputs() const;
  /// How raw inputs became the network's inputs, as JSON. Empty where the training data do not say.
  const std::string& preprocessing() const;
  /// The calibration that is applied to predictions. Absent unless LearnerOptions::calibrated is
  /// set.
  const std::optional<RunCalibration>& calibration() const;
  std::string device() const;  ///< The device that computes, in words: "cpu (...)".

  /// Adapts to the support rows once, for any number of predictions. The rows are copied. Throws
  /// Error for rows that do not fit. Where the task leaves the finite range, AdaptedTask::predict
  /// throws.
  AdaptedTask adapt(const SupportRows& support) const;
  /// Adapts to the support rows and predicts the query rows [rows, inputs] after evaluate.steps
  /// inner steps. Networks with norm layers and norm_statistics "batch" see the query rows
  /// together. Algorithms with a learned prior (bayes_protonet, alpaca, dkt) take a task without
  /// support rows. Throws Error for rows that do not fit, and where the adapted weights leave the
  /// finite range.
  Prediction predict(const SupportRows& support, std::span<const float> query_x) const;
  /// Predicts after 0, 1, ..., evaluate.steps inner steps, in this order. The first prediction is
  /// that of the prior. A calibration is applied only to the last prediction, for which it was
  /// fitted.
  std::vector<Prediction> predict_steps(const SupportRows& support,
                                        std::span<const float> query_x) const;
  /// Predicts many tasks, wave by wave on all threads, and returns the predictions in the order of
  /// the tasks. Tasks may differ in their numbers of rows, and for closed-form heads in their
  /// numbers of classes. Task i draws its posterior samples by its number `first_number` + i, so
  /// that its prediction does not depend on the other tasks; number 0 has the samples of `predict`.
  /// A task that diverges is marked. Throws Error that begins with "task i: " for rows that do not
  /// fit.
  std::vector<Prediction> predict_many(std::span<const TaskRows> tasks, int first_number = 0) const;
  /// Adapts to many tasks once, wave by wave on all threads, for any number of predictions. The
  /// caller may free the rows afterwards. `first_number` is as for predict_many. Throws Error that
  /// begins with "task i: " for rows that do not fit, and Error where the adapted states need more
  /// memory than the machine has.
  AdaptedTasks adapt_many(std::span<const SupportRows> supports, int first_number = 0) const;
  /// Throws Error where a task's support rows do not fit, as predict does.
  void check(const SupportRows& support) const;

 private:
  friend class AdaptedTask;
  friend class AdaptedTasks;
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace kshot
