// Products of matrices that all tasks share with rows of all tasks, and of each task's own rows:
// the passes through networks that tasks share (generated weights). Pointers are device memory;
// instantiated for float and double.
#pragma once

#include <cstddef>

#include "kernels/runtime.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// Matrices of a batch: element (i, j) of b's at data + b * batch + i * row + j * column. One of
/// the two steps is 1, or the matrix has one row or column.
template <class T>
struct Matrix {
  const T* data = nullptr;
  std::size_t row = 0, column = 1;
  std::size_t batch = 0;  ///< 0: one for all
};

/// a [m, k] times b [k, n].
template <class T>
struct Factors {
  Matrix<T> a, b;
};

/// c = or += alpha (a1 b1 + a2 b2) + bias, for every b of the batch.
template <class T>
struct Product {
  int m = 0, n = 0, k = 0;
  int batch = 1;
  Factors<T> first, second = {};  ///< the second where its data are given: steps as the first's
  T* c = nullptr;                 ///< (i, j) of b's at c + b * c_batch + i * c_row + j
  std::size_t c_row = 0, c_batch = 0;
  const T* bias = nullptr;  ///< [n], the same for every row; null: none
  T* row_sums = nullptr;    ///< [m] at + b * c_batch: = or += alpha a1 1; null: not wanted
  T alpha = 1;
  bool accumulate = false;
};

/// Throws Error where there are 2^31 tiles or more.
template <class T>
void multiply_matrices(const Product<T>& product, cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
