// Small perceptrons: a task's inner loop, the outer loss and the adjoint of all that in one launch
// (perceptron.h).
//
// Mathematics   gradient and its derivative along a direction: perceptron_task.h
//               inner step w <- w - rate dL/dw
//               adjoint    v <- v - H (rate v), v = dL_outer/dw_K at first, steps K - 1 down to 0:
//                          the derivative of the gradient along rate v;
//                          dL/drate_k = -v dL/dw_k
//               Of a step its iterate w_k and its layers' outputs are kept.
// Layout        One block works on one task at a time, and takes another when it is done
//               (persistent). In its shared memory: w, v (and u, where rates differ by weight), and
//               features. Iterates 1 .. K - 1 and outputs of K steps go to global memory, for
//               every block (not task), which is about what the second cache holds.
// Who does what A task has one warp, more where a layer has more tiles (perceptron_task.h).
// Outputs       end, gradient (unless accumulated) and rate gradients overwritten; loss
//               accumulated. A task that leaves the finite range has numbers there that are not
//               finite; the reduction masks it.
// Bytes, and operations (multiply-adds count two), per task, sinusoid 1-40-40-1, D = 1761, K = 5,
// 10 + 10 rows, float:
//               operations     a gradient 0.100 M, an adjoint step 0.198 M: 6 and 5 of them, 1.59 M
//               memory         gradient and last iterate, 14 KB, once each; rows 160 B
//               second cache   iterates: 62 KB; outputs: 34 KB; the start, which all tasks share:
//                              14 KB
//               shared memory  the block has 26 KB: 8 tasks on a multiprocessor of 228 KB
//               Floor 42 M tasks/s at 67 TFLOP/s; expected 10.6 to 12.4 M (docs/kernels.md says
//               why).
#include "kernels/perceptron.h"

#include <algorithm>

#include "kernels/perceptron_task.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

using namespace perceptron;

