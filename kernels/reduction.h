// Sums over tasks in the order of src/backend/task_tree.h: a binary tree over the tasks' indices,
// in double above runs of 16 tasks. Pointers are device memory. Instantiated for float and double.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/extent.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// Number of tasks of a run.
constexpr int run_tasks = 16;

/// diverged[task] |= 1 where x [tasks, width] has an element that is not finite.
template <class T>
void mark_diverged(std::int32_t* diverged, const T* x, Extent extent, cudaStream_t stream);
/// sums[run * stride + i] = the tree's sum of x[task, i] over the run's tasks. Tasks that diverged
/// count as zero, and so do the tasks that the last run lacks.
template <class T>
void sum_runs(T* sums, std::size_t stride, const T* x, const std::int32_t* diverged, Extent extent,
              cudaStream_t stream);
/// sums[run, 0] = the sum of loss [tasks] over the run's tasks that did not diverge, by the same
/// tree in double; sums[run, 1] = their number; sums[run, 2] = the number of the run's diverged
/// tasks.
template <class T>
void count_runs(double* sums, const T* loss, const std::int32_t* diverged, int tasks,
                cudaStream_t stream);
/// The nodes of the tree over this process's runs, [2 * levels, stride]. Node (level, index) covers
/// runs [index << level, (index + 1) << level). It is in row `level`, or in row levels + level if
/// it is the right half of a node whose left half belongs to another process.
struct RunTree {
  double* nodes = nullptr;
  std::size_t stride = 0;
  int levels = 0;
  std::int64_t first = 0;  ///< this process's first run
};
/// Adds the runs [run, run + runs) to the tree, in their order. sums is [runs, width].
template <class T>
void push_runs(const RunTree& tree, const T* sums, std::int64_t run, int runs, std::size_t width,
               cudaStream_t stream);
/// total[i] = the root of a tree whose `count` nodes, nodes[n * stride + i], are given from left to
/// right. After node n, the last two sums are added merges[n] times.
void fold_nodes(double* total, const double* nodes, std::size_t stride, const std::int32_t* merges,
                int count, std::size_t width, cudaStream_t stream);
/// mean[i] = total[i] / tasks[0], or zero if tasks[0] is zero.
template <class T>
void mean_of_total(T* mean, const double* total, const double* tasks, std::size_t width,
                   cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
