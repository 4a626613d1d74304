// Batch norm of each task and channel (norm.h).
//
// Mathematics    E = mean over the n = rows * positions elements of one task's channel.
//                  mean = E[x]            inverse = 1 / sqrt(E[(x - mean)^2] + epsilon)
//                  x_hat = (x - mean) inverse                      y = scale x_hat + shift
//                tangent (slope = E[x_hat x']):
//                  x_hat' = inverse (x' - E[x'] - x_hat slope)     inverse' = -inverse^2 slope
//                  y' = scale' x_hat + scale x_hat' + shift'
//                backward:
//                  q = g - E[g] - x_hat E[g x_hat]                 g_x = scale inverse q
//                  g_scale = n E[g x_hat]                          g_shift = n E[g]
//                and its tangent:
//                  q' = g' - E[g'] - x_hat' E[g x_hat] - x_hat (E[g' x_hat] + E[g x_hat'])
//                  g_x' = (scale' inverse + scale inverse') q + scale inverse q'
// Layout         Features [task][row][channel][position], statistics of channels [task][channel].
// Who does what  A warp takes one channel of one task, and a lane takes every 32nd of its elements,
//                in each of the passes. So no barrier is needed, and any pass may be in place. Sums
//                are added in a fixed order: over the strides of a lane, then over lanes.
//                Neighbouring lanes read neighbouring positions. If a map has fewer than 8
//                positions, sectors are read in part.
// Outputs        Overwritten, except gradients of weights with `accumulate`, which are +=.
// Bytes          Scalars of T and operations (a multiply-add counts as two) per element. Passes
//                after the first read from the cache, if a channel's elements fit there:
//                  forward           x, x_hat, y                     3 + 2 again     ~7
//                  forward, given    x, y                            2               4
//                  forward tangent   x_hat, x', x_hat', y'           4 + 2 again     ~11
//                  backward          g, x_hat, g_x                   3 + 2 again     ~8
//                  backward tangent  g, x_hat, g', x_hat', g_x, g_x' 6 + 4 again     ~23
//                All passes are bound by memory: the bytes at 4 TB/s are the floor on an H200.
#include "kernels/norm.h"

#include "kernels/device.h"
#include "kshot/network.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

constexpr int warps = 4;  // per block; each warp works on its own

/// The channel of a warp.
struct Channel {
  int task, channel;
  std::size_t index;  // index in [tasks, channels]
  std::size_t first;  // index of its first element
  int rows, positions;
  std::size_t row_stride;
  int lane;

  __device__ int count() const { return rows * positions; }

  template <class T>
  __device__ T per_element() const {
    return count() > 0 ? T(1) / static_cast<T>(count()) : T(0);
  }

  /// Calls body(index) for the elements of this lane.
  template <class Body>
  __device__ void each(const Body& body) const {
    const int step_row = warp_lanes / positions, step_position = warp_lanes % positions;
    int row = lane / positions, position = lane % positions;
    while (row < rows) {
      body(first + static_cast<std::size_t>(row) * row_stride + static_cast<std::size_t>(position));
      row += step_row;
      position += step_position;
      if (position >= positions) {
        position -= positions;
        ++row;
      }
    }
  }
};

/// The channel of the calling warp. task < 0 means that there is none.
__device__ Channel channel_of(const NormSize& size, const RowExtent& rows) {
  Channel c{};
  const int thread = static_cast<int>(threadIdx.x);
  const int groups = (size.channels + warps - 1) / warps;
  c.task = static_cast<int>(blockIdx.x) / groups;
  c.channel = (static_cast<int>(blockIdx.x) - c.task * groups) * warps + thread / warp_lanes;
  c.lane = thread % warp_lanes;
  c.positions = size.positions;
  c.row_stride = static_cast<std::size_t>(size.channels) * static_cast<std::size_t>(size.positions);
  c.rows = own_row_count(rows, c.task);
  c.index = static_cast<std::size_t>(c.task) * static_cast<std::size_t>(size.channels) +
            static_cast<std::size_t>(c.channel);
  c.first = static_cast<std::size_t>(c.task) * static_cast<std::size_t>(rows.rows) * c.row_stride +
            static_cast<std::size_t>(c.channel) * static_cast<std::size_t>(size.positions);
  if (c.channel >= size.channels) c.task = -1;
  return c;
}

