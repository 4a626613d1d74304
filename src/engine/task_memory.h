// What training tasks remember between steps, for algorithms that have such (Algorithm::memory):
// one row a task, in the precision of the backend, in a file of the run folder or in memory.
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

class TaskMemory {
 public:
  struct Layout {
    std::vector<MemoryGroup> groups;
    backend::Precision precision = backend::Precision::f32;
    std::uint64_t tasks = 0;  ///< of all ranks
    /// Each rank keeps the rows of its own range of tasks, in a file of its own.
    int rank = 0, ranks = 1;
    backend::TaskShares owners() const { return {tasks, 1, rank, ranks}; }
    std::size_t width() const;      ///< scalars of a task
    std::size_t row_bytes() const;  ///< of one state of a task
  };

  /// Without a file.
  explicit TaskMemory(Layout layout);
  /// A new file of the run folder, for the run `run_id`.
  TaskMemory(Layout layout, const std::filesystem::path& folder, const std::string& run_id);
  /// That file again, for the run's checkpoint of `step`. Throws Error where it does not fit.
  TaskMemory(Layout layout, const std::filesystem::path& folder, const std::string& run_id,
             std::uint64_t step);

  /// The name of the file that rank `rank` of `ranks` keeps its rows in.
  static std::string file_name(int rank, int ranks);
  /// Writes the files of layout.ranks ranks from those of `before` ranks, which stay, as of the
  /// checkpoint of `step`. For one process, which sees the files of all.
  static void divide_again(Layout layout, int before, const std::filesystem::path& folder,
                           const std::string& run_id, std::uint64_t step);
  /// Removes from the folder what other numbers of ranks than `ranks` have left.
  static void remove_others(const std::filesystem::path& folder, int ranks);

  const Layout& layout() const { return layout_; }

  // Different tasks, all of this rank's range, may be read and written by different threads at
  // once.
  /// A task's groups one after another, [width]; false where nothing was kept after more than
  /// `since` steps.
  bool recall(std::uint64_t task, std::uint64_t since, std::span<double> row) const;
  /// After `step` steps. A row with a number that is not finite is not kept: the task stays as it
  /// was.
  void keep(std::uint64_t task, std::uint64_t step, std::span<const double> row);

  /// Before and after a checkpoint is written.
  void sync() { store_->sync(); }
  void commit(std::uint64_t step) { store_->commit(step); }

 private:
  std::uint64_t row_of(std::uint64_t task) const;

  Layout layout_;
  std::uint64_t first_ = 0, end_ = 0;  ///< this rank's tasks
  std::unique_ptr<io::RowStore> store_;
};

/// `count` different training tasks of [0, tasks) for a step.
std::vector<std::uint32_t> draw_members(std::uint64_t seed, std::uint64_t step, std::uint64_t tasks,
                                        int count);

/// A name that no other run has.
std::string new_run_id();

}  // namespace kshot
