// A perceptron on all ordered pairs of a task's rows, averaged over the second of each pair,
// without the pairs ever being written down; and averages over groups of rows. For the relation
// network of generated weights (backend/generator.h). Pointers are device memory; instantiated for
// float and double.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/extent.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// Words of a pair's bits.
constexpr int open_words(int outputs) {
  return (outputs + 31) / 32;
}

/// What all ordered pairs (i, j) of a task's own n rows go through, relu the outer and inner one:
///   mean_i = 1/n sum_j relu(W relu(left_i + right_j) + b).
template <class T>
struct Pairs {
  const T* left = nullptr;    ///< [tasks, rows, inputs]; the first layer's bias in one of the two
  const T* right = nullptr;   ///< the same
  const T* weight = nullptr;  ///< W [outputs, inputs], of all tasks
  const T* bias = nullptr;    ///< [outputs]; null: none
  int inputs = 0, outputs = 0;
  RowExtent rows;
  /// One bit a pair and output, whether the outer relu is open: [tasks, rows, rows, open_words].
  std::uint32_t* open = nullptr;
};

/// mean [tasks, rows, outputs], rows beyond a task's own zero; fills `open`.
template <class T>
void pairs_forward(T* mean, const Pairs<T>& pairs, cudaStream_t stream);
/// From the gradient by `mean`: g_left and g_right [tasks, rows, inputs], overwritten, rows beyond
/// a task's own with zero. Reads `open`, as the next.
template <class T>
void pairs_input_gradient(T* g_left, T* g_right, const T* g_mean, const Pairs<T>& pairs,
                          cudaStream_t stream);
/// g_weight += and g_bias (unless null) +=, for every task.
template <class T>
void pairs_weight_gradient(TaskTensor<T> g_weight, TaskTensor<T> g_bias, const T* g_mean,
                           const Pairs<T>& pairs, cudaStream_t stream);
/// For every run of 16 tasks (task_tree.h), g_weight and g_bias (unless null), which are
/// overwritten, = the sum over the run's tasks whose diverged [tasks] is 0. Strides are those
/// between runs. A run has the same bits among any number of others.
template <class T>
void pairs_run_gradient(TaskTensor<T> g_weight, TaskTensor<T> g_bias, const T* g_mean,
                        const Pairs<T>& pairs, const std::int32_t* diverged, cudaStream_t stream);

/// A task's own rows by group: labels [tasks, rows] in [0, groups), or null: all are one group's.
struct Grouping {
  const std::int32_t* labels = nullptr;
  const std::int32_t* members = nullptr;  ///< [tasks, groups], by count_members
  int groups = 1;
  RowExtent rows;
};

/// members[task, g] = the number of own rows in g.
void count_members(std::int32_t* members, const Grouping& grouping, cudaStream_t stream);
/// mean[task, g, i] over the group's rows of x [tasks, rows, width].
template <class T>
void group_mean(T* mean, const T* x, const Grouping& grouping, int width, cudaStream_t stream);
/// g_x [tasks, rows, width] from g_mean, overwritten; rows beyond a task's own with zero.
template <class T>
void group_mean_pullback(T* g_x, const T* g_mean, const Grouping& grouping, int width,
                         cudaStream_t stream);

/// out[task, row] = [x[task, row], y[task, row]] of widths `x_width` and `y_width`.
template <class T>
void join_rows(T* out, const T* x, int x_width, const T* y, int y_width, const RowExtent& rows,
               cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
