// Small dense linear algebra with one matrix per task (linear_algebra.h).
//
// Mathematics    cholesky: L L^T = A, right-looking. Step k subtracts the outer product of column k
//                from the part of the matrix to the right of it. Columns stay unscaled until the
//                end, so that a step needs one barrier.
//                solve_triangular: forward (L) or backward (L^T) substitution. Step k subtracts
//                element k of each vector, times column k of L, from the elements that follow.
//                log_determinant: log det (L L^T) = 2 sum log l_ii
//                unpack_factor: l_ii = exp f_ii, hence g_f_ii += g_l_ii l_ii
// Layout         TaskMatrix: row-major, one matrix per task. L is zero above the diagonal.
// Who does what  cholesky: a block of 256 threads takes one task. In a step, each warp takes rows,
//                and its lanes take the elements of a row. solve_triangular: a block takes 32
//                vectors of one task, and a thread takes elements of one vector at a fixed
//                distance. Both keep their matrices in shared memory if they fit there, else in
//                device memory. trace and log_determinant: a warp takes a task and its lanes take
//                the diagonal; a fixed tree adds the lanes. Others: a thread computes one element.
//                There are no atomics, and no sum is split by the number of tasks.
// Outputs        Overwritten, except `jittered`, log_determinant, add_diagonal and the pull-back,
//                which add. solve_triangular works in place.
// Bytes          Scalars of T, then operations (a multiply-add counts as two), per task, for an n x
//                n matrix and m vectors:
//                  cholesky          2 n^2; n^3 / 3
//                  solve_triangular  n^2 per 32 vectors + 2 n m; n^2 m
//                With n = 25 to 100 both wait for the n barriers of a block. The other blocks of
//                the multiprocessor hide this time.
#include "kernels/linear_algebra.h"

#include <algorithm>
#include <cmath>

#include "kernels/task_matrix_access.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

/// The dynamic shared memory that a block may take on every device (compute capability 8.6 has the
/// least, 99 KiB).
constexpr std::size_t most_shared = 96u << 10;

/// Returns an odd stride, so that threads that read a column use different banks.
int odd_stride(int n) {
  return n | 1;
}

std::size_t area(int rows, int columns) {
  return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
}

// ---- Cholesky ----

/// A square matrix of one task, in the memory where it is worked on. Its rows are `stride` elements
/// apart.
template <class T>
struct Square {
  T* data;
  int stride, n;
  __device__ T& at(int i, int j) const { return data[i * stride + j]; }
};

/// Returns the largest of the threads' numbers to all of them. NaN is ignored. All threads must
/// call it.
template <class T>
__device__ T block_largest(T value) {
  KSHOT_SHARED(T, of_warp, [warps]);
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int lanes = warp_lanes / 2; lanes > 0; lanes /= 2) {
    const T other = __shfl_xor_sync(all_lanes, value, lanes);
    value = other > value ? other : value;
  }
  if (thread % warp_lanes == 0) of_warp[thread / warp_lanes] = value;
  __syncthreads();
  for (int w = 0; w < warps; ++w) value = of_warp[w] > value ? of_warp[w] : value;
  return value;
}

/// Copies the lower triangle of `from` [n, n] to `to`, and adds `added` to the diagonal.
template <class T>
__device__ void load_lower(const Square<T>& to, const T* from, T added) {
  for (int i = static_cast<int>(threadIdx.x); i < to.n * to.n; i += threads) {
    const int row = i / to.n, column = i - row * to.n;
    if (column <= row) to.at(row, column) = column == row ? from[i] + added : from[i];
  }
}

/// Eliminates the columns of the lower triangle one after another. Returns false, to all threads,
/// at a pivot that is not positive. Every column stays unscaled: it is L's column times the root of
/// the pivot. All threads must call it.
template <class T>
__device__ bool eliminate(const Square<T>& a) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
  for (int k = 0; k < a.n; ++k) {
    __syncthreads();
    const T pivot = a.at(k, k);
    if (!(pivot > T(0))) return false;  // also for NaN
    for (int i = k + 1 + warp; i < a.n; i += warps) {
      const T factor = a.at(i, k) / pivot;
      for (int j = k + 1 + lane; j <= i; j += warp_lanes) a.at(i, j) -= factor * a.at(j, k);
    }
  }
  return true;
}

