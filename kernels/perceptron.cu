// Small perceptrons: a task's inner loop, the outer loss and the adjoint of both in one launch
// (perceptron.h).
//
// Mathematics    The gradient and its derivative along a direction: perceptron_task.h.
//                  inner step  w <- w - rate dL/dw
//                  adjoint     v <- v - H (rate v) for steps K - 1 down to 0, beginning with
//                              v = dL_outer/dw_K. H (rate v) is the derivative of the gradient
//                              along rate v. dL/drate_k = -v dL/dw_k.
//                Of each step, the iterate w_k and the outputs of its layers are kept.
// Layout         One block works on one task at a time, and then takes another (persistent). Its
//                shared memory holds w, v (and u, if rates differ by weight), and features.
//                Iterates 1 .. K - 1 and the outputs of K steps go to global memory. They are
//                stored per block, not per task, so that they take about as much as the
//                second-level cache holds.
// Who does what  A task has one warp, or more if a layer has more tiles (perceptron_task.h).
// Outputs        end, gradient (unless accumulated) and rate gradients are overwritten; loss is
//                accumulated. A task that leaves the finite range has numbers in them that are not
//                finite. The reduction leaves such a task out.
// Bytes          Bytes and operations (a multiply-add counts as two) per task, for the sinusoid
//                network 1-40-40-1, D = 1761, K = 5, 10 + 10 rows, float:
//                  operations     a gradient 0.100 M, an adjoint step 0.198 M: 6 and 5 of them are
//                                 1.59 M
//                  memory         gradient and last iterate, 14 KB, once each; rows 160 B
//                  second cache   iterates: 62 KB; outputs: 34 KB; the start, which all tasks
//                                 share: 14 KB
//                  shared memory  26 KB per block: 8 tasks on a multiprocessor of 228 KB
//                The floor is 42 M tasks/s at 67 TFLOP/s. 10.6 to 12.4 M are expected;
//                docs/kernels.md explains why.
#include "kernels/perceptron.h"

#include <algorithm>

#include "kernels/perceptron_task.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

using namespace perceptron;

/// One pass of a task: an inner step, the outer gradient, or the adjoint of a step.
template <class T>
struct Pass {
  int k;             ///< number of the inner step
  bool down, outer;  ///< if both are false, the pass is an adjoint
  RateArgument<T> rate;
};

/// A block and its memory.
template <class T>
struct Block {
  const Perceptron& network;
  const PerceptronDescent<T>& descent;
  bool vectors;  ///< true if u is a vector of its own
  Task<T> task;

