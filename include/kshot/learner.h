// One new task: adapts a trained checkpoint to its support rows and predicts its query rows.
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
  std::string device = "auto";
  int threads = 0;
  /// Changes to the checkpoint's configuration: "evaluate.steps=10", "evaluate.samples=100".
  std::vector<std::string> overrides = {};
  /// Apply what `kshot calibrate` fitted to the checkpoint. Throws Error where it was not
  /// calibrated, or with other inner steps or samples.
  bool calibrated = false;
  /// Asked by predict_many, adapt_many and AdaptedTasks::predict between waves of tasks, on the
  /// calling thread and on others; they end with kshot::Stopped once this says true. Empty: never.
  std::function<bool()> stop = {};
};

/// The rows of a task. x [rows, inputs] row-major (NCHW for images), in the units the network was
/// trained on. Classification: labels [rows] in [0, outputs), where closed-form
/// heads take any number of classes; regression: values [rows, outputs].
struct SupportRows {
  std::span<const float> x;
  std::span<const std::int32_t> labels = {};
  std::span<const float> values = {};
  /// Closed-form heads, classification: the task's number of classes; 0: the largest label + 1.
  int ways = 0;
};

/// A named tensor of the adapted state, e.g. "theta.layers.0.weight".
struct AdaptedTensor {
  std::string name;
  std::vector<int> shape;
  std::vector<double> values;
};

/// A task of Learner::predict_many: what to adapt to, and the query rows [rows, inputs].
struct TaskRows {
  SupportRows support;
  std::span<const float> query_x;
};
/// What the adapted network says about query rows.
struct Prediction {
  int rows = 0, outputs = 0, samples = 1, inner_steps = 0;
  bool classification = false;
  /// The adaptation left the finite range; all numbers are NaN. Only predict_many returns such a
  /// prediction, the other functions throw Error.
  bool diverged = false;
  /// What the network gives, [samples, rows, outputs].
  std::vector<double> raw;
  /// [rows, outputs]: probabilities (mean over samples; 0 for a class that no support row has), or
  /// the mean prediction.
  std::vector<double> mean;
  /// [rows, outputs]: standard deviation over posterior samples, of the probabilities, or of the
  /// prediction without observation noise. Zero for one sample.
  std::vector<double> std;
  /// Observation noise, where loss.type = "gaussian_nll"; for a Bayesian model with loss.type =
  /// "mse" the noise that the squared error implies, as in an evaluation; else 0. Calibrated
  /// predictions have that of the calibrated distribution.
  double noise_std = 0.0;
  /// [rows, outputs]: standard deviation of the predictive distribution, noise included, where the
  /// method itself gives one (alpaca, dkt); else empty.
  std::vector<double> predictive_std;
  /// [rows], classification: entropy of `mean`, and the part of it that stems from not knowing the
  /// weights (mutual information; zero for one sample), nats. `std` and the mutual information are
  /// those of the samples, before a calibration.
  std::vector<double> entropy, mutual_information;
  std::vector<AdaptedTensor> adapted;
};

/// A task that a Learner has adapted to. It keeps the task's support rows and the result of the
/// adaptation: weights, a posterior, or the fit of a closed-form head. It may outlive the learner.
class AdaptedTask {
 public:
  ~AdaptedTask();
  AdaptedTask(AdaptedTask&&) noexcept;
  AdaptedTask& operator=(AdaptedTask&&) noexcept;

  /// Predicts query rows [rows, inputs] without adapting: the numbers are those of
  /// Learner::predict, bit for bit. Throws Error for rows that do not fit, and where the adapted
  /// weights have left the finite range.
  Prediction predict(std::span<const float> query_x) const;
  /// The adapted state, as in Prediction::adapted.
  const std::vector<AdaptedTensor>& adapted() const;
  /// leo, which adapts one network for each posterior sample: the tensors of every sample, in the
  /// order of Prediction::raw. Empty for the other algorithms.
  std::vector<std::vector<AdaptedTensor>> samples() const;

