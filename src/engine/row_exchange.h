// What the tasks of a meta-batch remember, where a task is computed by one rank and its row kept by
// another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "backend/task_tree.h"
#include "engine/task_memory.h"
#include "kshot/communicator.h"

namespace kshot {

/// One step's rows. The constructor brings the rows of this rank's share of the meta-batch from the
/// ranks that keep them; finish takes them back. Without ranks it goes straight to the memory.
class RowExchange {
 public:
  /// tasks[i]: the training task at position i of the meta-batch; since: TaskMemory::recall. Rows
  /// are kept as the states after `step` steps.
  RowExchange(TaskMemory& memory, Communicator* ranks, const backend::TaskShares& shares,
              std::span<const std::uint32_t> tasks, std::uint64_t since, std::uint64_t step);

  // Different positions of this rank's share may be read and written by different threads at once.
  /// As TaskMemory::recall, of the task at a position.
  bool recall(std::size_t position, std::span<double> row) const;
  void keep(std::size_t position, std::span<const double> row);
  void finish();

 private:
  /// visit(rank that computes the task, rank that keeps it, position), for all of the meta-batch.
  template <class Visit>
  void each(const Visit& visit) const;
  TaskMemory& memory_;
  Communicator* ranks_;
  backend::TaskShares shares_;
  std::vector<std::uint32_t> tasks_;
  std::uint64_t since_, step_;
  std::size_t width_;
  // With ranks:
  std::vector<char> known_, kept_;  ///< of each task of this rank's share: before, after the step
  std::vector<double> rows_;        ///< [share, width]
};

}  // namespace kshot
