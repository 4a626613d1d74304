// Episodes: the few-shot tasks that training and evaluation draw. A task (episode) has a support
// set, which the method adapts to, and a query set, which the adapted network is tested on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kshot/count_range.h"
#include "kshot/network.h"

namespace kshot {

enum class TargetKind {
  label,  ///< int32 class index in [0, outputs)
  value,  ///< `outputs` real numbers per example
};

/// The part of the data a task is drawn from.
enum class Split { train, validation, test };
const char* split_name(Split split);  ///< "train", "validation" or "test"

/// What every task of a source looks like. `support` and `query` are the largest numbers of rows; a
/// task may use fewer.
struct TaskShape {
  FeatureShape input;
  int outputs = 0;  ///< ways, or length of a target
  TargetKind target = TargetKind::label;
  int support = 0;
  int query = 0;
  bool ways_vary = false;  ///< labels: `outputs` is the largest number of classes of a task
};

/// Names one task. The same id stands for the same task, on any thread and in any order.
struct TaskId {
  std::uint64_t seed = 0;
  Split split = Split::train;
  std::uint64_t step = 0;  ///< meta-step (0 for evaluation episodes)
  std::uint32_t task = 0;  ///< index within the meta-batch, or episode number
  /// Number of the training task, for Split::train of a source with a finite number of training
  /// tasks. -1: the source draws one of them.
  std::int64_t member = -1;
};

/// Where one task is written to. Arrays are row-major. Rows beyond support_n and query_n are never
/// read. Either the values or the labels are used, as TaskShape::target says.
struct TaskSlot {
  std::span<float> support_x;             ///< [support, input.size()], NCHW per example
  std::span<float> query_x;               ///< [query, input.size()]
  std::span<float> support_value;         ///< [support, outputs]
  std::span<float> query_value;           ///< [query, outputs]
  std::span<std::int32_t> support_label;  ///< [support]
  std::span<std::int32_t> query_label;    ///< [query]
  std::int32_t* support_n = nullptr;      ///< valid rows; preset to TaskShape::support
  std::int32_t* query_n = nullptr;        ///< valid rows; preset to TaskShape::query
  std::int32_t* ways = nullptr;  ///< TaskShape::ways_vary: classes; preset to TaskShape::outputs
};

/// How one of the library's own sources draws its tasks, for a backend that can draw them itself
/// (src/base/episode_recipe.h).
struct EpisodeRecipe;

/// A source of tasks. `fill` is called from several threads at once and must depend on `id` alone.
/// What it writes is checked before it is used: a label outside [0, outputs) or a number of rows
/// outside [0, support] or [0, query] is an Error that names task, set and row; a task with NaN or
/// infinity among its valid rows counts as one diverged task. What `fill` throws comes out of the
/// call that asked for tasks (Trainer::run, ...).
class EpisodeSource {
 public:
  virtual ~EpisodeSource() = default;
  virtual TaskShape shape() const = 0;  ///< what every task looks like
  virtual void fill(const TaskId& id, const TaskSlot& slot) const = 0;  ///< writes the task `id`
  /// One line for logs and reports.
  virtual std::string describe() const = 0;
  /// Number of distinct training tasks. 0: it is not finite, or not known.
  virtual std::uint64_t training_tasks() const { return 0; }
  /// Mean number of rows of a training task's own set, where each step draws its support rows from
  /// that set. 0: the support rows are the whole set.
  virtual double training_rows() const { return 0.0; }
  /// False for a split that has no episodes to draw.
  virtual bool has(Split /*split*/) const { return true; }
  /// How raw inputs became features: the JSON of io::Preprocessing, or empty. Checkpoints keep it,
  /// so that `kshot adapt` can prepare new data in the same way.
  virtual std::string preprocessing() const { return {}; }
  /// How a backend can draw the same tasks itself, bit for bit. Null: tasks come from `fill` alone.
  virtual const EpisodeRecipe* recipe() const { return nullptr; }
};

/// A batch of tasks in host memory, in float or (for verification) double: [T, n, ...] row-major.
class TaskBatch {
 public:
  TaskBatch() = default;
  TaskBatch(const TaskShape& shape, int tasks, bool double_precision = false);  ///< room for tasks

  const TaskShape& shape() const { return shape_; }  ///< of every task
  int tasks() const { return tasks_; }               ///< T
  bool is_double() const { return double_; }         ///< whether the arrays that end in 64 are used

  /// Float batches only: task t as a slot to be filled.
  TaskSlot slot(int t);
  /// Draws tasks [first, first + count) of a step into slots [0, count).
  void draw(const EpisodeSource& source, TaskId id, std::uint32_t first, int count);
  /// Draws the training tasks with these numbers: slot i has member members[i].
  void draw(const EpisodeSource& source, TaskId id, std::uint32_t first,
            std::span<const std::uint32_t> members);

  std::vector<float> support_x, query_x, support_value, query_value;
  std::vector<double> support_x64, query_x64, support_value64, query_value64;
  std::vector<std::int32_t> support_label, query_label, support_n, query_n;
  /// [T], each task's own number of classes, in [1, shape().outputs]: classes beyond it do not
  /// exist for that task. Empty unless shape().ways_vary: every task has shape().outputs classes.
  /// Only algorithms whose head allows it (the closed-form heads) take tasks with different numbers
  /// of classes.
  std::vector<std::int32_t> ways;
  /// Task t's number of classes.
  int ways_of(int t) const {
    return ways.empty() ? shape_.outputs : ways[static_cast<std::size_t>(t)];
  }

 private:
  void fill(const EpisodeSource& source, TaskId id, std::uint32_t first, int t);

  TaskShape shape_;
  int tasks_ = 0;
  bool double_ = false;
};

/// Options of the built-in sinusoid regression (Finn et al. 2017, 5.1): y = a sin(x - p),
/// a in [0.1, 5], p in [0, pi], x in [-5, 5].
struct SinusoidOptions {
  CountRange support = 10;  ///< points; every task draws its own number
  CountRange query = 10;
  double amplitude_low = 0.1, amplitude_high = 5.0;
  double phase_low = 0.0, phase_high = 3.14159265358979323846;
  double x_low = -5.0, x_high = 5.0;
  double noise_std = 0.0;  ///< standard deviation of the Gaussian noise of the targets
  /// This share of the tasks are lines instead, slope and intercept uniform in +- line_limit (Finn
  /// et al. 2018; Rusu et al. 2019, 4.1: one half, 3).
  double line_share = 0.0, line_limit = 3.0;
};
std::unique_ptr<EpisodeSource> make_sinusoid(const SinusoidOptions& options);  ///< throws Error

}  // namespace kshot
