// Episodes: the few-shot tasks that training and evaluation draw. A task (episode) has a support
// set, which the inner loop adapts to, and a query set, which judges the adapted weights.
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
const char* split_name(Split split);

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

/// Which task. The same id is the same task, on any thread, in any order.
struct TaskId {
  std::uint64_t seed = 0;
  Split split = Split::train;
  std::uint64_t step = 0;  ///< meta-step (0 for evaluation episodes)
  std::uint32_t task = 0;  ///< index within the meta-batch, or episode number
  /// Split::train of a source with a finite number of training tasks: which of them; -1: the
  /// source draws one.
  std::int64_t member = -1;
};

/// Where one task is written to: row-major, rows beyond support_n / query_n are left as they are
/// and never read. Exactly one of (values, labels) is used, by TaskShape::target.
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

/// What the library's own sources tell a backend that can draw their tasks by itself
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
  virtual TaskShape shape() const = 0;
  virtual void fill(const TaskId& id, const TaskSlot& slot) const = 0;
  /// One line for logs and reports.
  virtual std::string describe() const = 0;
  /// Number of distinct training tasks where it is finite and known, else 0.
  virtual std::uint64_t training_tasks() const { return 0; }
  /// Mean number of rows of a training task's own set, where a step's support rows are drawn from
  /// it; 0: the support rows are the set.
  virtual double training_rows() const { return 0.0; }
  /// False where there are no episodes of a split to draw.
  virtual bool has(Split /*split*/) const { return true; }
  /// How raw inputs became features, for whoever adapts a checkpoint to new data: the JSON of
  /// io::Preprocessing, or empty.
  virtual std::string preprocessing() const { return {}; }
  /// Null: tasks come from `fill` alone. Else it gives the same tasks, bit for bit.
  virtual const EpisodeRecipe* recipe() const { return nullptr; }
};

/// A batch of tasks in host memory, in float or (for verification) double: [T, n, ...] row-major.
class TaskBatch {
 public:
  TaskBatch() = default;
  TaskBatch(const TaskShape& shape, int tasks, bool double_precision = false);

  const TaskShape& shape() const { return shape_; }
  int tasks() const { return tasks_; }
  bool is_double() const { return double_; }

  /// Float batches only: task t as a slot to be filled.
  TaskSlot slot(int t);
  /// Draws tasks [first, first + count) of a step into slots [0, count).
  void draw(const EpisodeSource& source, TaskId id, std::uint32_t first, int count);
  /// The same, slot i with member members[i] of the source's training tasks.
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
  double noise_std = 0.0;  ///< added to the targets
  /// This share of the tasks are lines instead, slope and intercept uniform in +- line_limit (Finn
  /// et al. 2018; Rusu et al. 2019, 4.1: one half, 3).
  double line_share = 0.0, line_limit = 3.0;
};
std::unique_ptr<EpisodeSource> make_sinusoid(const SinusoidOptions& options);

}  // namespace kshot
