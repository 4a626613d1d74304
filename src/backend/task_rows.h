// What a wave's tasks are: their rows, as they are taken from a batch or drawn by the backend.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "backend/values.h"
#include "kshot/episode.h"
#include "kshot/network.h"

namespace kshot::backend {

/// Tasks of a source that a backend draws by itself (Backend::place). Its contents, a copy of the
/// source's data among them, are the backend's own business.
class Episodes {
 public:
  virtual ~Episodes() = default;
};

/// The rows of a wave's tasks.
class TaskRows {
 public:
  virtual ~TaskRows() = default;

  /// Largest number of tasks at once: a power of two up to 16, or a multiple of 16. Waves start at
  /// multiples of their capacity, so that the reduction's order does not depend on it.
  virtual int capacity() const = 0;

  /// Takes tasks [first, first + count) of the batch; `global_first` is the meta-batch index of the
  /// first. Lanes without a task compute on copies and are ignored by reduction and downloads.
  /// Set::all is prepared where the wave was opened with it. Unless the backend is asynchronous(),
  /// the batch must stay as it is until the next load: a wave may read its rows where they are.
  /// The batch is checked here, once for every backend, before anything is computed (row_checks.h):
  /// throws Error where a size, a number of rows or a label is out of range, and the wave keeps the
  /// tasks that it has. A task with a number that is not finite is taken, see rows_finite.
  void load(const TaskBatch& batch, int first, int count, std::uint32_t global_first);
  /// Whether all numbers of the valid rows of task `t` (of the wave) are finite, as far as the host
  /// has seen them. A task of which that is not true counts as diverged, whatever was computed of
  /// it.
  bool rows_finite(int t) const {
    return not_finite_.empty() || not_finite_[static_cast<std::size_t>(t)] == 0;
  }
  /// load() for tasks [id.task, id.task + count), that this wave's backend draws: the bits that
  /// the source's fill gives, without a word from the host. Their shape is the wave's.
  virtual void draw(const Episodes& /*episodes*/, const TaskId& /*id*/, int /*count*/) {
    throw std::logic_error("a wave whose backend draws no tasks");
  }
  int count() const { return count_; }
  std::uint32_t global_first() const { return global_first_; }
  /// Rows of a set in the layout of `outputs` (the largest number over tasks).
  virtual int rows(Set set) const = 0;
  /// Network and sizes that the wave was opened for.
  const Network& network() const { return *network_; }
  const WaveShape& shape() const { return shape_; }

 protected:
  TaskRows(std::shared_ptr<const Network> network, const Loss& loss, const WaveShape& shape)
      : network_outputs_(network->outputs()),
        network_(std::move(network)),
        loss_(loss),
        shape_(shape) {}
  /// load() for a batch that was checked; task_ways() is set.
  virtual void do_load(const TaskBatch& batch, int first, int count,
                       std::uint32_t global_first) = 0;
  /// Called by load() where rows_finite is not true of every task; `first` as load's.
  virtual void mark_not_finite(int first) = 0;
  /// To be called by draw(), which takes tasks of `ways` classes without a batch.
  void take_drawn(int count, int ways) {
    not_finite_.clear();
    ways_.assign(static_cast<std::size_t>(count), ways);
  }
  /// Number of classes of task t of the wave; the batch's number of outputs where it says nothing.
  int task_ways(int t) const { return ways_[static_cast<std::size_t>(t)]; }
  bool all_rows_finite() const { return not_finite_.empty(); }

  int count_ = 0;
  std::uint32_t global_first_ = 0;
  std::vector<std::int32_t> ways_;  ///< classes of each loaded task
  int network_outputs_;
  std::shared_ptr<const Network> network_;
  Loss loss_;
  WaveShape shape_;

 private:
  std::vector<char> not_finite_;  ///< a flag per task, or empty: all are finite
};

}  // namespace kshot::backend