template <class T>
__device__ T& weight_of(const TaskTensor<T>& tensor, const Channel& c) {
  return tensor
      .data[static_cast<std::size_t>(c.task) * tensor.stride + static_cast<std::size_t>(c.channel)];
}

template <class T>
__device__ void put_weight(const TaskTensor<T>& tensor, const Channel& c, T value,
                           bool accumulate) {
  if (!tensor.data || c.lane != 0) return;
  T& to = weight_of(tensor, c);
  to = accumulate ? to + value : value;
}

template <class T>
struct Forward {
  NormForward<T> p;
  NormSource source;
  __device__ void operator()(const Channel& c) const {
    T mean, inverse;
    if (source == NormSource::given) {
      mean = p.mean[c.index];
      inverse = p.inverse[c.index];
    } else {
      // mean
      const T per_element = c.per_element<T>();
      T sum = 0;
      c.each([&](std::size_t i) { sum += p.x[i]; });
      mean = warp_sum(sum) * per_element;
      // inverse standard deviation
      T squares = 0;
      c.each([&](std::size_t i) {
        const T d = p.x[i] - mean;
        squares += d * d;
      });
      inverse = T(1) / sqrt(warp_sum(squares) * per_element + static_cast<T>(norm_epsilon));
      if (c.lane == 0) {
        p.mean[c.index] = mean;
        p.inverse[c.index] = inverse;
      }
    }
    // x_hat and y
    const T scale = weight_of(p.scale, c), shift = weight_of(p.shift, c);
    c.each([&](std::size_t i) {
      const T x_hat = (p.x[i] - mean) * inverse;
      if (p.x_hat) p.x_hat[i] = x_hat;
      p.y[i] = scale * x_hat + shift;
    });
  }
};

template <class T>
struct ForwardTangent {
  NormForwardTangent<T> p;
  __device__ void operator()(const Channel& c) const {
    // means of x_dot and of x_hat x_dot
    const T per_element = c.per_element<T>(), inverse = p.inverse[c.index];
    T sum = 0, product = 0;
    if (p.x_dot) {
      c.each([&](std::size_t i) {
        const T x_dot = p.x_dot[i];
        sum += x_dot;
        product += p.x_hat[i] * x_dot;
      });
    }
    const T mean = warp_sum(sum) * per_element, slope = warp_sum(product) * per_element;
    if (c.lane == 0) p.slope[c.index] = slope;
    // x_hat_dot and y_dot
    const T scale = weight_of(p.scale, c), scale_dot = weight_of(p.scale_dot, c),
            shift_dot = weight_of(p.shift_dot, c);
    c.each([&](std::size_t i) {
      const T x_hat = p.x_hat[i];
      const T x_hat_dot = p.x_dot ? inverse * (p.x_dot[i] - mean - x_hat * slope) : T(0);
      p.x_hat_dot[i] = x_hat_dot;
      p.y_dot[i] = scale_dot * x_hat + scale * x_hat_dot + shift_dot;
    });
  }
};

template <class T>
struct Backward {
  NormBackward<T> p;
  __device__ void operator()(const Channel& c) const {
    // sums of g and of g x_hat
    T sum = 0, product = 0;
    c.each([&](std::size_t i) {
      sum += p.g_y[i];
      product += p.g_y[i] * p.x_hat[i];
    });
    sum = warp_sum(sum);
    product = warp_sum(product);
    // gradients of the weights
    put_weight(p.g_scale, c, product, p.accumulate);
    put_weight(p.g_shift, c, sum, p.accumulate);
    if (!p.g_x) return;
    // gradient by x
    const T per_element = c.per_element<T>(), factor = weight_of(p.scale, c) * p.inverse[c.index];
    const T mean = sum * per_element, mean_product = product * per_element;
    c.each(
        [&](std::size_t i) { p.g_x[i] = factor * (p.g_y[i] - mean - p.x_hat[i] * mean_product); });
  }
};

