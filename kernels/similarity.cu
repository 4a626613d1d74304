// Similarities between the rows of two matrices of a task (similarity.h).
//
// Mathematics    distances  d_im = sum_j w_mj (a_ij - b_mj)^2; with g = dL/dd:
//                           g_a_ij += sum_m 2 g_im w_mj (a_ij - b_mj),
//                           g_b_mj -= sum_i 2 g_im w_mj (a_ij - b_mj),
//                           g_w_mj += sum_i g_im (a_ij - b_mj)^2
//                cosines    c_im = p / s, p = a_i.b_m, s = |a_i| |b_m| + epsilon;
//                           dc/da_i = b_m / s - p |b_m| / s^2 a_i / |a_i|; for dc/db_m exchange
//                           a_i and b_m
// Layout         TaskMatrix: row-major, one matrix per task.
// Who does what  A warp computes one similarity: lanes take columns, and a fixed tree adds the
//                lanes. Pull-back of distances: a thread computes one element, in ascending order
//                of the other matrix's rows. Pull-back of cosines: a warp takes one row of the
//                result and goes through the other matrix's rows in ascending order; each lane
//                accumulates its own columns in memory. No order depends on the number of tasks.
// Outputs        Similarities are overwritten, gradients accumulated.
// Bytes          n d + m d + n m scalars from memory, per task with n rows of a, m rows of b and d
//                columns. Rows are read again from the cache.
// Operations     A multiply-add counts as two. distances 4 n m d, its pull-back 6 n m d per
//                gradient; cosines 6 n m d, its pull-back 10 n m d per gradient.
#include "kernels/similarity.h"

#include "kernels/task_matrix_access.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

template <class T>
__device__ T* row_of(const TaskMatrix<T>& m, int task, int row) {
  return of_task(m, task) + static_cast<std::size_t>(row) * static_cast<std::size_t>(m.columns);
}

// ---- pass(task, index, lane) by a whole warp, for all of `count` ----

template <class Pass>
__global__ void __launch_bounds__(threads)
    by_warp_kernel(Pass pass, int count, int blocks_per_task) {
  const int task = static_cast<int>(blockIdx.x) / blocks_per_task;
  const int i = (static_cast<int>(blockIdx.x) - task * blocks_per_task) * warps +
                static_cast<int>(threadIdx.x) / warp_lanes;
  if (i < count) pass(task, i, static_cast<int>(threadIdx.x) % warp_lanes);
}

template <class Pass>
void by_warp(const Pass& pass, int count, int tasks, cudaStream_t stream) {
  if (count == 0 || tasks == 0) return;
  const int blocks = (count + warps - 1) / warps;
  launch<by_warp_kernel<Pass>>(
      {.grid = static_cast<unsigned>(tasks) * static_cast<unsigned>(blocks),
       .block = threads,
       .stream = stream},
      pass, count, blocks);
}

// ---- distances ----

template <class T>
struct Distances {
  TaskMatrix<T> dst;
  TaskMatrix<const T> a, b, w;
  __device__ void operator()(int task, int i, int lane) const {
    const int row = i / b.rows, m = i - row * b.rows;
    const T* const x = row_of(a, task, row);
    const T* const y = row_of(b, task, m);
    const T* const weight = w.data ? row_of(w, task, m) : nullptr;
    T sum = T(0);
    for (int j = lane; j < a.columns; j += warp_lanes) {
      const T d = x[j] - y[j];
      sum += weight ? weight[j] * d * d : d * d;
    }
    sum = warp_sum(sum);
    if (lane == 0) row_of(dst, task, row)[m] = sum;
  }
};

template <class T>
struct DistancesByA {
  TaskMatrix<const T> g, a, b, w;
  TaskMatrix<T> g_a;
  __device__ void operator()(int task, int i, std::size_t) const {
    const int row = i / a.columns, j = i - row * a.columns;
    const T x = row_of(a, task, row)[j];
    T sum = T(0);
    for (int m = 0; m < b.rows; ++m) {
      const T weight = w.data ? row_of(w, task, m)[j] : T(1);
      sum += row_of(g, task, row)[m] * weight * (x - row_of(b, task, m)[j]);
    }
    row_of(g_a, task, row)[j] += T(2) * sum;
  }
};

/// Pull-back to b and to its weights w, each if its gradient is given.
template <class T>
struct DistancesByB {
  TaskMatrix<const T> g, a, b, w;
  TaskMatrix<T> g_b, g_w;
  __device__ void operator()(int task, int i, std::size_t) const {
    const int m = i / b.columns, j = i - m * b.columns;
    const T y = row_of(b, task, m)[j];
    const T weight = w.data ? row_of(w, task, m)[j] : T(1);
    T by_b = T(0), by_w = T(0);
    for (int row = 0; row < a.rows; ++row) {
      const T d = row_of(a, task, row)[j] - y, outer = row_of(g, task, row)[m];
      by_b += outer * d;
      by_w += outer * d * d;
    }
    if (g_b.data) row_of(g_b, task, m)[j] -= T(2) * weight * by_b;
    if (g_w.data) row_of(g_w, task, m)[j] += by_w;
  }
};

// ---- cosines ----

