// Small perceptrons under Gaussian weights: ABML's inner loop, outer loss and their adjoint in one
// launch (gaussian_perceptron.h).
//
// Mathematics   phi = mu + e^s eps at a sample; g its gradient, h the derivative of g along u
//               (perceptron_task.h); delta = e^s eps; scale, S and KL as gaussian_perceptron.h has
//               them; KL's derivatives are those of elementwise.cu.
//               inner step   g_mu = sum_samples g, g_s = sum_samples g delta (both scaled by 1 / S
//                            from the loss on); q <- q - rate (g + grad KL)
//               adjoint      d = rate v; u = d_mu + delta d_s; v_mu <- v_mu - (sum h + KL'' d),
//                            v_s <- v_s - (sum h delta + g_s d_s + KL'' d); steps K - 1 down to 0
//               gradient     v at step 0, plus what theta gets as the prior of both KLs
// Layout        One block works on one task at a time (persistent). Each of its teams, two where
//               there are two samples, has a sample of that task at once: phi and u (later g, or h,
//               in u's place), features and tangents, in shared memory. delta is not kept: it is
//               phi - mu, what phi was moved by. The task's own vectors (q and v at hand, sums over
//               samples, iterates, g_s of each step) lie in global memory, flat, for every block
//               (not task), which is memory that the second cache holds.
// Who does what Passes over weights: a thread takes a Philox quad of four elements for all teams,
//               adds up what the last round's samples left, and draws the next round's: noise is
//               drawn where it is used, again in the adjoint. A thread meets the same elements in
//               every pass: vectors in global memory need no barrier. In between each team makes a
//               pass of the network (perceptron_task.h). Samples are added in ascending order,
//               whatever the number of teams.
// Outputs       end and gradient overwritten; loss accumulated. A task that leaves the finite range
//               has numbers there that are not finite; the reduction masks it.
// Bytes, and operations (multiply-adds count two), per task, sinusoid 1-40-40-1, D = 1761, K = 5,
// S = 10 inside and outside, 10 + 10 rows, float:
//               operations     50 gradients of 0.100 M, 10 of both sets, 50 derivatives of 0.265 M:
//                              20.3 M; 110 x 1761 normals of some 65: 12.6 M, integer for the most
//               memory         gradient and end, 28 KB, once each
//               second cache   passes over weights: 33 vectors a step, 49 a step back: 3.1 MB
//               shared memory  a team has 26 KB, a block with two 56 KB: 4 on a multiprocessor
//               Floor 3.3 M tasks/s at 67 TFLOP/s; docs/kernels.md says what to expect.
#include "kernels/gaussian_perceptron.h"

#include <algorithm>

#include "kernels/perceptron_task.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

using namespace perceptron;

/// Elements of a Philox quad, 16 apart (kshot::noise_address, inverted).
constexpr int quad_elements = 4, quad_stride = 16;

__device__ inline int first_of_quad(int quad) {
  return (quad >> 4) * 64 + (quad & 15);
}

/// A quad's standard normals for one sample of task t.
template <class T>
__device__ __forceinline__ void draw_quad(const PerceptronNoise<T>& noise, int quad, int task,
                                          int step, int sample, int weights,
                                          T (&normals)[quad_elements]) {
  if (noise.given) {
    const T* given = noise.given + static_cast<std::size_t>(step) * noise.step_stride +
                     static_cast<std::size_t>(task) * noise.task_stride +
                     static_cast<std::size_t>(sample) * noise.sample_stride;
#pragma unroll
    for (int word = 0; word < quad_elements; ++word) {
      const int i = first_of_quad(quad) + quad_stride * word;
      normals[word] = i < weights ? given[i] : T(0);
    }
    return;
  }
  RandomKey key = noise.key;
  key.task += static_cast<std::uint32_t>(task);
  key.inner_step = static_cast<std::uint32_t>(step);
  key.sample = static_cast<std::uint32_t>(sample);
  const auto words = philox4x32(key.counter(static_cast<std::uint32_t>(quad)), key.key());
  const NormalPair low = box_muller(words[0], words[1]), high = box_muller(words[2], words[3]);
  normals[0] = static_cast<T>(low.cosine), normals[1] = static_cast<T>(low.sine);
  normals[2] = static_cast<T>(high.cosine), normals[3] = static_cast<T>(high.sine);
}

/// q and p at one weight, with KL's derivatives there (elementwise.cu has the formulas).
template <class T>
struct KlAt {
  T d, precision, ratio;

  __device__ KlAt(T mu, T s, T prior_mu, T prior_s)
      : d(mu - prior_mu), precision(exp(T(-2) * prior_s)), ratio(exp(T(2) * (s - prior_s))) {}
  __device__ T pull() const { return d * precision; }
};

