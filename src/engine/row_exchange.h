// Per-task state of a meta-batch, where one rank computes a task and another one keeps its row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "backend/task_tree.h"
#include "engine/task_memory.h"
#include "kshot/communicator.h"

namespace kshot {

/// The rows of one step. The constructor fetches the rows of this rank's share of the meta-batch
/// from the ranks that keep them. finish() sends them back. Without ranks, the memory is used
/// directly.
class RowExchange {
 public:
  /// tasks[i] is the training task at position i of the meta-batch. `since` is that of
  /// TaskMemory::recall. Rows are kept as the states after `step` steps.
  RowExchange(TaskMemory& memory, Communicator* ranks, const backend::TaskShares& shares,
              std::span<const std::uint32_t> tasks, std::uint64_t since, std::uint64_t step);

  // Different threads may read and write different positions of this rank's share at the same time.
  /// Works like TaskMemory::recall, for the task at a position.
  bool recall(std::size_t position, std::span<double> row) const;
  void keep(std::size_t position, std::span<const double> row);
  void finish();

 private:
  /// Calls visit(rank that computes the task, rank that keeps it, position) for every task of the
  /// meta-batch.
  template <class Visit>
  void each(const Visit& visit) const;
  TaskMemory& memory_;
  Communicator* ranks_;
  backend::TaskShares shares_;
  std::vector<std::uint32_t> tasks_;
  std::uint64_t since_, step_;
  std::size_t width_;
  // The fields below are used with ranks only.
  /// One flag per task of this rank's share: a row was known before, and is kept after the step.
  std::vector<char> known_, kept_;
  std::vector<double> rows_;  ///< [share, width]
};

}  // namespace kshot