/// l = the columns of `a` scaled by the roots of their pivots, with zeros above the diagonal. If
/// the factorization failed, l is NaN on and below the diagonal. `roots` [n] is shared memory. All
/// threads must call it. l may be in the memory of a.
template <class T>
__device__ void store_factor(T* l, const Square<T>& a, T* roots, bool factored) {
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < a.n; i += threads) roots[i] = sqrt(a.at(i, i));
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < a.n * a.n; i += threads) {
    const int row = i / a.n, column = i - row * a.n;
    T value = T(0);
    if (column < row) value = a.at(row, column) / roots[column];
    if (column == row) value = roots[row];
    l[i] = factored || column > row ? value : T(NAN);
  }
}

template <class T, bool in_shared>
__global__ void __launch_bounds__(threads)
    cholesky_kernel(TaskMatrix<T> factors, TaskMatrix<const T> matrices, TaskMatrix<T> jittered,
                    Jitter<T> jitter, int stride) {
  const int task = static_cast<int>(blockIdx.x), n = matrices.rows;
  const T* const a = of_task(matrices, task);
  T* const l = of_task(factors, task);
  DynamicShared shared;
  T* const roots = shared.take<T>(static_cast<unsigned>(n));
  Square<T> work{l, n, n};
  if constexpr (in_shared) {
    work = {shared.take<T>(static_cast<unsigned>(n * stride)), stride, n};
  }

  // without jitter
  load_lower(work, a, T(0));
  bool factored = eliminate(work);
  // with jitter
  if (!factored && jitter.attempts > 0) {
    T largest = T(0);
    for (int i = static_cast<int>(threadIdx.x); i < n; i += threads) {
      const T x = a[i * n + i];
      largest = x > largest ? x : largest;
    }
    T added = jitter.first * block_largest(largest);
    for (int attempt = 0; !factored && attempt < jitter.attempts; ++attempt) {
      __syncthreads();  // all threads have seen the pivot that failed
      load_lower(work, a, added);
      factored = eliminate(work);
      added *= jitter.growth;
    }
    if (threadIdx.x == 0 && jittered.data) *of_task(jittered, task) += T(1);
  }
  store_factor(l, work, roots, factored);
}

// ---- triangular solves ----

constexpr int solve_vectors = warp_lanes;  ///< vectors per block

/// L of one task in the order of the substitution: place p is row p, or row n - 1 - p for the
/// transposed system. at(p, k) multiplies the element at place k in the equation at place p.
template <class T>
struct Triangle {
  const T* data;
  int n, stride;
  bool transposed;
  __device__ int row(int p) const { return transposed ? n - 1 - p : p; }
  __device__ T at(int p, int k) const {
    return transposed ? data[row(k) * stride + row(p)] : data[p * stride + k];
  }
};

/// Solves the system for `count` vectors in place. Element i of vector v is at x + i * element + v
/// * vector. `inverse` [n] is shared memory. All threads must call it.
template <class T>
__device__ void substitute(T* x, int element, int vector, int count, const Triangle<T>& l,
                           T* inverse) {
  // The number of neighbouring threads along the vectors is a power of two.
  int shift = 0;
  while ((1 << shift) < count) ++shift;
  const int thread = static_cast<int>(threadIdx.x);
  const int v = thread & ((1 << shift) - 1), first = thread >> shift, step = threads >> shift;
  T* const own = x + v * vector;
  for (int p = thread; p < l.n; p += threads) inverse[p] = T(1) / l.at(p, p);
  for (int k = 0; k < l.n; ++k) {
    __syncthreads();
    if (v >= count) continue;
    const T solved = own[l.row(k) * element] * inverse[k];
    for (int p = k + 1 + first; p < l.n; p += step) own[l.row(p) * element] -= l.at(p, k) * solved;
  }
  __syncthreads();
  if (v >= count) return;
  for (int p = first; p < l.n; p += step) own[l.row(p) * element] *= inverse[p];
}