template <class T>
__global__ void __launch_bounds__(most_threads, 1)
    perceptron_kernel(const __grid_constant__ Perceptron network,
                      const __grid_constant__ PerceptronDescent<T> descent, int tasks) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const Team team{thread, threads};
  const int stored = network.stored_weights, tangents = network.layer[0].inputs_at;
  const bool product = descent.direction != nullptr;
  bool vectors = product;
  for (int i = 0; i < descent.rate_count; ++i) vectors |= descent.rates[i].vector != nullptr;

  DynamicShared shared;
  const auto take = [&](int count) {
    return reinterpret_cast<T*>(shared.take<Quad<T>>(static_cast<unsigned>(count / 4)));
  };
  Task<T> task{network, team, {}};
  Memory<T>& memory = task.memory;
  memory.w = take(stored + overrun);
  memory.v = take(stored + overrun);
  memory.feature = take(network.features + overrun);
  memory.tangent = take(tangents + overrun);
  memory.row_loss = take((network.rows + 3) / 4 * 4);
  memory.u = vectors ? take(stored + overrun) : memory.v;
  // words between rows of weights or features go along with copies and loads of pairs
  const auto clear = [&](T* at, int count) {
    for (int i = thread; i < count; i += threads) at[i] = T(0);
  };
  clear(memory.w, stored + overrun);
  clear(memory.v, stored + overrun);
  clear(memory.feature, network.features + overrun);
  clear(memory.tangent, tangents + overrun);
  clear(memory.row_loss, network.rows);
  if (vectors) clear(memory.u, stored + overrun);
  __syncthreads();

  const auto weights = static_cast<std::size_t>(network.weights);
  const bool wanted = descent.gradient != nullptr;
  const bool back = wanted && (descent.second_order || descent.rate_gradient_count > 0);
  // a product is an adjoint step alone
  const int steps = product ? 1 : descent.steps,
            passes = steps + (wanted ? 1 : 0) + (back ? steps : 0);
  T* scratch = nullptr;  // the block's: iterates, then what gradients keep
  if (back && !product && steps > 0) {
    const auto of_block = static_cast<std::size_t>((steps - 1) * stored + steps * network.kept);
    scratch = descent.scratch + static_cast<std::size_t>(blockIdx.x) * of_block;
  }
  const auto iterate = [&](int k) { return scratch + (k - 1) * stored; };  // 0 < k < steps
  const auto kept = [&](int k) { return scratch + (steps - 1) * stored + k * network.kept; };

  for (int t = static_cast<int>(blockIdx.x); t < tasks; t += static_cast<int>(gridDim.x)) {
    const std::size_t first = static_cast<std::size_t>(t) * weights;
    const T* start = descent.start.data + static_cast<std::size_t>(t) * descent.start.stride;
    each_weight(team, network, start, [&](int at, int, T w) { memory.w[at] = w; });
    for (int slot = 0; wanted && slot < descent.rate_gradient_count; ++slot) {
      for (int i = thread; i < network.weights; i += threads) {
        descent.rate_gradients[slot][first + static_cast<std::size_t>(i)] = T(0);
      }
    }
    task.load_rows(descent.inner, t);
    __syncthreads();
#pragma unroll 1
    for (int pass = product ? steps + 1 : 0; pass < passes; ++pass) {
      const bool down = pass < steps, outer = pass == steps;
      const int k = down ? pass : 2 * steps - pass;
      const RateArgument<T> rate = descent.rates[lesser(k, descent.rate_count - 1)];
      T* rate_gradient = nullptr;
      if (down) {
        if (back && k > 0) copy_quads(team, iterate(k), memory.w, stored);
        if (rate.vector && (k == 0 || descent.rate_count > 1)) {
          each_weight(team, network, rate.vector, [&](int at, int, T r) { memory.u[at] = r; });
        }
      } else if (outer) {
        task.load_rows(descent.outer, t);
        for (int r = thread; r < network.rows; r += threads) memory.row_loss[r] = T(0);
      } else {
        if (pass == steps + 1 && !product) task.load_rows(descent.inner, t);
        if (k > 0) {
          copy_quads(team, memory.w, iterate(k), stored);
        } else if (!product) {
          each_weight(team, network, start, [&](int at, int, T w) { memory.w[at] = w; });
        }
        if (!product && descent.second_order) {
          copy_quads(team, memory.feature + network.kept_at, kept(k), network.kept);
        }
        if (product) {
          const T* direction = descent.direction + first;
          each_weight(team, network, direction, [&](int at, int, T d) {
            memory.u[at] = d;
            memory.v[at] = T(0);
          });
        } else if (rate.vector) {
          each_weight(team, network, rate.vector,
                      [&](int at, int, T r) { memory.u[at] = r * memory.v[at]; });
        } else if (vectors) {
          copy_quads(team, memory.u, memory.v, stored);
        }
        const int slot = lesser(k, descent.rate_gradient_count - 1);
        if (slot >= 0) rate_gradient = descent.rate_gradients[slot] + first;
      }
      __syncthreads();
      if (down || outer || !descent.second_order) {
        const PerceptronRows<T>& set = outer ? descent.outer : descent.inner;
        const auto use = [&](const PerceptronLayer& layer, bool) {
          if (outer) {
            task.template weight_gradient<Use::keep, values>(layer, memory.v, T(0), nullptr);
          } else if (!down) {
            task.template weight_gradient<Use::rate, values>(layer, memory.v, T(0), rate_gradient);
          } else if (rate.vector) {
            task.template weight_gradient<Use::descend_each, values>(layer, memory.w, T(0),
                                                                     nullptr);
          } else {
            task.template weight_gradient<Use::descend, values>(layer, memory.w, rate.value,
                                                                nullptr);
          }
        };
        task.gradient(set, t, scale_of(set.scale, t), use,
                      down && back && descent.second_order ? kept(k) : nullptr);
      } else {
        const T factor = rate.vector ? T(1) : rate.value;
        const PerceptronRows<T>& set = descent.inner;
        const auto use = [&](const PerceptronLayer& layer, bool first_layer) {
          if (rate_gradient) {
            task.template weight_gradient<Use::rate, values>(layer, memory.v, T(0), rate_gradient);
          }
          if (first_layer) {
            task.template weight_gradient<Use::adjoint, first_dot>(layer, memory.v, factor,
                                                                   nullptr);
          } else {
            task.template weight_gradient<Use::adjoint, both_dots>(layer, memory.v, factor,
                                                                   nullptr);
          }
        };
        task.derivative(set, t, scale_of(set.scale, t), use, !product, rate_gradient == nullptr);
      }
      if (outer) {
        if (thread == 0 && descent.loss) {
          T sum = 0;
          for (int r = 0; r < task.rows; ++r) sum += memory.row_loss[r];
          descent.loss[t] += scale_of(descent.outer.scale, t) * sum;
        }
        if (descent.end) {
          T* end = descent.end + first;
          each_weight(team, network, [&](int at, int i) { end[i] = memory.w[at]; });
        }
        __syncthreads();
      }
    }
    T* to = (wanted ? descent.gradient : descent.end) + first;
    const T* from = wanted ? memory.v : memory.w;
    const bool add = wanted && descent.accumulate;
    each_weight(team, network, add ? to : nullptr,
                [&](int at, int i, T before) { to[i] = before + from[at]; });
    __syncthreads();
  }
}