  __device__ Block(const Perceptron& n, const PerceptronDescent<T>& d)
      : network(n),
        descent(d),
        vectors(d.direction != nullptr),
        task{n, {static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x)}, {}} {
    for (int i = 0; i < d.rate_count; ++i) vectors |= d.rates[i].vector != nullptr;
  }

  // ---- what the launch computes ----

  /// True for a Hessian-vector product alone, which is computed as an adjoint step.
  __device__ bool product() const { return descent.direction != nullptr; }
  __device__ bool has_gradient() const { return descent.gradient != nullptr; }
  __device__ bool has_adjoint() const {
    return has_gradient() && (descent.second_order || descent.rate_gradient_count > 0);
  }
  __device__ int steps() const { return product() ? 1 : descent.steps; }

  // ---- memory ----

  __device__ __forceinline__ void lay_out_memory() {
    const int stored = network.stored_weights, tangents = network.layer[0].inputs_offset;
    DynamicShared shared;
    const auto take = [&](int count) {
      return reinterpret_cast<T*>(shared.take<Quad<T>>(static_cast<unsigned>(count / 4)));
    };
    Memory<T>& memory = task.memory;
    memory.w = take(stored + overrun);
    memory.v = take(stored + overrun);
    memory.feature = take(network.features + overrun);
    memory.tangent = take(tangents + overrun);
    memory.row_loss = take((network.rows + 3) / 4 * 4);
    memory.u = vectors ? take(stored + overrun) : memory.v;
    // Copies and loads of pairs also read the words between rows of weights or features, so that
    // all words must have been written.
    clear(memory.w, stored + overrun);
    clear(memory.v, stored + overrun);
    clear(memory.feature, network.features + overrun);
    clear(memory.tangent, tangents + overrun);
    clear(memory.row_loss, network.rows);
    if (vectors) clear(memory.u, stored + overrun);
  }
  __device__ void clear(T* at, int count) const {
    for (int i = task.team.thread; i < count; i += task.team.threads) at[i] = T(0);
  }
  /// The block's scratch memory: the iterates, then the activations that gradients keep.
  __device__ T* scratch() const {
    const auto of_block =
        static_cast<std::size_t>((steps() - 1) * network.stored_weights + steps() * network.kept);
    return descent.scratch + static_cast<std::size_t>(blockIdx.x) * of_block;
  }
  /// The iterate w_k, for 0 < k < steps.
  __device__ T* iterate(int k) const { return scratch() + (k - 1) * network.stored_weights; }
  __device__ T* kept(int k) const {
    return scratch() + (steps() - 1) * network.stored_weights + k * network.kept;
  }
  /// The offset of task t in arrays [tasks, weights] in the flat order.
  __device__ std::size_t first(int t) const {
    return static_cast<std::size_t>(t) * static_cast<std::size_t>(network.weights);
  }

  // ---- the beginning of a pass ----

  __device__ __forceinline__ void load_start(int t) {
    const T* start = descent.start.data + static_cast<std::size_t>(t) * descent.start.stride;
    each_weight(task.team, network, start, [&](int at, int, T w) { task.memory.w[at] = w; });
  }

  __device__ __forceinline__ void begin_task(int t) {
    load_start(t);
    for (int slot = 0; has_gradient() && slot < descent.rate_gradient_count; ++slot) {
      for (int i = task.team.thread; i < network.weights; i += task.team.threads) {
        descent.rate_gradients[slot][first(t) + static_cast<std::size_t>(i)] = T(0);
      }
    }
    task.load_rows(descent.inner, t);
  }

  __device__ __forceinline__ void begin_step(const Pass<T>& pass) {
    const int k = pass.k;
    if (has_adjoint() && k > 0)
      copy_quads(task.team, iterate(k), task.memory.w, network.stored_weights);
    if (pass.rate.vector && (k == 0 || descent.rate_count > 1)) {
      each_weight(task.team, network, pass.rate.vector,
                  [&](int at, int, T r) { task.memory.u[at] = r; });
    }
  }

  __device__ __forceinline__ void begin_outer(int t) {
    task.load_rows(descent.outer, t);
    clear(task.memory.row_loss, network.rows);
  }

  /// Loads w_k, its activations, and the direction u = rate v (or the given direction).
  __device__ __forceinline__ void begin_adjoint(const Pass<T>& pass, int t) {
    const int stored = network.stored_weights;
    Memory<T>& memory = task.memory;
    if (product()) {
      const T* direction = descent.direction + first(t);
      each_weight(task.team, network, direction, [&](int at, int, T d) {
        memory.u[at] = d;
        memory.v[at] = T(0);
      });
      return;
    }
    if (pass.k + 1 == steps()) task.load_rows(descent.inner, t);
    if (pass.k > 0) {
      copy_quads(task.team, memory.w, iterate(pass.k), stored);
    } else {
      load_start(t);
    }
    if (descent.second_order) {
      copy_quads(task.team, memory.feature + network.kept_offset, kept(pass.k), network.kept);
    }
    if (pass.rate.vector) {
      each_weight(task.team, network, pass.rate.vector,
                  [&](int at, int, T r) { memory.u[at] = r * memory.v[at]; });
    } else if (vectors) {
      copy_quads(task.team, memory.u, memory.v, stored);
    }
  }
  /// Where the adjoint of step k adds the gradient by the rates; null if it is not computed.
  __device__ T* rate_gradient(int k, int t) const {
    const int slot = lesser(k, descent.rate_gradient_count - 1);
    return slot >= 0 ? descent.rate_gradients[slot] + first(t) : nullptr;
  }

  // ---- passes of the network ----

  __device__ __forceinline__ void take_gradient(const Pass<T>& pass, int t, T* by_rate) {
    const PerceptronRows<T>& set = pass.outer ? descent.outer : descent.inner;
    const auto use = [&](const PerceptronLayer& layer, bool) {
      if (pass.outer) {
        task.template weight_gradient<Use::keep, values>(layer, task.memory.v, T(0), nullptr);
      } else if (!pass.down) {
        task.template weight_gradient<Use::rate, values>(layer, task.memory.v, T(0), by_rate);
      } else if (pass.rate.vector) {
        task.template weight_gradient<Use::descend_each, values>(layer, task.memory.w, T(0),
                                                                 nullptr);
      } else {
        task.template weight_gradient<Use::descend, values>(layer, task.memory.w, pass.rate.value,
                                                            nullptr);
      }
    };
    task.gradient(set, t, scale_of(set.scale, t), use,
                  pass.down && has_adjoint() && descent.second_order ? kept(pass.k) : nullptr);
  }

  /// v <- v - H (rate v), and the gradient by the rates.
  __device__ __forceinline__ void adjoint_step(const Pass<T>& pass, int t, T* by_rate) {
    const T factor = pass.rate.vector ? T(1) : pass.rate.value;
    const PerceptronRows<T>& set = descent.inner;
    const auto use = [&](const PerceptronLayer& layer, bool first_layer) {
      if (by_rate) {
        task.template weight_gradient<Use::rate, values>(layer, task.memory.v, T(0), by_rate);
      }
      if (first_layer) {
        task.template weight_gradient<Use::adjoint, first_dot>(layer, task.memory.v, factor,
                                                               nullptr);
      } else {
        task.template weight_gradient<Use::adjoint, both_dots>(layer, task.memory.v, factor,
                                                               nullptr);
      }
    };
    task.derivative(set, t, scale_of(set.scale, t), use, !product(), by_rate == nullptr);
  }

  // ---- outputs of the block ----

  __device__ __forceinline__ void put_outer(int t) {
    if (task.team.thread == 0 && descent.loss) {
      T sum = 0;
      for (int r = 0; r < task.rows; ++r) sum += task.memory.row_loss[r];
      descent.loss[t] += scale_of(descent.outer.scale, t) * sum;
    }
    if (!descent.end) return;
    T* end = descent.end + first(t);
    each_weight(task.team, network, [&](int at, int i) { end[i] = task.memory.w[at]; });
  }

  __device__ __forceinline__ void put_task(int t) {
    T* to = (has_gradient() ? descent.gradient : descent.end) + first(t);
    const T* from = has_gradient() ? task.memory.v : task.memory.w;
    const bool add = has_gradient() && descent.accumulate;
    each_weight(task.team, network, add ? to : nullptr,
                [&](int at, int i, T before) { to[i] = before + from[at]; });
  }

  __device__ __forceinline__ void run(int t, int number) {
    const bool down = number < steps();
    const int k = down ? number : 2 * steps() - number;
    const Pass<T> pass{k, down, number == steps(),
                       descent.rates[lesser(k, descent.rate_count - 1)]};
    T* by_rate = nullptr;
    if (pass.down) {
      begin_step(pass);
    } else if (pass.outer) {
      begin_outer(t);
    } else {
      begin_adjoint(pass, t);
      by_rate = rate_gradient(k, t);
    }
    __syncthreads();
    if (pass.down || pass.outer || !descent.second_order) {
      take_gradient(pass, t, by_rate);
    } else {
      adjoint_step(pass, t, by_rate);
    }
    if (pass.outer) {
      put_outer(t);
      __syncthreads();
    }
  }
};