template <class T, bool in_shared>
__global__ void __launch_bounds__(threads)
    solve_triangular_kernel(TaskVectors<T> vectors, TaskMatrix<const T> factors, bool transposed,
                            int parts, int stride) {
  const int thread = static_cast<int>(threadIdx.x), n = factors.rows;
  const int task = static_cast<int>(blockIdx.x) / parts;
  const int first = (static_cast<int>(blockIdx.x) - task * parts) * solve_vectors;
  const int most = min(solve_vectors, vectors.count);
  const int count = min(solve_vectors, vectors.count - first);
  const T* const factor = of_task(factors, task);
  T* const x = vectors.data + static_cast<std::size_t>(task) * vectors.stride +
               static_cast<std::size_t>(first) * static_cast<std::size_t>(vectors.vector);
  DynamicShared shared;
  T* const inverse = shared.take<T>(static_cast<unsigned>(n));
  if constexpr (!in_shared) {
    substitute(x, vectors.element, vectors.vector, count, Triangle<T>{factor, n, n, transposed},
               inverse);
  } else {
    T* const l = shared.take<T>(static_cast<unsigned>(n * stride));
    T* const own = shared.take<T>(static_cast<unsigned>(n * most));
    // neighbouring threads take neighbours in memory
    const bool by_row = vectors.vector == 1;
    const auto for_each_element = [&](const auto& body) {
      for (int i = thread; i < n * count; i += threads) {
        const int element = by_row ? i / count : i % n, v = by_row ? i % count : i / n;
        body(own[element * count + v], x[element * vectors.element + v * vectors.vector]);
      }
    };
    for (int i = thread; i < n * n; i += threads) l[i / n * stride + i % n] = factor[i];
    for_each_element([](T& here, const T& there) { here = there; });
    __syncthreads();
    substitute(own, count, 1, count, Triangle<T>{l, n, stride, transposed}, inverse);
    __syncthreads();
    for_each_element([](const T& here, T& there) { there = here; });
  }
}

// ---- passes ----

template <class T>
struct AddDiagonal {
  TaskMatrix<T> a;
  T factor;
  TaskMatrix<const T> s;
  RowsOfTask rows;
  __device__ void operator()(int task, int i, std::size_t) const {
    T& at = of_task(a, task)[i * a.columns + i];
    at = is_own(rows, task, i) ? at + factor * *of_task(s, task) : T(1);
  }
};

template <class T>
struct UnpackFactor {
  TaskMatrix<T> l;
  TaskMatrix<const T> f;
  __device__ void operator()(int task, int i, std::size_t) const {
    const int row = i / l.columns, column = i - row * l.columns;
    T value = T(0);
    if (column < row) value = of_task(f, task)[i];
    if (column == row) value = exp(of_task(f, task)[i]);
    of_task(l, task)[i] = value;
  }
};

template <class T>
struct UnpackFactorPullback {
  TaskMatrix<T> g_f;
  TaskMatrix<const T> l, g_l;
  __device__ void operator()(int task, int i, std::size_t) const {
    const int row = i / l.columns, column = i - row * l.columns;
    if (column > row) return;
    const T slope = column == row ? of_task(l, task)[i] : T(1);
    of_task(g_f, task)[i] += of_task(g_l, task)[i] * slope;
  }
};

/// dst = or += factor times the sum of the diagonal, or of its logarithms if `logarithms` is set.
template <class T, bool logarithms>
__global__ void __launch_bounds__(threads)
    diagonal_sum_kernel(TaskMatrix<T> dst, T factor, TaskMatrix<const T> a, bool accumulate,
                        int tasks) {
  const int task =
      static_cast<int>(blockIdx.x) * warps + static_cast<int>(threadIdx.x) / warp_lanes;
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  if (task >= tasks) return;
  T sum = T(0);
  for (int i = lane; i < a.rows; i += warp_lanes) {
    const T x = of_task(a, task)[i * a.columns + i];
    sum += logarithms ? log(x) : x;
  }
  sum = factor * warp_sum(sum);
  if (lane == 0) *of_task(dst, task) = accumulate ? *of_task(dst, task) + sum : sum;
}

template <class T, bool logarithms>
void sum_diagonal(const TaskMatrix<T>& dst, T factor, const TaskMatrix<const T>& a, bool accumulate,
                  int tasks, cudaStream_t stream) {
  if (tasks == 0) return;
  launch<diagonal_sum_kernel<T, logarithms>>(
      {.grid = static_cast<unsigned>((tasks + warps - 1) / warps),
       .block = threads,
       .stream = stream},
      dst, factor, a, accumulate, tasks);
}

}  // namespace

template <class T>
void add_diagonal(const TaskMatrix<T>& a, T factor, const TaskMatrix<const T>& s,
                  const RowsOfTask& rows, int tasks, cudaStream_t stream) {
  by_task(AddDiagonal<T>{a, factor, s, rows}, {tasks, a.rows}, stream);
}

