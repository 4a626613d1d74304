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

/// The kind of a row's target.
enum class TargetKind {
  label,  ///< An int32 class index in [0, outputs).
  value,  ///< `outputs` real numbers per example.
};

/// The part of the data that a task is drawn from.
enum class Split {
  train,       ///< Training tasks.
  validation,  ///< Tasks for validations during training, and for calibration.
  test         ///< Tasks for evaluation.
};
const char* split_name(Split split);  ///< Returns "train", "validation" or "test".

/// The shape of every task of a source. `support` and `query` are the largest numbers of rows; a
/// task may have fewer.
struct TaskShape {
  FeatureShape input;                     ///< Shape of one example.
  int outputs = 0;                        ///< Number of classes (ways), or values of a target.
  TargetKind target = TargetKind::label;  ///< Labels or values.
  int support = 0;                        ///< Largest number of support rows.
  int query = 0;                          ///< Largest number of query rows.
  bool ways_vary =
      false;  ///< Labels: true if `outputs` is the largest number of classes of a task.
};

/// Identifies one task. The same id gives the same task, on any thread and in any order.
struct TaskId {
  std::uint64_t seed = 0;      ///< Seed of the training, or of the evaluation.
  Split split = Split::train;  ///< The part of the data that the task is drawn from.
  std::uint64_t step = 0;      ///< Meta-step (0 for evaluation episodes).
  std::uint32_t task = 0;      ///< Index within the meta-batch, or episode number.
  /// Number of the training task, for Split::train of a source with a finite number of training
  /// tasks. -1: the source draws one of them.
  std::int64_t member = -1;
};

/// The memory that one task is written to. Arrays are row-major. Rows beyond support_n and query_n
/// are never read. Either the values or the labels are used, as TaskShape::target says.
struct TaskSlot {
  std::span<float>
      support_x;  ///< Support inputs, [support, input.size()], each example in CHW order.
  std::span<float> query_x;               ///< Query inputs, [query, input.size()].
  std::span<float> support_value;         ///< Support targets, [support, outputs].
  std::span<float> query_value;           ///< Query targets, [query, outputs].
  std::span<std::int32_t> support_label;  ///< Support labels, [support].
  std::span<std::int32_t> query_label;    ///< Query labels, [query].
  std::int32_t* support_n =
      nullptr;                      ///< Number of valid support rows; preset to TaskShape::support.
  std::int32_t* query_n = nullptr;  ///< Number of valid query rows; preset to TaskShape::query.
  /// With TaskShape::ways_vary, the task's number of classes; preset to TaskShape::outputs.
  std::int32_t* ways = nullptr;
};

/// How one of the library's own sources draws its tasks, for a backend that can draw them itself
/// (src/base/episode_recipe.h).
struct EpisodeRecipe;

/// A source of tasks. Several threads call `fill` at a time, and `fill` must depend on `id` alone.
/// The rows are checked before they are used: a label outside [0, outputs) or a number of rows
/// outside [0, support] or [0, query] is an Error that names task, set and row; a task with NaN or
/// infinity among its valid rows counts as one diverged task. An exception of `fill` is rethrown by
/// the call that asked for tasks (Trainer::run, ...).
class EpisodeSource {
 public:
  virtual ~EpisodeSource() = default;
  virtual TaskShape shape() const = 0;  ///< The shape of every task.
  virtual void fill(const TaskId& id, const TaskSlot& slot) const = 0;  ///< Writes the task `id`.
  /// A description for logs and reports, in one line.
  virtual std::string describe() const = 0;
  /// Number of distinct training tasks. 0: the number is not finite, or not known.
  virtual std::uint64_t training_tasks() const { return 0; }
  /// Mean number of rows of a training task's own set, where each step draws its support rows from
  /// that set. 0: the support rows are the whole set.
  virtual double training_rows() const { return 0.0; }
  /// False for a split that has no episodes.
  virtual bool has(Split /*split*/) const { return true; }
  /// How raw inputs became features: the JSON of data::Preprocessing, or empty. Checkpoints keep
  /// this text, so that `kshot adapt` can prepare new data in the same way.
  virtual std::string preprocessing() const { return {}; }
  /// How a backend can draw the same tasks itself, bit for bit. Null: tasks come only from `fill`.
  virtual const EpisodeRecipe* recipe() const { return nullptr; }
};