template <class T>
__global__ void __launch_bounds__(most_threads, 1)
    perceptron_kernel(const __grid_constant__ Perceptron network,
                      const __grid_constant__ PerceptronDescent<T> descent, int tasks) {
  Block<T> block(network, descent);
  block.lay_out_memory();
  __syncthreads();
  const int steps = block.steps();
  const int passes = steps + (block.has_gradient() ? 1 : 0) + (block.has_adjoint() ? steps : 0);
  for (int t = static_cast<int>(blockIdx.x); t < tasks; t += static_cast<int>(gridDim.x)) {
    block.begin_task(t);
    __syncthreads();
#pragma unroll 1
    for (int pass = block.product() ? steps + 1 : 0; pass < passes; ++pass) block.run(t, pass);
    block.put_task(t);
    __syncthreads();
  }
}

int quads(int n) {
  return (n + 3) / 4 * 4;
}

/// Returns the distance between rows of weights, 4 times an odd number: then pairs of eight rows
/// use different banks of shared memory, and so do neighbours of rows two apart. Narrow rows are
/// read in another way.
int stride_of(int inputs) {
  if (inputs < 4) return inputs;
  const int fours = (inputs + 3) / 4;
  return 4 * (fours % 2 == 1 ? fours : fours + 1);
}

/// Estimates instructions: true if one thread per element is the faster way for a product of these
/// sizes.
bool is_narrow(int rows, int columns, int depth, int tile_height, int tile_width, int per_depth,
               int per_tile) {
  const auto tiles = [](int size, int tile) { return (size + tile - 1) / tile; };
  return std::max(rows * columns, warp_lanes) * (25 + 3 * depth) <=
         warp_lanes * tiles(rows, tile_height) * tiles(columns, tile_width) *
             (per_tile + per_depth * depth);
}

