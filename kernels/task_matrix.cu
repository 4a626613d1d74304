// Matrices with one copy per task (task_matrix.h).
//
// Mathematics    In the header. Losses, with o: the outputs of a row, O of them, and y: its
//                targets:
//                  cross_entropy  log sum_m e^{o_m} - sum_m y_m o_m; g = p - y, p = softmax(o),
//                                 over the task's own classes. The largest output is first
//                                 subtracted from all of them.
//                  squared_error  sum (o - y)^2 / O; g = 2 (o - y) / O
//                  gaussian_nll   sum (o - y)^2 / (2 v) + log(2 pi v) / 2; g = (o - y) / v,
//                                 g_v = (1 / v - (o - y)^2 / v^2) / 2
// Layout         TaskMatrix: row-major, one matrix per task.
// Who does what  Elements: a thread computes one (passes.h, by_task). Sums over rows: a thread
//                takes a column, in ascending order. Sums over columns: a warp takes a row and its
//                lanes take columns; a fixed tree adds the lanes. Sums over both: a block takes a
//                task (block_sum). Losses: a block takes a task, and a thread takes rows; block_sum
//                adds their losses. No order depends on the number of tasks.
// Outputs        Overwritten or accumulated, as the header says.
// Bytes          Every operand once.
// Operations     1 to 3 per element, cross_entropy ~30, gaussian_nll ~15. The kernels are bound by
//                memory. The matrices of heads are small, so the time of launches dominates.
#include "kernels/task_matrix.h"

#include "kernels/task_matrix_access.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

constexpr double log_sqrt_two_pi = 0.91893853320467274178;

template <class T>
__device__ void put(T* to, bool accumulate, T value) {
  *to = accumulate ? *to + value : value;
}

// ---- rows and classes ----

template <class T>
struct OneHot {
  TaskMatrix<T> dst;
  const std::int32_t* labels;
  RowExtent rows;
  __device__ void operator()(int task, int i, std::size_t) const {
    const int row = i / dst.columns, column = i - row * dst.columns;
    bool hot = false;
    if (row < own_row_count(rows, task)) {
      hot = labels[static_cast<std::size_t>(task) * static_cast<std::size_t>(rows.rows) +
                   static_cast<std::size_t>(row)] == column;
    }
    of_task(dst, task)[i] = hot ? T(1) : T(0);
  }
};

template <class T>
struct RowIndicator {
  TaskMatrix<T> dst;
  RowsOfTask rows;
  __device__ void operator()(int task, int row, std::size_t) const {
    of_task(dst, task)[row] = is_own(rows, task, row) ? T(1) : T(0);
  }
};

template <class T>
struct ClassIndicator {
  TaskMatrix<T> dst;
  const std::int32_t* ways;
  __device__ void operator()(int task, int column, std::size_t) const {
    of_task(dst, task)[column] = !ways || column < ways[task] ? T(1) : T(0);
  }
};

// ---- elements and sums ----

template <class T>
struct CopyMatrix {
  TaskMatrix<T> dst;
  TaskMatrix<const T> src;
  int columns;
  __device__ void operator()(int task, int i, std::size_t) const {
    const int row = i / columns, column = i - row * columns;
    of_task(dst, task)[row * dst.columns + column] = of_task(src, task)[row * src.columns + column];
  }
};

template <class T>
struct MultiplyElements {
  TaskMatrix<T> dst;
  T factor;
  TaskMatrix<const T> x, y;
  bool accumulate;
  __device__ void operator()(int task, int i, std::size_t) const {
    const int row = i / dst.columns, column = i - row * dst.columns;
    const int y_row = y.rows == 1 ? 0 : row, y_column = y.columns == 1 ? 0 : column;
    const T product = of_task(x, task)[i] * of_task(y, task)[y_row * y.columns + y_column];
    put(of_task(dst, task) + i, accumulate, factor * product);
  }
};

template <class T>
struct Summands {
  TaskMatrix<const T> x, y;
  __device__ T operator()(int task, int i) const {
    const T value = of_task(x, task)[i];
    return y.data ? value * of_task(y, task)[i] : value;
  }
};

template <class T>
struct SumOverRows {
  TaskMatrix<T> dst;
  T factor;
  Summands<T> summands;
  bool accumulate;
  __device__ void operator()(int task, int column, std::size_t) const {
    T sum = T(0);
    for (int row = 0; row < summands.x.rows; ++row)
      sum += summands(task, row * summands.x.columns + column);
    put(of_task(dst, task) + column, accumulate, factor * sum);
  }
};

template <class T>
__global__ void __launch_bounds__(threads)
    sum_over_columns_kernel(TaskMatrix<T> dst, T factor, Summands<T> summands, bool accumulate,
                            int blocks_per_task) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int task = static_cast<int>(blockIdx.x) / blocks_per_task;
  const int row = (static_cast<int>(blockIdx.x) - task * blocks_per_task) * warps +
                  static_cast<int>(threadIdx.x) / warp_lanes;
  if (row >= summands.x.rows) return;
  T sum = T(0);
  for (int column = lane; column < summands.x.columns; column += warp_lanes) {
    sum += summands(task, row * summands.x.columns + column);
  }
  sum = warp_sum(sum);
  if (lane == 0) put(of_task(dst, task) + row, accumulate, factor * sum);
}