 private:
  friend class Learner;
  struct State;
  explicit AdaptedTask(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Tasks that a Learner has adapted to, which may differ in size: an AdaptedTask for each, in fewer
/// numbers. It may outlive the learner.
class AdaptedTasks {
 public:
  ~AdaptedTasks();
  AdaptedTasks(AdaptedTasks&&) noexcept;
  AdaptedTasks& operator=(AdaptedTasks&&) noexcept;

  std::size_t size() const;  ///< number of tasks
  /// Bytes of memory that the adapted state of one task takes. Each of its numbers takes 4 bytes, 8
  /// in double precision: the adapted weights (abml, hvi: twice; leo: of every sample), or the fit
  /// of a closed-form head (dkt: a matrix [n, n], where n is the largest number of support rows of
  /// a task). 0 without tasks.
  std::size_t bytes_per_task() const;
  /// Predicts the query rows [rows, inputs] of every task without adapting, wave by wave on all
  /// threads: the numbers are those of Learner::predict_many, bit for bit. A task that diverged is
  /// marked. Throws Error that begins with "task i: " for rows that do not fit.
  std::vector<Prediction> predict(std::span<const std::span<const float>> query_x) const;

 private:
  friend class Learner;
  struct State;
  explicit AdaptedTasks(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};
/// A trained run for new tasks. Not thread-safe, also not beside the tasks that it has adapted.
class Learner {
 public:
  /// `run` is a run folder (its best checkpoint, else the last) or a checkpoint.
  explicit Learner(const std::filesystem::path& run, const LearnerOptions& options = {});
  ~Learner();
  Learner(Learner&&) noexcept;
  Learner& operator=(Learner&&) noexcept;

  const Config& config() const;    ///< of the checkpoint, with the overrides
  const Network& network() const;  ///< which the weights belong to
  /// The meta-learned parameters: "theta.layers.0.weight", "head.log_scale".
  std::vector<AdaptedTensor> parameters() const;
  /// Classes or target values of a task; 0 where a closed-form head takes any number of classes.
  int outputs() const;
  /// How raw inputs became the network's inputs, as JSON. Empty where the training data do not say.
  const std::string& preprocessing() const;
  /// What the predictions are calibrated with, where LearnerOptions::calibrated is set.
  const std::optional<RunCalibration>& calibration() const;
  std::string device() const;  ///< what computes, in words: "cpu (...)"

  /// Adapts to the support rows once, for any number of predictions. The rows are copied. Throws
  /// Error for rows that do not fit. A task that leaves the finite range is noticed by predict.
  AdaptedTask adapt(const SupportRows& support) const;
  /// Adapts to the support rows and predicts the query rows [rows, inputs] after evaluate.steps
  /// inner steps. Networks with norm layers and norm_statistics "batch" see the query rows
  /// together. Algorithms with a learned prior (bayes_protonet, alpaca, dkt) take a task without
  /// support rows. Throws Error for rows that do not fit, and where the adapted weights leave the
  /// finite range.
  Prediction predict(const SupportRows& support, std::span<const float> query_x) const;
  /// Predicts after 0, 1, ..., evaluate.steps inner steps, in this order. The first prediction is
  /// that of the prior. A calibration is applied to the last one alone, which it was fitted for.
  std::vector<Prediction> predict_steps(const SupportRows& support,
                                        std::span<const float> query_x) const;
  /// Predictions of many tasks, in their order: wave by wave on all threads. Tasks may differ in
  /// their numbers of rows, and for closed-form heads in their numbers of classes. Task i draws its
  /// posterior samples by its number `first_number` + i, so that its prediction does not depend on
  /// the other tasks; number 0 has the samples of `predict`. `adapted` stays empty. A task that
  /// diverges is marked. Throws Error that begins with "task i: " for rows that do not fit.
  std::vector<Prediction> predict_many(std::span<const TaskRows> tasks, int first_number = 0) const;
  /// Adapts to many tasks once, wave by wave on all threads, for any number of predictions. The
  /// rows may be gone afterwards. `first_number`: as for predict_many. Throws Error that begins
  /// with "task i: " for rows that do not fit, and where the adapted states need more memory than
  /// the machine has.
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
