// Sums over tasks in the order of backend.h: a binary tree over each aligned run of 16 tasks, the
// runs then one after another in double. Pointers are device memory; instantiated for float and
// double.
#pragma once

#include <cstdint>

#include "kernels/extent.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// Tasks of a run.
constexpr int run_tasks = 16;

/// diverged[task] |= 1 where x [tasks, width] has an element that is not finite.
template <class T>
void mark_diverged(std::int32_t* diverged, const T* x, Extent extent, cudaStream_t stream);
/// sums[run * stride + i] = the tree's sum of x[task, i] over the run's tasks, those that diverged
/// and those that are missing of the last run counting as zero.
template <class T>
void sum_runs(T* sums, std::size_t stride, const T* x, const std::int32_t* diverged, Extent extent,
              cudaStream_t stream);
/// sums[run, 0 .. 2] = the sum of loss over the run's tasks that did not diverge, by the same tree
/// in double, their number, and that of the others; loss [tasks].
template <class T>
void count_runs(double* sums, const T* loss, const std::int32_t* diverged, int tasks,
                cudaStream_t stream);
/// total[i] += sums[run, i], run after run; sums [runs, width].
template <class T>
void add_runs(double* total, const T* sums, int runs, std::size_t width, cudaStream_t stream);
/// mean[i] = total[i] / tasks[0], zero where there are none.
template <class T>
void mean_of_total(T* mean, const double* total, const double* tasks, std::size_t width,
                   cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
