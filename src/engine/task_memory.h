// Per-task state of algorithms that keep it between steps (Algorithm::memory): one row per task, in
// the precision of the backend, in a file of the run folder or in memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "algorithms/algorithm.h"
#include "backend/backend.h"
#include "backend/task_tree.h"
#include "io/row_store.h"

namespace kshot {

/// The state of the training tasks in this rank's range.
class TaskMemory {
 public:
  struct Layout {
    std::vector<MemoryGroup> groups;
    backend::Precision precision = backend::Precision::f32;
    std::uint64_t tasks = 0;  ///< number of tasks of all ranks
    /// Each rank keeps the rows of its own range of tasks, in a file of its own.
    int rank = 0, ranks = 1;
    backend::TaskShares owners() const { return {tasks, 1, rank, ranks}; }
    std::size_t width() const;      ///< scalars per task
    std::size_t row_bytes() const;  ///< bytes of one state of a task
  };

  /// Keeps the state in memory, without a file.
  explicit TaskMemory(Layout layout);
  /// Makes a new file in the run folder, for the run `run_id`.
  TaskMemory(Layout layout, const std::filesystem::path& folder, const std::string& run_id);
  /// Opens that file again, for the run's checkpoint of `step`. Throws Error where it does not fit.
  TaskMemory(Layout layout, const std::filesystem::path& folder, const std::string& run_id,
             std::uint64_t step);

  /// The name of the file in which rank `rank` of `ranks` keeps its rows.
  static std::string file_name(int rank, int ranks);
  /// Writes the files of layout.ranks ranks from those of `before` ranks, as of the checkpoint of
  /// `step`. The old files stay. This is for one process, which sees the files of all ranks.
  static void divide_again(Layout layout, int before, const std::filesystem::path& folder,
                           const std::string& run_id, std::uint64_t step);
  /// Removes the files of other numbers of ranks than `ranks` from the folder.
  static void remove_others(const std::filesystem::path& folder, int ranks);

  const Layout& layout() const { return layout_; }

  // Different threads may read and write different tasks of this rank's range at the same time.
  /// Reads a task's groups, one after another, into row [width]. Returns false where the task has
  /// no state of a step after `since`.
  bool recall(std::uint64_t task, std::uint64_t since, std::span<double> row) const;
  /// Keeps the task's state after `step` steps. A row with a number that is not finite is not kept,
  /// so that the task's state stays as it was.
  void keep(std::uint64_t task, std::uint64_t step, std::span<const double> row);

  /// sync() is called before a checkpoint is written, and commit() after it.
  void sync() { store_->sync(); }
  void commit(std::uint64_t step) { store_->commit(step); }

 private:
  std::uint64_t row_of(std::uint64_t task) const;

  Layout layout_;
  std::uint64_t first_ = 0, end_ = 0;  ///< this rank's tasks are [first_, end_)
  std::unique_ptr<io::RowStore> store_;
};

/// Draws `count` different training tasks of [0, tasks) for a step.
std::vector<std::uint32_t> draw_members(std::uint64_t seed, std::uint64_t step, std::uint64_t tasks,
                                        int count);

/// A name that no other run has.
std::string new_run_id();

}  // namespace kshot
