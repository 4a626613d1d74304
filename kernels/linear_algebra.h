// Small dense linear algebra with one matrix per task: symmetric positive definite systems.
//
// Layout: TaskMatrix (task_matrix.h). Pointers are device memory; `stream` is the stream that the
// work is put on. Instantiated for float and double.
#pragma once

#include "kernels/task_matrix.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// a[i, i] += factor s in the tasks' own rows, a[i, i] = 1 in the others.
template <class T>
void add_diagonal(const TaskMatrix<T>& a, T factor, const TaskMatrix<const T>& s,
                  const RowsOfTask& rows, int tasks, cudaStream_t stream);

/// dst[t] = or += factor times the sum of a's diagonal.
template <class T>
void trace(const TaskMatrix<T>& dst, T factor, const TaskMatrix<const T>& a, bool accumulate,
           int tasks, cudaStream_t stream);

/// Attempts after one without jitter: attempt i of them, from 0, adds first * growth^i times the
/// largest diagonal element to the diagonal.
template <class T>
struct Jitter {
  T first = 0;
  T growth = 10;
  int attempts = 0;
};
/// l l^T = a for a symmetric a, of which the lower triangle is read: l is lower triangular with
/// zeros above. Where a pivot is not positive, the next attempt follows; jittered[t] += 1 where the
/// first one has failed. Where the last one fails too, the lower triangle becomes NaN.
template <class T>
void cholesky(const TaskMatrix<T>& l, const TaskMatrix<const T>& a, const TaskMatrix<T>& jittered,
              const Jitter<T>& jitter, int tasks, cudaStream_t stream);

/// Vectors that a triangular system is solved for, in place: element i of vector v of task t is at
/// data + t * stride + i * element + v * vector. One of the two steps is 1.
template <class T>
struct TaskVectors {
  T* data = nullptr;
  std::size_t stride = 0;
  int count = 0, element = 1, vector = 1;
};
/// x = l^-1 x for every vector, or l^-T x where `transposed`; l is lower triangular.
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
/// g_f += pull-back of g_l.
template <class T>
void unpack_factor_pullback(const TaskMatrix<T>& g_f, const TaskMatrix<const T>& l,
                            const TaskMatrix<const T>& g_l, int tasks, cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