void choose_ways(PerceptronLayer& layer, int rows) {
  const int in = layer.inputs, out = layer.outputs;
  const bool usual = in == usual_width && out == usual_width;
  const ProductWay tiles = usual ? ProductWay::usual_tiles : ProductWay::tiles;
  if (in == 1) {
    layer.forward = ProductWay::outer;
  } else if (out == 1 && in >= 4) {
    layer.forward = ProductWay::column;
  } else if (in < 4 || is_narrow(rows, out, in, tile_rows, tile_columns, 14, 200)) {
    layer.forward = ProductWay::elements;
  } else {
    layer.forward = tiles;
  }
  if (out == 1) {
    layer.backward = ProductWay::outer;
  } else if (in < 4 || is_narrow(rows, in, out, tile_rows, tile_columns, 15, 200)) {
    layer.backward = ProductWay::elements;
  } else {
    layer.backward = tiles;
  }
  if (in == 1) {
    layer.weights = GradientWay::one_input;
  } else if (out == 1) {
    layer.weights = GradientWay::one_output;
  } else if (in < 4 || is_narrow(out, in, rows, tile_weights, tile_weights, 70, 200)) {
    layer.weights = GradientWay::elements;
  } else {
    layer.weights = usual ? GradientWay::usual_tiles : GradientWay::tiles;
  }
  layer.curve = Curve::none;
  if (!layer.activated) return;
  switch (layer.activation) {
    case Activation::relu:
      layer.curve = Curve::relu;
      break;
    case Activation::leaky_relu:
      layer.curve = Curve::leaky_relu;
      break;
    case Activation::tanh:
      layer.curve = Curve::tanh;
      break;
  }
}

}  // namespace

std::size_t PerceptronPlan::scratch(int tasks, int steps) const {
  return static_cast<std::size_t>(std::min(tasks, blocks)) *
         (static_cast<std::size_t>(std::max(steps - 1, 0)) *
              static_cast<std::size_t>(network.stored_weights) +
          static_cast<std::size_t>(steps) * static_cast<std::size_t>(network.kept));
}

