// A perceptron on all ordered pairs of a task's rows, averaged over the second row of each pair,
// without storing the pairs; and averages over groups of rows. They compute the relation network of
// generated weights (backend/generator.h). Pointers are device memory. Instantiated for float and
// double.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/extent.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// Number of 32-bit words that hold a pair's bits.
constexpr int open_words(int outputs) {
  return (outputs + 31) / 32;
}

/// The map of all ordered pairs (i, j) of a task's own n rows, with an outer and an inner relu:
///   mean_i = 1/n sum_j relu(W relu(left_i + right_j) + b).
template <class T>
struct Pairs {
  /// [tasks, rows, inputs]; either left or right includes the bias of the first layer
  const T* left = nullptr;
  const T* right = nullptr;   ///< [tasks, rows, inputs]
  const T* weight = nullptr;  ///< W [outputs, inputs], shared by all tasks
  const T* bias = nullptr;    ///< [outputs]; null: no bias
  int inputs = 0, outputs = 0;
  RowExtent rows;
  /// One bit per pair and output: 1 if the outer relu's argument is positive. [tasks, rows, rows,
  /// open_words].
  std::uint32_t* open = nullptr;
};

/// Writes mean [tasks, rows, outputs], with zero in rows beyond a task's own, and fills `open`.
template <class T>
void pairs_forward(T* mean, const Pairs<T>& pairs, cudaStream_t stream);
/// Pulls the gradient by `mean` back to g_left and g_right [tasks, rows, inputs]. They are
/// overwritten, with zero in rows beyond a task's own. Like the next two functions, it reads
/// `open`.
template <class T>
void pairs_input_gradient(T* g_left, T* g_right, const T* g_mean, const Pairs<T>& pairs,
                          cudaStream_t stream);
/// g_weight += and g_bias += (unless it is null) the gradients of each task.
template <class T>
void pairs_weight_gradient(TaskTensor<T> g_weight, TaskTensor<T> g_bias, const T* g_mean,
                           const Pairs<T>& pairs, cudaStream_t stream);
/// For every run of 16 tasks (task_tree.h): g_weight and g_bias (unless it is null) = the sum over
/// the run's tasks whose entry in diverged [tasks] is 0. They are overwritten. Their strides are
/// the distances between runs. A run has the same bits regardless of the number of other runs.
template <class T>
void pairs_run_gradient(TaskTensor<T> g_weight, TaskTensor<T> g_bias, const T* g_mean,
                        const Pairs<T>& pairs, const std::int32_t* diverged, cudaStream_t stream);

/// The groups of a task's own rows: labels [tasks, rows] in [0, groups). If labels is null, all
/// rows belong to one group.
struct Grouping {
  const std::int32_t* labels = nullptr;
  const std::int32_t* members = nullptr;  ///< [tasks, groups], written by count_members
  int groups = 1;
  RowExtent rows;
};

/// members[task, g] = the number of the task's own rows in group g.
void count_members(std::int32_t* members, const Grouping& grouping, cudaStream_t stream);
/// mean[task, g, i] = the mean over the group's rows of x [tasks, rows, width].
template <class T>
void group_mean(T* mean, const T* x, const Grouping& grouping, int width, cudaStream_t stream);
/// Pulls g_mean back to g_x [tasks, rows, width], which is overwritten, with zero in rows beyond a
/// task's own.
template <class T>
void group_mean_pullback(T* g_x, const T* g_mean, const Grouping& grouping, int width,
                         cudaStream_t stream);

/// out[task, row] = [x[task, row], y[task, row]], two rows of widths `x_width` and `y_width`
/// joined.
template <class T>
void join_rows(T* out, const T* x, int x_width, const T* y, int y_width, const RowExtent& rows,
               cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
