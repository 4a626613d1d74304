// The rows of a wave's tasks, which are loaded from a batch or drawn by the backend.
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

/// Tasks of a source that a backend draws by itself (Backend::place). The contents are private to
/// the backend and include a copy of the source's data.
class Episodes {
 public:
  virtual ~Episodes() = default;
};

/// The rows of a wave's tasks.
class TaskRows {
 public:
  virtual ~TaskRows() = default;

  /// Largest number of tasks of the wave: a power of two up to 16, or a multiple of 16. The first
  /// task of a wave is a multiple of its capacity, so that the order of the reduction does not
  /// depend on the capacity.
  virtual int capacity() const = 0;

  /// Loads tasks [first, first + count) of the batch. `global_first` is the index of the first of
  /// them in the meta-batch. Lanes without a task compute on copies; the reduction and downloads
  /// ignore them. Set::all is prepared if the wave was opened with it. Unless the backend is
  /// asynchronous(), the batch must stay unchanged until the next load, because a wave may read the
  /// rows in place.
  ///
  /// This function checks the batch for every backend before anything is computed (row_checks.h).
  /// It throws Error where a size, a number of rows or a label is out of range; the wave then keeps
  /// its previous tasks. A task with a number that is not finite is loaded (see rows_finite).
  void load(const TaskBatch& batch, int first, int count, std::uint32_t global_first);
  /// Whether all numbers in the valid rows of task `t` of the wave are finite, as far as the host
  /// has seen them. A task with another number counts as diverged, whatever its results are.
  bool rows_finite(int t) const {
    return not_finite_.empty() || not_finite_[static_cast<std::size_t>(t)] == 0;
  }
  /// Loads tasks [id.task, id.task + count), which the backend draws without the host. The rows
  /// have the same bits as those that the source's `fill` writes. Their shape is that of the wave.
  virtual void draw(const Episodes& /*episodes*/, const TaskId& /*id*/, int /*count*/) {
    throw std::logic_error("a wave whose backend draws no tasks");
  }
  /// Number of loaded tasks, and the index of the first of them in the meta-batch.
  int count() const { return count_; }
  std::uint32_t global_first() const { return global_first_; }
  /// Number of rows of a set in the layout of `outputs`: the largest number over the tasks.
  virtual int rows(Set set) const = 0;
  /// The network and the sizes that the wave was opened for.
  const Network& network() const { return *network_; }
  const WaveShape& shape() const { return shape_; }

 protected:
  TaskRows(std::shared_ptr<const Network> network, const Loss& loss, const WaveShape& shape)
      : network_outputs_(network->outputs()),
        network_(std::move(network)),
        loss_(loss),
        shape_(shape) {}
  /// Loads a batch that was checked. task_ways() is already set.
  virtual void do_load(const TaskBatch& batch, int first, int count,
                       std::uint32_t global_first) = 0;
  /// load() calls this function if rows_finite is false for a task. `first` is the argument of
  /// load().
  virtual void mark_not_finite(int first) = 0;
  /// draw() must call this function, because it takes tasks, of `ways` classes each, without a
  /// batch.
  void take_drawn(int count, int ways) {
    not_finite_.clear();
    ways_.assign(static_cast<std::size_t>(count), ways);
  }
  /// Number of classes of task t of the wave. It is the batch's number of outputs where the batch
  /// has no numbers of classes.
  int task_ways(int t) const { return ways_[static_cast<std::size_t>(t)]; }
  bool all_rows_finite() const { return not_finite_.empty(); }

  int count_ = 0;
  std::uint32_t global_first_ = 0;
  std::vector<std::int32_t> ways_;  ///< number of classes of each loaded task
  int network_outputs_;
  std::shared_ptr<const Network> network_;
  Loss loss_;
  WaveShape shape_;

 private:
  std::vector<char> not_finite_;  ///< one flag per task; empty: all rows are finite
};

}  // namespace kshot::backend
