// Small dense linear algebra with one matrix per task: symmetric positive definite systems.
//
// Layout: TaskMatrix (task_matrix.h). Pointers are device memory; `stream` is the stream that the
// work is put on. Instantiated for float and double.
#pragma once

#include "kernels/task_matrix.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// a[i, i] += factor s in the tasks' own rows, and a[i, i] = 1 in the other rows.
template <class T>
void add_diagonal(const TaskMatrix<T>& a, T factor, const TaskMatrix<const T>& s,
                  const RowsOfTask& rows, int tasks, cudaStream_t stream);

/// dst[t] = or += factor times the sum of a's diagonal.
template <class T>
void trace(const TaskMatrix<T>& dst, T factor, const TaskMatrix<const T>& a, bool accumulate,
           int tasks, cudaStream_t stream);

/// Attempts that follow a factorization without jitter. Attempt i, counted from 0, adds first *
/// growth^i times the largest diagonal element to the diagonal.
template <class T>
struct Jitter {
  T first = 0;
  T growth = 10;
  int attempts = 0;
};
/// l l^T = a for a symmetric matrix a, of which only the lower triangle is read. l is lower
/// triangular, with zeros above the diagonal. If a pivot is not positive, the next attempt with
/// jitter follows, and jittered[t] += 1 for a task whose first factorization failed. If the last
/// attempt fails too, the lower triangle becomes NaN.
template <class T>
void cholesky(const TaskMatrix<T>& l, const TaskMatrix<const T>& a, const TaskMatrix<T>& jittered,
              const Jitter<T>& jitter, int tasks, cudaStream_t stream);

/// Right-hand sides of a triangular system, which is solved in place. Element i of vector v of task
/// t is at data + t * stride + i * element + v * vector. One of the two strides `element` and
/// `vector` is 1.
template <class T>
struct TaskVectors {
  T* data = nullptr;
  std::size_t stride = 0;
  int count = 0, element = 1, vector = 1;
};
/// x = l^-1 x for every vector, or l^-T x if `transposed` is set. l is lower triangular.
template <class T>
void solve_triangular(const TaskVectors<T>& x, const TaskMatrix<const T>& l, bool transposed,
                      int tasks, cudaStream_t stream);

/// dst[t] += factor log det (l l^T).
template <class T>
void log_determinant(const TaskMatrix<T>& dst, T factor, const TaskMatrix<const T>& l, int tasks,
                     cudaStream_t stream);
/// l = the strictly lower part of f plus the exponential of its diagonal.
template <class T>
void unpack_factor(const TaskMatrix<T>& l, const TaskMatrix<const T>& f, int tasks,
                   cudaStream_t stream);
/// g_f += the pull-back of g_l.
template <class T>
void unpack_factor_pullback(const TaskMatrix<T>& g_f, const TaskMatrix<const T>& l,
                            const TaskMatrix<const T>& g_l, int tasks, cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