template <class T>
__global__ void __launch_bounds__(threads)
    sum_all_kernel(TaskMatrix<T> dst, T factor, Summands<T> summands, bool accumulate) {
  const int task = static_cast<int>(blockIdx.x);
  T sum = T(0);
  for (int i = static_cast<int>(threadIdx.x); i < summands.x.size(); i += threads)
    sum += summands(task, i);
  const T total = block_sum(sum);
  if (threadIdx.x == 0) put(of_task(dst, task), accumulate, factor * total);
}

// ---- losses ----

template <class T>
struct CrossEntropyRow {
  const std::int32_t* ways;
  __device__ T operator()(const MatrixLoss<T>& loss, int task, int first, T scale) const {
    const T* const o = of_task(loss.outputs, task) + first;
    const T* const y = of_task(loss.y, task) + first;
    const int columns = loss.outputs.columns, classes = ways ? min(ways[task], columns) : columns;
    // softmax, with the largest output subtracted
    T largest = o[0];
    for (int m = 1; m < classes; ++m) largest = o[m] > largest ? o[m] : largest;
    T normaliser = T(0), chosen = T(0);
    for (int m = 0; m < classes; ++m) {
      normaliser += exp(o[m] - largest);
      chosen += y[m] * (o[m] - largest);
    }
    // gradient
    if (loss.g_outputs.data) {
      T* const g = of_task(loss.g_outputs, task) + first;
      for (int m = 0; m < columns; ++m) {
        g[m] = m < classes ? scale * (exp(o[m] - largest) / normaliser - y[m]) : T(0);
      }
    }
    return log(normaliser) - chosen;
  }
  __device__ void no_row(const MatrixLoss<T>&, int, int) const {}
};

template <class T>
struct SquaredErrorRow {
  __device__ T operator()(const MatrixLoss<T>& loss, int task, int first, T scale) const {
    const T* const o = of_task(loss.outputs, task) + first;
    const T* const y = of_task(loss.y, task) + first;
    const T share = T(1) / static_cast<T>(loss.outputs.columns);
    T sum = T(0);
    for (int m = 0; m < loss.outputs.columns; ++m) {
      const T error = o[m] - y[m];
      sum += share * error * error;
      if (loss.g_outputs.data) {
        of_task(loss.g_outputs, task)[first + m] = T(2) * scale * share * error;
      }
    }
    return sum;
  }
  __device__ void no_row(const MatrixLoss<T>&, int, int) const {}
};

template <class T>
struct GaussianNllRow {
  TaskMatrix<const T> variance;
  TaskMatrix<T> g_variance;
  __device__ T operator()(const MatrixLoss<T>& loss, int task, int first, T scale) const {
    T sum = T(0);
    for (int m = first; m < first + loss.outputs.columns; ++m) {
      const T error = of_task(loss.outputs, task)[m] - of_task(loss.y, task)[m];
      const T v = of_task(variance, task)[m], precision = T(1) / v;
      sum += T(0.5) * (error * error * precision + log(v)) + T(log_sqrt_two_pi);
      if (loss.g_outputs.data) of_task(loss.g_outputs, task)[m] = scale * error * precision;
      if (g_variance.data) {
        of_task(g_variance, task)[m] =
            T(0.5) * scale * (precision - error * error * precision * precision);
      }
    }
    return sum;
  }
  __device__ void no_row(const MatrixLoss<T>& loss, int task, int first) const {
    if (!g_variance.data) return;
    for (int m = first; m < first + loss.outputs.columns; ++m) of_task(g_variance, task)[m] = T(0);
  }
};

template <class T, class Row>
__global__ void __launch_bounds__(threads) matrix_loss_kernel(MatrixLoss<T> loss, Row row_loss) {
  const int task = static_cast<int>(blockIdx.x), own = own_row_count(loss.rows, task);
  const T scale = scale_of(loss.scale, task);
  T sum = T(0);
  for (int row = static_cast<int>(threadIdx.x); row < loss.outputs.rows; row += threads) {
    const int first = row * loss.outputs.columns;
    if (row < own) {
      sum += row_loss(loss, task, first, scale);
      continue;
    }
    row_loss.no_row(loss, task, first);
    if (!loss.g_outputs.data) continue;
    for (int m = 0; m < loss.outputs.columns; ++m) of_task(loss.g_outputs, task)[first + m] = T(0);
  }
  const T total = block_sum(sum);
  // Without rows the scale may be a division by zero.
  if (threadIdx.x == 0 && loss.loss.data && own > 0) *of_task(loss.loss, task) += scale * total;
}

