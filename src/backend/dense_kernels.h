// The operations of LinearAlgebra in host memory, as functions on plain pointers. HostLinearAlgebra
// calls them for each run of tasks. A matrix is stored element-major, with W tasks side by side:
// element e of task (lane) l is data[e * W + l].
//
// The code is in dense_kernels_impl.h. It is a template on the scalar type and W, and is compiled
// once per instruction set where a backend has several.
#pragma once

#include <cstddef>

#include "backend/linear_algebra.h"

namespace kshot::backend {

/// Largest W.
inline constexpr int dense_lanes = 16;

/// A matrix of W tasks.
template <typename T>
struct DenseMatrix {
  T* data = nullptr;  ///< null: not given
  int rows = 0, columns = 0;
};
/// A factor of a product or of a system. Strides are in elements.
template <typename T>
struct DenseOperand {
  const T* data = nullptr;
  int rows = 0, columns = 0;
  std::size_t row_stride = 0, column_stride = 0;
};

/// The sizes of the W tasks of a run.
struct DenseCounts {
  int support[dense_lanes] = {}, query[dense_lanes] = {};  ///< rows of each task
  int ways[dense_lanes] = {};                              ///< classes of each task
  int support_rows = 0;  ///< rows(Set::support), where the query rows of Set::all begin
};

/// Arguments of a loss. `loss` and the gradients are null where they are not computed.
template <typename T>
struct DenseLoss {
  const T *outputs = nullptr, *variance = nullptr, *y = nullptr;
  T *loss = nullptr, *g_outputs = nullptr, *g_variance = nullptr;
  int rows = 0, columns = 0;
  Set set = Set::query;
  T scale[dense_lanes] = {};  ///< scale of each task
};

/// The table of operations. Each computes one run of tasks and is described at LinearAlgebra.
template <typename T>
struct DenseKernels {
  int lanes = 1;  ///< W
  void (*row_indicator)(DenseMatrix<T> dst, const DenseCounts& counts, Set set);
  void (*class_indicator)(DenseMatrix<T> dst, const DenseCounts& counts);
  void (*copy_part)(DenseMatrix<T> dst, DenseMatrix<const T> src, const LinearAlgebra::Part& part);
  void (*product)(DenseMatrix<T> c, T factor, DenseOperand<T> a, DenseOperand<T> b,
                  bool accumulate);
  void (*multiply)(DenseMatrix<T> dst, T factor, DenseMatrix<const T> x, DenseMatrix<const T> y,
                   bool accumulate);
  void (*sum)(DenseMatrix<T> dst, T factor, DenseMatrix<const T> x, DenseMatrix<const T> y,
              bool accumulate);
  /// `set` is null where a has no padded rows.
  void (*add_diagonal)(DenseMatrix<T> a, T factor, const T* s, const DenseCounts& counts,
                       const Set* set);
  void (*trace)(T* dst, T factor, DenseMatrix<const T> a, bool accumulate);
  void (*cholesky)(DenseMatrix<T> l, DenseMatrix<const T> a, T jitter, T* jittered);
  /// Solves for `vectors` vectors of length l.rows. x_stride is the distance between two elements
  /// of a vector, vector_stride the distance between two vectors.
  void (*solve_triangular)(DenseOperand<T> l, T* x, int vectors, std::size_t x_stride,
                           std::size_t vector_stride);
  void (*log_determinant)(T* dst, T factor, DenseMatrix<const T> l);
  void (*unpack_factor)(DenseMatrix<T> l, DenseMatrix<const T> f);
  void (*unpack_factor_pullback)(DenseMatrix<T> g_f, DenseMatrix<const T> l,
                                 DenseMatrix<const T> g_l);
  void (*distances)(DenseMatrix<T> dst, DenseMatrix<const T> a, DenseMatrix<const T> b,
                    DenseMatrix<const T> w);
  void (*distances_pullback)(DenseMatrix<const T> g, DenseMatrix<const T> a, DenseMatrix<const T> b,
                             DenseMatrix<const T> w, DenseMatrix<T> g_a, DenseMatrix<T> g_b,
                             DenseMatrix<T> g_w);
  void (*cosines)(DenseMatrix<T> dst, DenseMatrix<const T> a, DenseMatrix<const T> b);
  void (*cosines_pullback)(DenseMatrix<const T> g, DenseMatrix<const T> a, DenseMatrix<const T> b,
                           DenseMatrix<T> g_a, DenseMatrix<T> g_b);
  void (*cross_entropy)(const DenseLoss<T>& loss, const DenseCounts& counts);
  void (*squared_error)(const DenseLoss<T>& loss, const DenseCounts& counts);
  void (*gaussian_nll)(const DenseLoss<T>& loss, const DenseCounts& counts);
};

}  // namespace kshot::backend
