// Similarities between the rows of two matrices of a task, and their pull-backs.
//
// Layout: TaskMatrix (task_matrix.h). Pointers are device memory; `stream` is the stream that the
// work is put on. Instantiated for float and double.
#pragma once

#include "kernels/task_matrix.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// dst[i, m] = sum_j w[m, j] (a[i, j] - b[m, j])^2. If w is not given, it is one.
template <class T>
void distances(const TaskMatrix<T>& dst, const TaskMatrix<const T>& a, const TaskMatrix<const T>& b,
               const TaskMatrix<const T>& w, int tasks, cudaStream_t stream);
/// Adds the pull-back of g to g_a, g_b and g_w, each if it is given. g_a may be g_b.
template <class T>
void distances_pullback(const TaskMatrix<const T>& g, const TaskMatrix<const T>& a,
                        const TaskMatrix<const T>& b, const TaskMatrix<const T>& w,
                        const TaskMatrix<T>& g_a, const TaskMatrix<T>& g_b,
                        const TaskMatrix<T>& g_w, int tasks, cudaStream_t stream);
/// dst[i, m] = a_i.b_m / (||a_i|| ||b_m|| + epsilon).
template <class T>
void cosines(const TaskMatrix<T>& dst, const TaskMatrix<const T>& a, const TaskMatrix<const T>& b,
             T epsilon, int tasks, cudaStream_t stream);
/// Adds the pull-back of g to g_a and g_b, each if it is given. g_a may be g_b. The derivative of
/// the length of a row of zeros is taken as zero.
template <class T>
void cosines_pullback(const TaskMatrix<const T>& g, const TaskMatrix<const T>& a,
                      const TaskMatrix<const T>& b, T epsilon, const TaskMatrix<T>& g_a,
                      const TaskMatrix<T>& g_b, int tasks, cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