/// Inner product, lengths and cosine scale of two rows. Every lane of the warp gets the same
/// values.
template <class T>
struct Pair {
  T inner, length_x, length_y, scale;
  __device__ Pair(const T* x, const T* y, int columns, T epsilon, int lane) {
    T xy = T(0), xx = T(0), yy = T(0);
    for (int j = lane; j < columns; j += warp_lanes) {
      xy += x[j] * y[j];
      xx += x[j] * x[j];
      yy += y[j] * y[j];
    }
    inner = warp_sum(xy);
    length_x = sqrt(warp_sum(xx));
    length_y = sqrt(warp_sum(yy));
    scale = length_x * length_y + epsilon;
  }
};

template <class T>
struct Cosines {
  TaskMatrix<T> dst;
  TaskMatrix<const T> a, b;
  T epsilon;
  __device__ void operator()(int task, int i, int lane) const {
    const int row = i / b.rows, m = i - row * b.rows;
    const Pair<T> of(row_of(a, task, row), row_of(b, task, m), a.columns, epsilon, lane);
    if (lane == 0) row_of(dst, task, row)[m] = of.inner / of.scale;
  }
};

/// Pull-back to the rows of x. `g` has the rows of x along its rows, or along its columns.
template <class T>
struct CosinesByRow {
  TaskMatrix<const T> g, x, y;
  bool along_columns;
  T epsilon;
  TaskMatrix<T> g_x;
  __device__ void operator()(int task, int row, int lane) const {
    const T* const own = row_of(x, task, row);
    T* const to = row_of(g_x, task, row);
    for (int m = 0; m < y.rows; ++m) {
      const T* const other = row_of(y, task, m);
      const Pair<T> of(own, other, x.columns, epsilon, lane);
      const T outer = along_columns ? row_of(g, task, m)[row] : row_of(g, task, row)[m];
      const T direct = outer / of.scale;
      T along = T(0);
      if (of.length_x > T(0)) {
        along = -direct * of.inner / of.scale * of.length_y / of.length_x;
      }
      for (int j = lane; j < x.columns; j += warp_lanes) {
        to[j] += direct * other[j] + along * own[j];
      }
    }
  }
};

}  // namespace

template <class T>
void distances(const TaskMatrix<T>& dst, const TaskMatrix<const T>& a, const TaskMatrix<const T>& b,
               const TaskMatrix<const T>& w, int tasks, cudaStream_t stream) {
  by_warp(Distances<T>{dst, a, b, w}, dst.size(), tasks, stream);
}

template <class T>
void distances_pullback(const TaskMatrix<const T>& g, const TaskMatrix<const T>& a,
                        const TaskMatrix<const T>& b, const TaskMatrix<const T>& w,
                        const TaskMatrix<T>& g_a, const TaskMatrix<T>& g_b,
                        const TaskMatrix<T>& g_w, int tasks, cudaStream_t stream) {
  if (g_a.data) by_task(DistancesByA<T>{g, a, b, w, g_a}, {tasks, a.size()}, stream);
  if (g_b.data || g_w.data) {
    by_task(DistancesByB<T>{g, a, b, w, g_b, g_w}, {tasks, b.size()}, stream);
  }
}

template <class T>
void cosines(const TaskMatrix<T>& dst, const TaskMatrix<const T>& a, const TaskMatrix<const T>& b,
             T epsilon, int tasks, cudaStream_t stream) {
  by_warp(Cosines<T>{dst, a, b, epsilon}, dst.size(), tasks, stream);
}

template <class T>
void cosines_pullback(const TaskMatrix<const T>& g, const TaskMatrix<const T>& a,
                      const TaskMatrix<const T>& b, T epsilon, const TaskMatrix<T>& g_a,
                      const TaskMatrix<T>& g_b, int tasks, cudaStream_t stream) {
  if (g_a.data) by_warp(CosinesByRow<T>{g, a, b, false, epsilon, g_a}, a.rows, tasks, stream);
  if (g_b.data) by_warp(CosinesByRow<T>{g, b, a, true, epsilon, g_b}, b.rows, tasks, stream);
}

#define KSHOT_INSTANTIATE(T)                                                               \
  template void distances(const TaskMatrix<T>&, const TaskMatrix<const T>&,                \
                          const TaskMatrix<const T>&, const TaskMatrix<const T>&, int,     \
                          cudaStream_t);                                                   \
  template void distances_pullback(const TaskMatrix<const T>&, const TaskMatrix<const T>&, \
                                   const TaskMatrix<const T>&, const TaskMatrix<const T>&, \
                                   const TaskMatrix<T>&, const TaskMatrix<T>&,             \
                                   const TaskMatrix<T>&, int, cudaStream_t);               \
  template void cosines(const TaskMatrix<T>&, const TaskMatrix<const T>&,                  \
                        const TaskMatrix<const T>&, T, int, cudaStream_t);                 \
  template void cosines_pullback(const TaskMatrix<const T>&, const TaskMatrix<const T>&,   \
                                 const TaskMatrix<const T>&, T, const TaskMatrix<T>&,      \
                                 const TaskMatrix<T>&, int, cudaStream_t)
KSHOT_INSTANTIATE(float);
KSHOT_INSTANTIATE(double);
#undef KSHOT_INSTANTIATE

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
