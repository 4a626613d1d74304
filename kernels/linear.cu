// Linear layers with per-task weights, and their tangents (linear.h).
//
// Mathematics    y = W x + b,  g_in = W^T g,  g_W = sum_rows g x^T,  g_b = sum_rows g, and their
//                derivatives along (x', W', b', g') by the product rule.
// Layout         Features [tasks, rows, features], weights [outputs, inputs].
// Who does what  A thread computes one element: a row's output, a row's input gradient, or a
//                weight's gradient (the bias is one more column of the weights). The threads of a
//                block work on one task, so that its weights and rows stay in the first-level
//                cache. Sums run in ascending order of inputs, outputs or rows. There are no
//                atomics.
// Outputs        The forward pass and the input gradient are overwritten, with zero in rows beyond
//                a task's own. Weight gradients are overwritten or accumulated, as asked.
// Bytes          Scalars of T and operations (a multiply-add counts as two), per task with n rows,
//                I inputs and O outputs:
//                  forward          I O + n I + n O read or written once, 2 n I O (tangent: twice
//                                   the scalars, three times the operations)
//                  input gradient   the same
//                  weight gradient  the same
//                These are the plain kernels, for layers of any size. Small perceptrons have a
//                kernel of their own (perceptron.cu).
#include "kernels/linear.h"

#include "kernels/passes.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

template <class T>
__device__ T* of_task(const TaskTensor<T>& tensor, int task) {
  return tensor.data ? tensor.data + static_cast<std::size_t>(task) * tensor.stride : nullptr;
}

__device__ inline std::size_t row_at(const RowExtent& rows, int task, int row, int features) {
  return (static_cast<std::size_t>(task) * static_cast<std::size_t>(rows.rows) +
          static_cast<std::size_t>(row)) *
         static_cast<std::size_t>(features);
}

template <class T>
struct LinearForward {
  Tangent<T> y;
  Tangent<const T> x;
  TensorTangent<const T> weight, bias;
  LinearSize size;
  RowExtent rows;

  __device__ void operator()(int task, int i, std::size_t at) const {
    const int row = i / size.outputs, o = i - row * size.outputs;
    if (row >= own_row_count(rows, task)) {
      y.value[at] = T(0);
      if (y.dot) y.dot[at] = T(0);
      return;
    }
    const std::size_t w_at = static_cast<std::size_t>(o) * static_cast<std::size_t>(size.inputs);
    const std::size_t x_at = row_at(rows, task, row, size.inputs);
    const T* w = of_task(weight.value, task) + w_at;
    const T* b = of_task(bias.value, task);
    const T* in = x.value + x_at;
    // y
    T sum = b ? b[o] : T(0);
    for (int k = 0; k < size.inputs; ++k) sum += w[k] * in[k];
    y.value[at] = sum;
    // y'
    if (!y.dot) return;
    const T* b_dot = of_task(bias.dot, task);
    T dot = b_dot ? b_dot[o] : T(0);
    if (weight.dot.data) {
      const T* w_dot = of_task(weight.dot, task) + w_at;
      for (int k = 0; k < size.inputs; ++k) dot += w_dot[k] * in[k];
    }
    if (x.dot) {
      const T* in_dot = x.dot + x_at;
      for (int k = 0; k < size.inputs; ++k) dot += w[k] * in_dot[k];
    }
    y.dot[at] = dot;
  }
};

template <class T>
struct LinearInputGradient {
  Tangent<T> g_in;
  Tangent<const T> g;
  TensorTangent<const T> weight;
  LinearSize size;
  RowExtent rows;

  __device__ void operator()(int task, int i, std::size_t at) const {
    const int row = i / size.inputs, k = i - row * size.inputs;
    if (row >= own_row_count(rows, task)) {
      g_in.value[at] = T(0);
      if (g_in.dot) g_in.dot[at] = T(0);
      return;
    }
    const std::size_t g_at = row_at(rows, task, row, size.outputs);
    const std::size_t step = static_cast<std::size_t>(size.inputs);
    const T* w = of_task(weight.value, task) + k;
    const T* out = g.value + g_at;
    T sum = T(0);
    for (int o = 0; o < size.outputs; ++o) sum += out[o] * w[static_cast<std::size_t>(o) * step];
    g_in.value[at] = sum;
    if (!g_in.dot) return;
    T dot = T(0);
    const T* out_dot = g.dot + g_at;
    for (int o = 0; o < size.outputs; ++o) {
      dot += out_dot[o] * w[static_cast<std::size_t>(o) * step];
    }
    if (weight.dot.data) {
      const T* w_dot = of_task(weight.dot, task) + k;
      for (int o = 0; o < size.outputs; ++o) {
        dot += out[o] * w_dot[static_cast<std::size_t>(o) * step];
      }
    }
    g_in.dot[at] = dot;
  }
};

