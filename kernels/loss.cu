// Losses over a task's own rows (loss.h).
//
// Mathematics    o: the outputs of a row, O of them; y: its target.
//                  cross_entropy  log sum_i e^{o_i} - o_y; g = p - [i = y], p = softmax(o);
//                                 g' = p (o' - sum_i p_i o'_i). The largest output is subtracted
//                                 first.
//                  mse            sum (o - y)^2 / O; g = 2 (o - y) / O; g' = 2 o' / O
//                  gaussian_nll   sum (o - y)^2 / (2 v) + log(std sqrt(2 pi)); g = (o - y) / v;
//                                 g' = o' / v, v = std^2
// Layout         Outputs [tasks, rows, outputs], losses [tasks].
// Who does what  A thread takes a row. A second launch sums the rows, one thread per task, in
//                ascending order.
// Outputs        g is overwritten, loss accumulated. A task without rows whose scale is divided by
//                the number of rows gets the loss NaN. The reduction leaves it out and counts it as
//                diverged.
// Bytes          2 O scalars of T per row (tangent 4 O).
// Operations     ~30 O per row for cross-entropy, ~4 O for the others.
#include "kernels/loss.h"

#include "kernels/passes.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

constexpr double log_sqrt_two_pi = 0.91893853320467274178;

template <class T>
struct RowLoss {
  LossTarget<T> target;
  Tangent<const T> out;
  int outputs;
  RowExtent rows;
  TaskScale<T> scale;
  T* row_loss;
  Tangent<T> g;

  __device__ void operator()(int task, int row, std::size_t at) const {
    const std::size_t first = at * static_cast<std::size_t>(outputs);
    if (row >= own_row_count(rows, task)) {
      for (int i = 0; i < outputs; ++i) {
        if (g.value) g.value[first + static_cast<std::size_t>(i)] = T(0);
        if (g.dot) g.dot[first + static_cast<std::size_t>(i)] = T(0);
      }
      return;
    }
    const T s = scale_of(scale, task);
    const T value = target.function == LossFunction::cross_entropy
                        ? cross_entropy(first, target.labels[at], s)
                        : squares(first, s);
    if (row_loss) row_loss[at] = value;
  }

  __device__ T cross_entropy(std::size_t first, int label, T s) const {
    const T* o = out.value + first;
    // softmax, with the largest output subtracted
    T largest = o[0];
    for (int i = 1; i < outputs; ++i) largest = o[i] > largest ? o[i] : largest;
    T normaliser = T(0);
    for (int i = 0; i < outputs; ++i) normaliser += exp(o[i] - largest);
    // mean of o' under p
    T mean_dot = T(0);
    if (g.dot) {
      for (int i = 0; i < outputs; ++i) {
        mean_dot += exp(o[i] - largest) / normaliser * out.dot[first + static_cast<std::size_t>(i)];
      }
    }
    // gradient and its tangent
    if (g.value) {
      for (int i = 0; i < outputs; ++i) {
        const std::size_t at = first + static_cast<std::size_t>(i);
        const T p = exp(o[i] - largest) / normaliser;
        g.value[at] = s * (i == label ? p - T(1) : p);
        if (g.dot) g.dot[at] = s * p * (out.dot[at] - mean_dot);
      }
    }
    return log(normaliser) + (largest - o[label]);  // both terms in parentheses may be large
  }

  __device__ T squares(std::size_t first, T s) const {
    const bool mse = target.function == LossFunction::mse;
    const T variance = target.noise_std * target.noise_std;
    const T weight = mse ? T(1) / static_cast<T>(outputs) : T(0.5) / variance;
    const T constant = mse ? T(0) : log(target.noise_std) + T(log_sqrt_two_pi);
    T sum = T(0);
    for (int i = 0; i < outputs; ++i) {
      const std::size_t at = first + static_cast<std::size_t>(i);
      const T error = out.value[at] - target.values[at];
      sum += weight * error * error + constant;
      if (g.value) g.value[at] = s * T(2) * weight * error;
      if (g.dot) g.dot[at] = s * T(2) * weight * out.dot[at];
    }
    return sum;
  }
};

template <class T>
struct SumRows {
  T* loss;
  const T* row_loss;
  RowExtent rows;
  TaskScale<T> scale;
  __device__ void operator()(std::size_t task) const {
    const int t = static_cast<int>(task);
    const T* of_task = row_loss + task * static_cast<std::size_t>(rows.rows);
    T sum = T(0);
    for (int row = 0; row < own_row_count(rows, t); ++row) sum += of_task[row];
    loss[t] += scale_of(scale, t) * sum;
  }
};

template <class T>
struct OwnRows {
  T* dst;
  const T* out;
  int outputs;
  RowExtent rows;
  __device__ void operator()(int task, int i, std::size_t at) const {
    dst[at] = i < own_row_count(rows, task) * outputs ? out[at] : T(0);
  }
};

}  // namespace

template <class T>
void loss(const LossTarget<T>& target, Tangent<const T> out, int outputs, const RowExtent& rows,
          const TaskScale<T>& scale, T* loss, T* row_loss, Tangent<T> g, cudaStream_t stream) {
  by_task(RowLoss<T>{target, out, outputs, rows, scale, loss ? row_loss : nullptr, g},
          {rows.tasks, rows.rows}, stream);
  if (loss) {
    flat(SumRows<T>{loss, row_loss, rows, scale}, static_cast<std::size_t>(rows.tasks), stream);
  }
}

template <class T>
void own_rows(T* dst, const T* out, int outputs, const RowExtent& rows, cudaStream_t stream) {
  by_task(OwnRows<T>{dst, out, outputs, rows}, {rows.tasks, rows.rows * outputs}, stream);
}

#define KSHOT_INSTANTIATE(T)                                                        \
  template void loss(const LossTarget<T>&, Tangent<const T>, int, const RowExtent&, \
                     const TaskScale<T>&, T*, T*, Tangent<T>, cudaStream_t);        \
  template void own_rows(T*, const T*, int, const RowExtent&, cudaStream_t)
KSHOT_INSTANTIATE(float);
KSHOT_INSTANTIATE(double);
#undef KSHOT_INSTANTIATE

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