template <class T>
void cholesky(const TaskMatrix<T>& l, const TaskMatrix<const T>& a, const TaskMatrix<T>& jittered,
              const Jitter<T>& jitter, int tasks, cudaStream_t stream) {
  const int n = a.rows;
  if (n == 0 || tasks == 0) return;
  const std::size_t roots = SharedSize().add<T>(area(n, 1)).bytes();
  const std::size_t bytes =
      SharedSize().add<T>(area(n, 1)).template add<T>(area(n, odd_stride(n))).bytes();
  Launch shape{.grid = static_cast<unsigned>(tasks),
               .block = threads,
               .shared_bytes = bytes,
               .stream = stream};
  if (bytes <= most_shared) {
    launch<cholesky_kernel<T, true>>(shape, l, a, jittered, jitter, odd_stride(n));
  } else {
    shape.shared_bytes = roots;
    launch<cholesky_kernel<T, false>>(shape, l, a, jittered, jitter, n);
  }
}

template <class T>
void solve_triangular(const TaskVectors<T>& x, const TaskMatrix<const T>& l, bool transposed,
                      int tasks, cudaStream_t stream) {
  const int n = l.rows;
  if (n == 0 || x.count == 0 || tasks == 0) return;
  const int parts = (x.count + solve_vectors - 1) / solve_vectors;
  const std::size_t inverse = SharedSize().add<T>(area(n, 1)).bytes();
  const std::size_t bytes = SharedSize()
                                .add<T>(area(n, 1))
                                .template add<T>(area(n, odd_stride(n)))
                                .template add<T>(area(n, std::min(x.count, solve_vectors)))
                                .bytes();
  Launch shape{.grid = static_cast<unsigned>(tasks) * static_cast<unsigned>(parts),
               .block = threads,
               .shared_bytes = bytes,
               .stream = stream};
  if (bytes <= most_shared) {
    launch<solve_triangular_kernel<T, true>>(shape, x, l, transposed, parts, odd_stride(n));
  } else {
    shape.shared_bytes = inverse;
    launch<solve_triangular_kernel<T, false>>(shape, x, l, transposed, parts, n);
  }
}

template <class T>
void trace(const TaskMatrix<T>& dst, T factor, const TaskMatrix<const T>& a, bool accumulate,
           int tasks, cudaStream_t stream) {
  sum_diagonal<T, false>(dst, factor, a, accumulate, tasks, stream);
}

template <class T>
void log_determinant(const TaskMatrix<T>& dst, T factor, const TaskMatrix<const T>& l, int tasks,
                     cudaStream_t stream) {
  sum_diagonal<T, true>(dst, T(2) * factor, l, true, tasks, stream);
}

template <class T>
void unpack_factor(const TaskMatrix<T>& l, const TaskMatrix<const T>& f, int tasks,
                   cudaStream_t stream) {
  by_task(UnpackFactor<T>{l, f}, {tasks, l.size()}, stream);
}

template <class T>
void unpack_factor_pullback(const TaskMatrix<T>& g_f, const TaskMatrix<const T>& l,
                            const TaskMatrix<const T>& g_l, int tasks, cudaStream_t stream) {
  by_task(UnpackFactorPullback<T>{g_f, l, g_l}, {tasks, l.size()}, stream);
}

#define KSHOT_INSTANTIATE(T)                                                                     \
  template void add_diagonal(const TaskMatrix<T>&, T, const TaskMatrix<const T>&,                \
                             const RowsOfTask&, int, cudaStream_t);                              \
  template void cholesky(const TaskMatrix<T>&, const TaskMatrix<const T>&, const TaskMatrix<T>&, \
                         const Jitter<T>&, int, cudaStream_t);                                   \
  template void solve_triangular(const TaskVectors<T>&, const TaskMatrix<const T>&, bool, int,   \
                                 cudaStream_t);                                                  \
  template void trace(const TaskMatrix<T>&, T, const TaskMatrix<const T>&, bool, int,            \
                      cudaStream_t);                                                             \
  template void log_determinant(const TaskMatrix<T>&, T, const TaskMatrix<const T>&, int,        \
                                cudaStream_t);                                                   \
  template void unpack_factor(const TaskMatrix<T>&, const TaskMatrix<const T>&, int,             \
                              cudaStream_t);                                                     \
  template void unpack_factor_pullback(const TaskMatrix<T>&, const TaskMatrix<const T>&,         \
                                       const TaskMatrix<const T>&, int, cudaStream_t)
KSHOT_INSTANTIATE(float);
KSHOT_INSTANTIATE(double);
#undef KSHOT_INSTANTIATE

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