/// A mean and a logarithm of a standard deviation, each a vector.
template <class T>
struct Both {
  T* mu;
  T* s;
};

/// What the block keeps of its task in global memory, where a thread reads what it wrote itself:
/// vectors of weights in the flat order.
template <class T>
struct Kept {
  T* first;
  std::size_t weights;

  __device__ T* vector(int number) const {
    return first + static_cast<std::size_t>(number) * weights;
  }
  __device__ Both<T> sums() const { return {vector(0), vector(1)}; }     ///< over samples
  __device__ Both<T> adjoint() const { return {vector(2), vector(3)}; }  ///< by q at hand
  __device__ Both<T> iterate(int k) const {                              ///< 0 < k < steps
    return {vector(2 + 2 * k), vector(3 + 2 * k)};
  }
  /// The likelihood's gradient by s at step k.
  __device__ T* by_s(int k, int steps) const { return vector(2 + 2 * (steps > 0 ? steps : 1) + k); }
};

template <class T>
__global__ void __launch_bounds__(most_threads, 1)
    gaussian_perceptron_kernel(const __grid_constant__ Perceptron network,
                               const __grid_constant__ GaussianDescent<T> descent, int tasks,
                               int teams, int kept_scalars) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int team_threads = threads / teams, number = thread / team_threads;
  const int stored = network.stored_weights, tangents = network.layer[0].inputs_at;
  const int width = network.weights, quads = (width + 63) / 64 * 16;

  DynamicShared shared;
  const auto take = [&](int count) {
    return reinterpret_cast<T*>(shared.take<Quad<T>>(static_cast<unsigned>(count / 4)));
  };
  // teams lie one behind the other
  const int losses = (network.rows + 3) / 4 * 4;
  const int of_team = team_scalars(network, 2);
  T* const first_team = take(of_team * teams);
  T* const warp_sums = take(most_threads / warp_lanes);
  auto* const place = shared.take<std::uint16_t>(static_cast<unsigned>(width));
  Task<T> task{network, {thread - number * team_threads, team_threads}, {}};
  Memory<T>& memory = task.memory;
  memory.w = first_team + number * of_team;
  memory.u = memory.w + stored + overrun;
  memory.v = memory.u;
  memory.feature = memory.u + stored + overrun;
  memory.tangent = memory.feature + network.features + overrun;
  memory.row_loss = memory.tangent + tangents + overrun;
  for (int i = thread; i < of_team * teams; i += threads) first_team[i] = T(0);
  // where an element of the flat order lies in a vector of the block's memory
  each_weight({thread, threads}, network,
              [&](int at, int i) { place[i] = static_cast<std::uint16_t>(at); });
  __syncthreads();

  const auto weights = static_cast<std::size_t>(width);
  const int steps = descent.steps;
  const bool back = descent.second_order;

  for (int t = static_cast<int>(blockIdx.x); t < tasks; t += static_cast<int>(gridDim.x)) {
#pragma unroll 1
    for (int pass = 0; pass <= (back ? 2 * steps : steps); ++pass) {
      const bool down = pass<steps, outer = pass == steps, adjoint = pass> steps;
      const int samples = outer ? descent.outer_samples : descent.samples;
      if (outer) {
        for (int r = task.team.thread; r < losses; r += team_threads) memory.row_loss[r] = T(0);
      }
#pragma unroll 1
      for (int round = 0;; ++round) {
        // Element by element: what the last round's samples left is added up, and this round's are
        // drawn. What it takes for that is found here, so that it does not stay in registers.
        const bool draws = round * teams < samples;
        const std::size_t row = static_cast<std::size_t>(t) * weights;
        const Both<T> end = {descent.end_mu + row, descent.end_s + row};
        const Both<T> gradient = {descent.gradient_mu + row, descent.gradient_s + row};
        const Kept<T> kept{descent.scratch + static_cast<std::size_t>(blockIdx.x) *
                                                 static_cast<std::size_t>(kept_scalars),
                           weights};
        const int k = adjoint ? 2 * steps - pass : pass;
        const PerceptronNoise<T>& noise = outer ? descent.outer_noise : descent.noise;
        const T kl = scale_of(outer ? descent.outer_kl : descent.kl, t);
        const RateArgument<T> rate = descent.rates[lesser(k, descent.rate_count - 1)];
        Both<const T> state = {descent.mu, descent.s};
        if (k > 0) {
          const Both<T> at = k == steps ? end : kept.iterate(k);
          state = {at.mu, at.s};
        }

        T divergence = 0;  // of this thread's weights
        /// What is left of a pass when all samples' gradients are added up.
        const auto finish = [&](int i, T mu, T s, T d_mu, T d_s, T sum_mu, T sum_s) {
          T by_mu = sum_mu, by_s = sum_s, path_mu = 0, path_s = 0;
          if (kl != T(0)) {
            const KlAt<T> at(mu, s, descent.mu[i], descent.s[i]);
            if (adjoint) {
              const T along_mu = kl * at.precision * d_mu, along_s = kl * T(2) * at.ratio * d_s;
              by_mu += along_mu;
              by_s += along_s;
              if (descent.prior_path) {
                path_mu = along_mu;
                path_s = T(2) * at.d * along_mu + along_s;
              }
            } else {
              by_mu += kl * at.pull();
              by_s += kl * (at.ratio - T(1));
              if (outer) {
                const T square = at.d * at.pull();
                path_mu = -kl * at.pull();
                path_s = kl * (T(1) - at.ratio - square);
                divergence += descent.s[i] - s + T(0.5) * (at.ratio + square - T(1));
              }
            }
          }
          const Both<T> v = kept.adjoint();
          if (down) {
            const T step = rate.vector ? rate.vector[i] : rate.value;
            const Both<T> next = k + 1 == steps ? end : kept.iterate(k + 1);
            next.mu[i] = mu - step * by_mu;
            next.s[i] = s - step * by_s;
            if (back) kept.by_s(k, steps)[i] = sum_s;
          } else if (outer) {
            v.mu[i] = by_mu;
            v.s[i] = by_s;
            gradient.mu[i] = by_mu + path_mu;
            gradient.s[i] = by_s + path_s;
            if (steps == 0) {
              end.mu[i] = mu;
              end.s[i] = s;
            }
          } else {
            by_s += kept.by_s(k, steps)[i] * d_s;
            v.mu[i] -= by_mu;
            v.s[i] -= by_s;
            gradient.mu[i] += path_mu - by_mu;
            gradient.s[i] += path_s - by_s;
          }
        };

        const int left = round == 0 ? 0 : lesser(teams, samples - (round - 1) * teams);
        const Both<T> sums = kept.sums();
#pragma unroll 1
        for (int quad = thread; quad < quads; quad += threads) {
          const int first = first_of_quad(quad);
          T mu[quad_elements] = {}, s[quad_elements] = {}, d_mu[quad_elements] = {},
            d_s[quad_elements] = {}, sum_mu[quad_elements] = {}, sum_s[quad_elements] = {};
          int at[quad_elements];
#pragma unroll
          for (int word = 0; word < quad_elements; ++word) {
            const int i = first + quad_stride * word;
            at[word] = -1;
            if (i >= width) continue;
            at[word] = place[i];
            mu[word] = state.mu[i];
            s[word] = state.s[i];
            if (adjoint) {
              const T step = rate.vector ? rate.vector[i] : rate.value;
              d_mu[word] = step * kept.adjoint().mu[i];
              d_s[word] = step * kept.adjoint().s[i];
            }
            if (round > 1) {
              sum_mu[word] = sums.mu[i];
              sum_s[word] = sums.s[i];
            }
          }
#pragma unroll 1
          for (int n = 0; n < left; ++n) {
            const T* const phi = first_team + n * of_team;
            const T* const g = phi + stored + overrun;
#pragma unroll
            for (int word = 0; word < quad_elements; ++word) {
              if (at[word] < 0) continue;
              const T by = g[at[word]];
              sum_mu[word] += by;
              sum_s[word] += by * (phi[at[word]] - mu[word]);
            }
          }
          if (!draws) {
#pragma unroll
            for (int word = 0; word < quad_elements; ++word) {
              if (at[word] < 0) continue;
              finish(first + quad_stride * word, mu[word], s[word], d_mu[word], d_s[word],
                     sum_mu[word], sum_s[word]);
            }
            continue;
          }
#pragma unroll
          for (int word = 0; word < quad_elements; ++word) {
            const int i = first + quad_stride * word;
            if (round > 0 && at[word] >= 0) {
              sums.mu[i] = sum_mu[word];
              sums.s[i] = sum_s[word];
            }
            s[word] = exp(s[word]);
          }
#pragma unroll 1
          for (int n = 0; n < teams && round * teams + n < samples; ++n) {
            T normals[quad_elements];
            draw_quad(noise, quad, t, outer ? 0 : k, round * teams + n, width, normals);
            T* const phi = first_team + n * of_team;
            T* const u = phi + stored + overrun;
#pragma unroll
            for (int word = 0; word < quad_elements; ++word) {
              if (at[word] < 0) continue;
              const T moved = s[word] * normals[word];
              phi[at[word]] = mu[word] + moved;
              if (adjoint) u[at[word]] = d_mu[word] + moved * d_s[word];
            }
          }
        }
        if (!draws) {
          if (outer && descent.loss) {
            const T sum = warp_sum(divergence);
            if (thread % warp_lanes == 0) warp_sums[thread / warp_lanes] = sum;
            __syncthreads();
            if (thread == 0) {
              T rows = 0, total = 0;
              for (int n = 0; n < teams; ++n) {
                const T* row_loss = memory.row_loss + n * of_team;
                for (int r = 0; r < network.rows; ++r) rows += row_loss[r];
              }
              for (int w = 0; w < threads / warp_lanes; ++w) total += warp_sums[w];
              descent.loss[t] += scale_of(descent.outer.scale, t) / static_cast<T>(samples) * rows;
              if (kl != T(0)) descent.loss[t] += kl * total;
            }
          }
          break;
        }
        const int sets = outer && descent.two_sets ? 2 : 1;
        const bool live = round * teams + number < samples;  // else the team idles along
        if (adjoint) {
          task.load_rows(descent.inner, t);
          if (!live) task.rows = 0;
          __syncthreads();
          const T scale = scale_of(descent.inner.scale, t) / static_cast<T>(samples);
          task.derivative(descent.inner, t, scale, [&](const PerceptronLayer& layer, bool first) {
            if (first) {
              task.template weight_gradient<Use::keep_dot, first_dot>(layer, memory.u, T(0),
                                                                      nullptr);
            } else {
              task.template weight_gradient<Use::keep_dot, both_dots>(layer, memory.u, T(0),
                                                                      nullptr);
            }
          });
          continue;
        }
#pragma unroll 1
        for (int which = 0; which < sets; ++which) {
          const PerceptronRows<T>& set = which > 0 ? descent.second
                                         : outer   ? descent.outer
                                                   : descent.inner;
          task.load_rows(set, t);
          if (!live) task.rows = 0;
          __syncthreads();
          const T scale = scale_of(set.scale, t) / static_cast<T>(samples);
          task.gradient(set, t, scale, [&](const PerceptronLayer& layer, bool) {
            if (which > 0) {
              task.template weight_gradient<Use::add, values>(layer, memory.u, T(0), nullptr);
            } else {
              task.template weight_gradient<Use::keep, values>(layer, memory.u, T(0), nullptr);
            }
          });
        }
      }
      // what teams kept of the pass is read; a thread's own vectors need no barrier
      __syncthreads();
    }
  }
}