namespace perceptron {

void lay_out(Perceptron& n, int rows) {
  n.rows = rows;
  int at = 0;
  for (int l = 0; l < n.layers; ++l) {
    PerceptronLayer& layer = n.layer[l];
    layer.stride = stride_of(layer.inputs);
    layer.weight_offset = at;
    at += quads(layer.outputs * layer.stride);
    layer.bias_offset = at;
    at += quads(layer.outputs);
  }
  n.stored_weights = at;
  // There is one buffer per layer's outputs, and one more. The gradient by a layer's outputs takes
  // the place of the next layer's outputs, which are not read any more by then. The gradient by the
  // last hidden layer's outputs takes the extra buffer, which is the first.
  at = 0;
  PerceptronLayer& last = n.layer[n.layers - 1];
  const auto buffer = [&](int& offset, int features) {
    offset = at;
    at += quads(rows * quads(features));
  };
  if (n.layers > 1) buffer(n.layer[n.layers - 2].gradient_offset, last.inputs);
  last.gradient_stride = quads(last.outputs);
  buffer(last.gradient_offset, last.outputs);
  n.kept_offset = last.gradient_offset;
  for (int l = n.layers - 1; l > 0; --l) {
    PerceptronLayer &layer = n.layer[l], &before = n.layer[l - 1];
    layer.inputs_stride = quads(layer.inputs);
    before.gradient_stride = quads(before.outputs);
    // This buffer holds the inputs of layer l, then the gradient by the inputs of layer l - 1.
    buffer(layer.inputs_offset, std::max(layer.inputs, before.inputs));
    if (l > 1) n.layer[l - 2].gradient_offset = layer.inputs_offset;
  }
  n.kept = at - n.kept_offset;
  for (int l = 0; l < n.layers; ++l) choose_ways(n.layer[l], rows);
  n.layer[0].inputs_stride = quads(n.layer[0].inputs);
  buffer(n.layer[0].inputs_offset, n.layer[0].inputs);
  n.features = at;
}

bool choose_threads(PerceptronPlan& plan, const DeviceLimits& device) {
  constexpr std::size_t of_a_block = 1024;  // taken by the system per block
  if (plan.shared_bytes > device.shared_limit ||
      plan.shared_bytes + of_a_block > device.shared_total) {
    return false;
  }
  const int resident =
      std::min(32, static_cast<int>(device.shared_total / (plan.shared_bytes + of_a_block)));
  // A team gets one warp for each tile of its largest product, but not more warps than keep a
  // multiprocessor busy.
  const Perceptron& n = plan.network;
  int tiles = 1;
  for (int l = 0; l < n.layers; ++l) {
    const auto count = [](int size, int tile) { return (size + tile - 1) / tile; };
    tiles = std::max(tiles, count(n.rows, tile_rows) * count(n.layer[l].outputs, tile_columns));
  }
  const int teams = resident * plan.teams;
  const int warps = std::clamp((12 + teams - 1) / teams, 1,
                               std::min(tiles, most_threads / warp_lanes / plan.teams));
  plan.threads = plan.teams * warps * warp_lanes;
  plan.blocks = resident * device.processors;
  return true;
}

}  // namespace perceptron

template <class T>
bool plan_perceptron(PerceptronPlan& plan, const Perceptron& network, int rows, bool own_direction,
                     const DeviceLimits& device) {
  plan.network = network;
  plan.teams = 1;
  lay_out(plan.network, rows);
  plan.shared_bytes =
      static_cast<std::size_t>(team_scalars(plan.network, own_direction ? 3 : 2)) * sizeof(T);
  return choose_threads(plan, device);
}

template <class T>
void perceptron_descent(const PerceptronPlan& plan, const PerceptronDescent<T>& descent, int tasks,
                        cudaStream_t stream) {
  if (tasks == 0) return;
  launch<perceptron_kernel<T>>({.grid = static_cast<unsigned>(std::min(tasks, plan.blocks)),
                                .block = static_cast<unsigned>(plan.threads),
                                .shared_bytes = plan.shared_bytes,
                                .stream = stream},
                               plan.network, descent, tasks);
}

#define KSHOT_INSTANTIATE(T)                                                                \
  template bool plan_perceptron<T>(PerceptronPlan&, const Perceptron&, int, bool,           \
                                   const DeviceLimits&);                                    \
  template void perceptron_descent(const PerceptronPlan&, const PerceptronDescent<T>&, int, \
                                   cudaStream_t)
KSHOT_INSTANTIATE(float);
KSHOT_INSTANTIATE(double);
#undef KSHOT_INSTANTIATE

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