template <class T, class Row>
void run_loss(const MatrixLoss<T>& loss, const Row& row_loss, cudaStream_t stream) {
  if (loss.rows.tasks == 0) return;
  launch<matrix_loss_kernel<T, Row>>(
      {.grid = static_cast<unsigned>(loss.rows.tasks), .block = threads, .stream = stream}, loss,
      row_loss);
}

}  // namespace

template <class T>
void one_hot(const TaskMatrix<T>& dst, const std::int32_t* labels, const RowExtent& rows,
             cudaStream_t stream) {
  by_task(OneHot<T>{dst, labels, rows}, {rows.tasks, dst.size()}, stream);
}

template <class T>
void row_indicator(const TaskMatrix<T>& dst, const RowsOfTask& rows, int tasks,
                   cudaStream_t stream) {
  by_task(RowIndicator<T>{dst, rows}, {tasks, dst.rows}, stream);
}

template <class T>
void class_indicator(const TaskMatrix<T>& dst, const std::int32_t* ways, int tasks,
                     cudaStream_t stream) {
  by_task(ClassIndicator<T>{dst, ways}, {tasks, dst.columns}, stream);
}

template <class T>
void copy_matrix(const TaskMatrix<T>& dst, const TaskMatrix<const T>& src, int rows, int columns,
                 int tasks, cudaStream_t stream) {
  by_task(CopyMatrix<T>{dst, src, columns}, {tasks, rows * columns}, stream);
}

template <class T>
void multiply_elements(const TaskMatrix<T>& dst, T factor, const TaskMatrix<const T>& x,
                       const TaskMatrix<const T>& y, bool accumulate, int tasks,
                       cudaStream_t stream) {
  by_task(MultiplyElements<T>{dst, factor, x, y, accumulate}, {tasks, dst.size()}, stream);
}

template <class T>
void sum_elements(const TaskMatrix<T>& dst, T factor, const TaskMatrix<const T>& x,
                  const TaskMatrix<const T>& y, bool accumulate, int tasks, cudaStream_t stream) {
  if (tasks == 0) return;
  const Summands<T> summands{x, y};
  if (dst.size() == 1) {
    launch<sum_all_kernel<T>>(
        {.grid = static_cast<unsigned>(tasks), .block = threads, .stream = stream}, dst, factor,
        summands, accumulate);
  } else if (dst.rows == 1) {
    by_task(SumOverRows<T>{dst, factor, summands, accumulate}, {tasks, dst.columns}, stream);
  } else if (dst.rows > 0) {
    const int blocks = (dst.rows + warps - 1) / warps;
    launch<sum_over_columns_kernel<T>>(
        {.grid = static_cast<unsigned>(tasks) * static_cast<unsigned>(blocks),
         .block = threads,
         .stream = stream},
        dst, factor, summands, accumulate, blocks);
  }
}

template <class T>
void cross_entropy(const MatrixLoss<T>& loss, const std::int32_t* ways, cudaStream_t stream) {
  run_loss(loss, CrossEntropyRow<T>{ways}, stream);
}

template <class T>
void squared_error(const MatrixLoss<T>& loss, cudaStream_t stream) {
  run_loss(loss, SquaredErrorRow<T>{}, stream);
}

template <class T>
void gaussian_nll(const MatrixLoss<T>& loss, const TaskMatrix<const T>& variance,
                  const TaskMatrix<T>& g_variance, cudaStream_t stream) {
  run_loss(loss, GaussianNllRow<T>{variance, g_variance}, stream);
}

#define KSHOT_INSTANTIATE(T)                                                                   \
  template void one_hot(const TaskMatrix<T>&, const std::int32_t*, const RowExtent&,           \
                        cudaStream_t);                                                         \
  template void row_indicator(const TaskMatrix<T>&, const RowsOfTask&, int, cudaStream_t);     \
  template void class_indicator(const TaskMatrix<T>&, const std::int32_t*, int, cudaStream_t); \
  template void copy_matrix(const TaskMatrix<T>&, const TaskMatrix<const T>&, int, int, int,   \
                            cudaStream_t);                                                     \
  template void multiply_elements(const TaskMatrix<T>&, T, const TaskMatrix<const T>&,         \
                                  const TaskMatrix<const T>&, bool, int, cudaStream_t);        \
  template void sum_elements(const TaskMatrix<T>&, T, const TaskMatrix<const T>&,              \
                             const TaskMatrix<const T>&, bool, int, cudaStream_t);             \
  template void cross_entropy(const MatrixLoss<T>&, const std::int32_t*, cudaStream_t);        \
  template void squared_error(const MatrixLoss<T>&, cudaStream_t);                             \
  template void gaussian_nll(const MatrixLoss<T>&, const TaskMatrix<const T>&,                 \
                             const TaskMatrix<T>&, cudaStream_t)
KSHOT_INSTANTIATE(float);
KSHOT_INSTANTIATE(double);
#undef KSHOT_INSTANTIATE

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