template <class T>
struct BackwardTangent {
  NormBackwardTangent<T> t;
  __device__ void operator()(const Channel& c) const {
    const NormBackward<T>& p = t.primal;
    // sums for the gradients of the weights, and their tangents
    T sum = 0, product = 0, sum_dot = 0, product_dot = 0;
    c.each([&](std::size_t i) {
      const T g = p.g_y[i], g_dot = t.g_y_dot[i], x_hat = p.x_hat[i];
      sum += g;
      product += g * x_hat;
      sum_dot += g_dot;
      product_dot += g_dot * x_hat + g * t.x_hat_dot[i];
    });
    sum = warp_sum(sum);
    product = warp_sum(product);
    sum_dot = warp_sum(sum_dot);
    product_dot = warp_sum(product_dot);
    // gradients of the weights, and their tangents
    put_weight(p.g_scale, c, product, p.accumulate);
    put_weight(p.g_shift, c, sum, p.accumulate);
    put_weight(t.g_scale_dot, c, product_dot, t.accumulate);
    put_weight(t.g_shift_dot, c, sum_dot, t.accumulate);
    // gradient by x, and its tangent
    if (!p.g_x && !t.g_x_dot) return;
    const T per_element = c.per_element<T>();
    const T inverse = p.inverse[c.index], scale = weight_of(p.scale, c);
    const T factor = scale * inverse;
    const T factor_dot =
        weight_of(t.scale_dot, c) * inverse - scale * inverse * inverse * t.slope[c.index];
    const T mean = sum * per_element, mean_product = product * per_element;
    const T mean_dot = sum_dot * per_element, mean_product_dot = product_dot * per_element;
    c.each([&](std::size_t i) {
      const T x_hat = p.x_hat[i];
      const T q = p.g_y[i] - mean - x_hat * mean_product;
      const T q_dot =
          t.g_y_dot[i] - mean_dot - t.x_hat_dot[i] * mean_product - x_hat * mean_product_dot;
      if (t.g_x_dot) t.g_x_dot[i] = factor_dot * q + factor * q_dot;
      if (p.g_x) p.g_x[i] = factor * q;
    });
  }
};

template <class Pass>
__global__ void __launch_bounds__(warps* warp_lanes)
    channel_kernel(Pass pass, NormSize size, RowExtent rows) {
  const Channel c = channel_of(size, rows);
  if (c.task >= 0) pass(c);  // whole warps enter or skip it together
}

template <class Pass>
void by_channel(const Pass& pass, NormSize size, const RowExtent& rows, cudaStream_t stream) {
  if (rows.tasks == 0 || size.channels == 0) return;
  const auto groups = static_cast<unsigned>((size.channels + warps - 1) / warps);
  launch<channel_kernel<Pass>>({.grid = static_cast<unsigned>(rows.tasks) * groups,
                                .block = warps * warp_lanes,
                                .stream = stream},
                               pass, size, rows);
}

}  // namespace

// ---- launchers ----

template <class T>
void norm_forward(const NormForward<T>& pass, NormSource source, NormSize size,
                  const RowExtent& rows, cudaStream_t stream) {
  by_channel(Forward<T>{pass, source}, size, rows, stream);
}

template <class T>
void norm_forward_tangent(const NormForwardTangent<T>& pass, NormSize size, const RowExtent& rows,
                          cudaStream_t stream) {
  by_channel(ForwardTangent<T>{pass}, size, rows, stream);
}

template <class T>
void norm_backward(const NormBackward<T>& pass, NormSize size, const RowExtent& rows,
                   cudaStream_t stream) {
  by_channel(Backward<T>{pass}, size, rows, stream);
}

template <class T>
void norm_backward_tangent(const NormBackwardTangent<T>& pass, NormSize size, const RowExtent& rows,
                           cudaStream_t stream) {
  by_channel(BackwardTangent<T>{pass}, size, rows, stream);
}

#define KSHOT_INSTANTIATE(T)                                                                     \
  template void norm_forward(const NormForward<T>&, NormSource, NormSize, const RowExtent&,      \
                             cudaStream_t);                                                      \
  template void norm_forward_tangent(const NormForwardTangent<T>&, NormSize, const RowExtent&,   \
                                     cudaStream_t);                                              \
  template void norm_backward(const NormBackward<T>&, NormSize, const RowExtent&, cudaStream_t); \
  template void norm_backward_tangent(const NormBackwardTangent<T>&, NormSize, const RowExtent&, \
                                      cudaStream_t)
KSHOT_INSTANTIATE(float);
KSHOT_INSTANTIATE(double);
#undef KSHOT_INSTANTIATE

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