template <class T>
struct LinearWeightGradient {
  TensorTangent<T> g_weight, g_bias;
  Accumulate to;
  Tangent<const T> g, x;
  LinearSize size;
  RowExtent rows;

  __device__ static void put(T* at, bool accumulate, T value) {
    *at = accumulate ? *at + value : value;
  }
  /// The address of element `at` of a task's tensor, or null if the tensor is not computed.
  __device__ static T* of_task_or_null(TaskTensor<T> tensor, int task, std::size_t at) {
    return tensor.data ? of_task(tensor, task) + at : nullptr;
  }
  __device__ void operator()(int task, int i, std::size_t) const {
    const int columns = size.inputs + 1;  // the last one is the bias
    const int o = i / columns, k = i - o * columns;
    const bool is_bias = k == size.inputs;
    const std::size_t at =
        is_bias ? static_cast<std::size_t>(o)
                : static_cast<std::size_t>(o) * static_cast<std::size_t>(size.inputs) +
                      static_cast<std::size_t>(k);
    // These are copies, because a reference to one of two kernel parameters would copy both to the
    // stack.
    T* const value = of_task_or_null(is_bias ? g_bias.value : g_weight.value, task, at);
    T* const tangent = of_task_or_null(is_bias ? g_bias.dot : g_weight.dot, task, at);
    if (!value && !tangent) return;
    const int n = own_row_count(rows, task);
    T sum = T(0), dot = T(0);
    std::size_t g_at = row_at(rows, task, 0, size.outputs) + static_cast<std::size_t>(o);
    std::size_t x_at =
        row_at(rows, task, 0, size.inputs) + static_cast<std::size_t>(is_bias ? 0 : k);
    for (int row = 0; row < n; ++row) {
      const T in = is_bias ? T(1) : x.value[x_at];
      sum += g.value[g_at] * in;
      if (tangent) {
        dot += g.dot[g_at] * in;
        if (x.dot && !is_bias) dot += g.value[g_at] * x.dot[x_at];
      }
      g_at += static_cast<std::size_t>(size.outputs);
      x_at += static_cast<std::size_t>(size.inputs);
    }
    if (value) put(value, to.value, sum);
    if (tangent) put(tangent, to.dot, dot);
  }
};

}  // namespace

template <class T>
void linear_forward(Tangent<T> y, Tangent<const T> x, TensorTangent<const T> weight,
                    TensorTangent<const T> bias, LinearSize size, const RowExtent& rows,
                    cudaStream_t stream) {
  by_task(LinearForward<T>{y, x, weight, bias, size, rows}, {rows.tasks, rows.rows * size.outputs},
          stream);
}

template <class T>
void linear_input_gradient(Tangent<T> g_in, Tangent<const T> g, TensorTangent<const T> weight,
                           LinearSize size, const RowExtent& rows, cudaStream_t stream) {
  by_task(LinearInputGradient<T>{g_in, g, weight, size, rows},
          {rows.tasks, rows.rows * size.inputs}, stream);
}

template <class T>
void linear_weight_gradient(TensorTangent<T> g_weight, TensorTangent<T> g_bias, Accumulate to,
                            Tangent<const T> g, Tangent<const T> x, LinearSize size,
                            const RowExtent& rows, cudaStream_t stream) {
  by_task(LinearWeightGradient<T>{g_weight, g_bias, to, g, x, size, rows},
          {rows.tasks, (size.inputs + 1) * size.outputs}, stream);
}

#define KSHOT_INSTANTIATE(T)                                                                \
  template void linear_forward(Tangent<T>, Tangent<const T>, TensorTangent<const T>,        \
                               TensorTangent<const T>, LinearSize, const RowExtent&,        \
                               cudaStream_t);                                               \
  template void linear_input_gradient(Tangent<T>, Tangent<const T>, TensorTangent<const T>, \
                                      LinearSize, const RowExtent&, cudaStream_t);          \
  template void linear_weight_gradient(TensorTangent<T>, TensorTangent<T>, Accumulate,      \
                                       Tangent<const T>, Tangent<const T>, LinearSize,      \
                                       const RowExtent&, cudaStream_t)
KSHOT_INSTANTIATE(float);
KSHOT_INSTANTIATE(double);
#undef KSHOT_INSTANTIATE

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
