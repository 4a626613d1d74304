// Matrices with one copy per task, all of one size: their elements, their sums, and the losses of
// predictions that they hold. Closed-form heads are composed of these operations, of those of
// linear_algebra.h and similarity.h, and of the products of product.h. Together they implement
// backend::LinearAlgebra (src/backend/linear_algebra.h), which checks shapes and whether outputs
// share memory with inputs.
//
// Pointers are device memory; `stream` is the stream that the work is put on. Instantiated for
// float and double.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/extent.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// One matrix [rows, columns] per task, row-major: element (i, j) of task t is at data + t * stride
/// + i * columns + j.
template <class T>
struct TaskMatrix {
  T* data = nullptr;  ///< null: the matrix is not given, or the output is not computed
  int rows = 0, columns = 0;
  std::size_t stride = 0;
  constexpr int size() const { return rows * columns; }
};

/// A task's own rows of a matrix: the first first[t] of the rows below `second_row`, and, if
/// `second` is given, the first second[t] of the rows from `second_row` on. The other rows are
/// padding.
struct RowsOfTask {
  const std::int32_t* first = nullptr;  ///< [tasks]; null: all rows are the task's own
  const std::int32_t* second = nullptr;
  int second_row = 0;
};

// ---- rows and classes ----

/// dst[row, label of the row] = 1 in a task's own rows. All other elements are 0. labels is [tasks,
/// dst.rows].
template <class T>
void one_hot(const TaskMatrix<T>& dst, const std::int32_t* labels, const RowExtent& rows,
             cudaStream_t stream);
/// dst [rows, 1] = 1 in a task's own rows, 0 in the others.
template <class T>
void row_indicator(const TaskMatrix<T>& dst, const RowsOfTask& rows, int tasks,
                   cudaStream_t stream);
/// dst [1, classes] = 1 for the first ways[t] classes (all if `ways` is null), 0 for the others.
template <class T>
void class_indicator(const TaskMatrix<T>& dst, const std::int32_t* ways, int tasks,
                     cudaStream_t stream);

// ---- elements and sums ----

/// dst[i, j] = src[i, j] for i < rows, j < columns. Both may be parts of larger matrices; each has
/// rows of its own `columns` elements.
template <class T>
void copy_matrix(const TaskMatrix<T>& dst, const TaskMatrix<const T>& src, int rows, int columns,
                 int tasks, cudaStream_t stream);
/// dst = or += factor x y, element by element. y has the shape of x, or one row, or one column, or
/// one element. dst may be x. dst may also be y, if y has the shape of x.
template <class T>
void multiply_elements(const TaskMatrix<T>& dst, T factor, const TaskMatrix<const T>& x,
                       const TaskMatrix<const T>& y, bool accumulate, int tasks,
                       cudaStream_t stream);
/// dst = or += factor times the sums of x y, multiplied element by element (of x if y is not
/// given). The sums go over columns if dst is [rows, 1], over rows if it is [1, columns], and over
/// both if it is [1, 1].
template <class T>
void sum_elements(const TaskMatrix<T>& dst, T factor, const TaskMatrix<const T>& x,
                  const TaskMatrix<const T>& y, bool accumulate, int tasks, cudaStream_t stream);

// ---- losses ----

/// A loss of `outputs` for the targets `y`. If `loss` is given, the sum over a task's own rows
/// times `scale` is added to loss[t]. Gradients are overwritten if they are given; they are zero in
/// rows that are not the task's own.
template <class T>
struct MatrixLoss {
  TaskMatrix<T> loss;
  TaskScale<T> scale;
  RowExtent rows;
  TaskMatrix<const T> outputs, y;
  TaskMatrix<T> g_outputs;
};
/// Cross-entropy of the outputs over the first ways[t] columns of a task (all if `ways` is null).
/// The gradient is zero in the other columns.
template <class T>
void cross_entropy(const MatrixLoss<T>& loss, const std::int32_t* ways, cudaStream_t stream);
/// Squared error, averaged over columns.
template <class T>
void squared_error(const MatrixLoss<T>& loss, cudaStream_t stream);
/// Negative log density of y under N(outputs, variance), element by element, summed over columns.
template <class T>
void gaussian_nll(const MatrixLoss<T>& loss, const TaskMatrix<const T>& variance,
                  const TaskMatrix<T>& g_variance, cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