/// A batch of tasks in host memory, in float or (for verification) in double. The arrays are
/// [T, n, ...] row-major, where n is TaskShape::support or TaskShape::query.
class TaskBatch {
 public:
  TaskBatch() = default;
  /// Makes room for `tasks` tasks.
  TaskBatch(const TaskShape& shape, int tasks, bool double_precision = false);

  const TaskShape& shape() const { return shape_; }  ///< The shape of every task.
  int tasks() const { return tasks_; }               ///< Number of tasks, T.
  /// True if the arrays whose names end in 64 are used.
  bool is_double() const { return double_; }

  /// Task t as a slot that can be filled. For float batches only.
  TaskSlot slot(int t);
  /// Draws tasks [first, first + count) of a step into slots [0, count).
  void draw(const EpisodeSource& source, TaskId id, std::uint32_t first, int count);
  /// Draws the training tasks with these numbers: slot i gets the task members[i], with the index
  /// first + i in the meta-batch.
  void draw(const EpisodeSource& source, TaskId id, std::uint32_t first,
            std::span<const std::uint32_t> members);

  std::vector<float> support_x,     ///< Support inputs, [T, support, input.size()].
      query_x,                      ///< Query inputs, [T, query, input.size()].
      support_value,                ///< Support targets, [T, support, outputs]; empty for labels.
      query_value;                  ///< Query targets, [T, query, outputs]; empty for labels.
  std::vector<double> support_x64,  ///< support_x in double precision.
      query_x64,                    ///< query_x in double precision.
      support_value64,              ///< support_value in double precision.
      query_value64;                ///< query_value in double precision.
  std::vector<std::int32_t> support_label,  ///< Support labels, [T, support]; empty for values.
      query_label,                          ///< Query labels, [T, query]; empty for values.
      support_n,                            ///< Number of valid support rows of each task, [T].
      query_n;                              ///< Number of valid query rows of each task, [T].
  /// Number of classes of each task, [T], in [1, shape().outputs]. Classes beyond this number do
  /// not exist for the task. Empty unless shape().ways_vary: every task has shape().outputs
  /// classes. Only the closed-form heads take tasks with different numbers of classes.
  std::vector<std::int32_t> ways;
  /// Number of classes of task t.
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
  CountRange support = 10;                  ///< Number of support points; every task draws its own.
  CountRange query = 10;                    ///< Number of query points; every task draws its own.
  double amplitude_low = 0.1,               ///< Least amplitude a. Amplitudes are uniform.
      amplitude_high = 5.0;                 ///< Largest amplitude a.
  double phase_low = 0.0,                   ///< Least phase p, radians. Phases are uniform.
      phase_high = 3.14159265358979323846;  ///< Largest phase p, radians.
  double x_low = -5.0,                      ///< Least input x. Inputs are uniform.
      x_high = 5.0;                         ///< Largest input x.
  double noise_std = 0.0;  ///< Standard deviation of the Gaussian noise of the targets.
  /// Share of the tasks that are lines y = slope x + intercept in place of sinusoids (Finn et al.
  /// 2018; Rusu et al. 2019, 4.1: one half).
  double line_share = 0.0,
         /// Slope and intercept are uniform in [-line_limit, line_limit] (the same papers: 3).
      line_limit = 3.0;
};
/// Makes a source of sinusoids. Throws Error for options out of range.
std::unique_ptr<EpisodeSource> make_sinusoid(const SinusoidOptions& options);

}  // namespace kshot