int quads(int n) {
  return (n + 3) / 4 * 4;
}

/// Rows of weights lie 4 times an odd number apart: eight rows' pairs fall into different banks of
/// shared memory, and so do neighbours of rows two apart. Narrow ones are read otherwise.
int stride_of(int inputs) {
  if (inputs < 4) return inputs;
  const int fours = (inputs + 3) / 4;
  return 4 * (fours % 2 == 1 ? fours : fours + 1);
}

/// Instructions, about: whether a thread an element is the shorter way for a product of so many
/// rows, columns and depth.
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
    layer.weight_at = at;
    at += quads(layer.outputs * layer.stride);
    layer.bias_at = at;
    at += quads(layer.outputs);
  }
  n.stored_weights = at;
  // One buffer a layer's outputs and one more: the gradient by a layer's outputs takes the place of
  // the next layer's outputs, which nobody reads any more by then; the last hidden layer's the
  // spare one's, which is the first.
  at = 0;
  PerceptronLayer& last = n.layer[n.layers - 1];
  const auto buffer = [&](int& where, int features) {
    where = at;
    at += quads(rows * quads(features));
  };
  if (n.layers > 1) buffer(n.layer[n.layers - 2].gradient_at, last.inputs);
  last.gradient_stride = quads(last.outputs);
  buffer(last.gradient_at, last.outputs);
  n.kept_at = last.gradient_at;
  for (int l = n.layers - 1; l > 0; --l) {
    PerceptronLayer &layer = n.layer[l], &before = n.layer[l - 1];
    layer.inputs_stride = quads(layer.inputs);
    before.gradient_stride = quads(before.outputs);
    // the inputs of layer l, then the gradient by those of layer l - 1
    buffer(layer.inputs_at, std::max(layer.inputs, before.inputs));
    if (l > 1) n.layer[l - 2].gradient_at = layer.inputs_at;
  }
  n.kept = at - n.kept_at;
  for (int l = 0; l < n.layers; ++l) choose_ways(n.layer[l], rows);
  n.layer[0].inputs_stride = quads(n.layer[0].inputs);
  buffer(n.layer[0].inputs_at, n.layer[0].inputs);
  n.features = at;
}

bool choose_threads(PerceptronPlan& plan, const DeviceLimits& device) {
  constexpr std::size_t of_a_block = 1024;  // taken by the system
  if (plan.shared_bytes > device.shared_limit ||
      plan.shared_bytes + of_a_block > device.shared_total) {
    return false;
  }
  const int resident =
      std::min(32, static_cast<int>(device.shared_total / (plan.shared_bytes + of_a_block)));
  // As many warps as have a tile each, but no more than keep a multiprocessor busy.
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