std::size_t kept_scalars_of(const Perceptron& network, int steps) {
  return static_cast<std::size_t>(network.weights) *
         static_cast<std::size_t>(2 + 2 * std::max(steps, 1) + steps);
}

}  // namespace

std::size_t gaussian_scratch(const PerceptronPlan& plan, int tasks, int steps) {
  return static_cast<std::size_t>(std::min(tasks, plan.blocks)) *
         kept_scalars_of(plan.network, steps);
}

template <class T>
bool plan_gaussian_perceptron(PerceptronPlan& plan, const Perceptron& network, int rows,
                              int samples, const DeviceLimits& device) {
  plan.network = network;
  lay_out(plan.network, rows);
  if (plan.network.stored_weights > 0xffff) return false;  // places are 16 bits
  // Two samples at once share what is read of their task, and its memory on the device; more of
  // them would leave teams idle in the last round more often.
  for (int teams = std::min(samples, 2); teams > 0; --teams) {
    plan.teams = teams;
    plan.shared_bytes = static_cast<std::size_t>(team_scalars(plan.network, 2) * teams +
                                                 most_threads / warp_lanes) *
                            sizeof(T) +
                        static_cast<std::size_t>(network.weights) * sizeof(std::uint16_t);
    if (choose_threads(plan, device)) return true;
  }
  return false;
}

template <class T>
void gaussian_perceptron_descent(const PerceptronPlan& plan, const GaussianDescent<T>& descent,
                                 int tasks, cudaStream_t stream) {
  if (tasks == 0) return;
  launch<gaussian_perceptron_kernel<T>>(
      {.grid = static_cast<unsigned>(std::min(tasks, plan.blocks)),
       .block = static_cast<unsigned>(plan.threads),
       .shared_bytes = plan.shared_bytes,
       .stream = stream},
      plan.network, descent, tasks, plan.teams,
      static_cast<int>(kept_scalars_of(plan.network, descent.steps)));
}

#define KSHOT_INSTANTIATE(T)                                                                       \
  template bool plan_gaussian_perceptron<T>(PerceptronPlan&, const Perceptron&, int, int,          \
                                            const DeviceLimits&);                                  \
  template void gaussian_perceptron_descent(const PerceptronPlan&, const GaussianDescent<T>&, int, \
                                            cudaStream_t)
KSHOT_INSTANTIATE(float);
KSHOT_INSTANTIATE(double);
#undef KSHOT_INSTANTIATE

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
