// Matrix products: of matrices that all tasks share with the rows of all tasks, and of each task's
// own rows. They are the passes through networks that all tasks share (generated weights). Pointers
// are device memory. Instantiated for float and double.
#pragma once

#include <cstddef>

#include "kernels/runtime.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// The matrices of a batch: element (i, j) of matrix b is at data + b * batch + i * row + j *
/// column. One of the two strides is 1, unless the matrix has one row or one column.
template <class T>
struct Matrix {
  const T* data = nullptr;
  std::size_t row = 0, column = 1;
  std::size_t batch = 0;  ///< 0: one matrix for the whole batch
};

/// a [m, k] times b [k, n].
template <class T>
struct Factors {
  Matrix<T> a, b;
};

/// For every b of the batch: c = or += alpha (a1 b1 + a2 b2) + bias.
template <class T>
struct Product {
  int m = 0, n = 0, k = 0;
  int batch = 1;
  /// the second product has the strides of the first; it is skipped if its data are null
  Factors<T> first, second = {};
  T* c = nullptr;  ///< element (i, j) of result b is at c + b * c_batch + i * c_row + j
  std::size_t c_row = 0, c_batch = 0;
  const T* bias = nullptr;  ///< [n], added to every row; null: no bias
  /// [m] at + b * c_batch: = or += alpha times the row sums of a1; null: not computed
  T* row_sums = nullptr;
  T alpha = 1;
  bool accumulate = false;
};

/// Throws Error if there are 2^31 tiles or more.
template <class T>
void multiply_matrices(const Product<T>& product, cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
