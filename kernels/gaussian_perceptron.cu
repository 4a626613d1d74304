// Small perceptrons under Gaussian weights: ABML's inner loop, outer loss and their adjoint in one
// launch (gaussian_perceptron.h). The file is long because it holds one kernel, all of its phases.
//
// Mathematics    phi = mu + e^s eps at a sample; g is its gradient, and h the derivative of g along
//                u (perceptron_task.h); delta = e^s eps. scale, S and KL are as in
//                gaussian_perceptron.h, and the derivatives of KL as in elementwise.cu.
//                  inner step   g_mu = sum_samples g, g_s = e^s sum_samples g eps (the scale of the
//                               loss includes 1 / S); q <- q - rate (g + grad KL)
//                  adjoint      d = rate v; u = d_mu + delta d_s; v_mu <- v_mu - (sum h + KL'' d),
//                               v_s <- v_s - (e^s sum h eps + g_s d_s + KL'' d);
//                               steps K - 1 down to 0
//                  gradient     v at step 0, plus the gradients by theta as the prior of both KLs
//                eps itself is kept, for the sums over samples and for the adjoint. phi - mu would
//                have lost it where e^s is small compared with mu.
// Layout         One block works on one task at a time (persistent). Each of its teams (two if
//                there are at least two samples) works on one sample of that task at the same time.
//                phi and u (later g or h, in u's place), features and tangents lie in shared
//                memory. The task's own vectors lie in global memory, which is allocated per block,
//                not per task: q of all steps with e^s, v, sums over samples, g_s of each step, and
//                eps of all inner samples. The four elements of a Philox quad are neighbours. 32
//                consecutive quads form a run, which one warp takes. All vectors of a run follow
//                one another, so that a vector is 16 bytes per thread at a fixed distance. The
//                activations of all inner samples follow the vectors.
// Who does what  Passes over weights: a thread takes a quad for all teams, adds what the samples of
//                the last round left, and draws the noise of the next round (normal.h) or, in the
//                adjoint, reads it. After the last sample it takes the step. A thread takes the
//                same elements in every pass, so that vectors in global memory need no barrier.
//                Between these passes each team computes a pass of the network (perceptron_task.h).
//                Samples are added in ascending order for any number of teams.
// Outputs        end and gradient are overwritten; loss is accumulated. A task that leaves the
//                finite range has numbers in them that are not finite. The reduction leaves such a
//                task out.
// Bytes          Bytes and operations (a multiply-add counts as two) per task, for the sinusoid
//                network 1-40-40-1, D = 1761, K = 5, S = 10 inside and outside, 10 + 10 rows,
//                float:
//                  operations     50 gradients of 0.100 M, 10 of both sets, 50 derivatives of
//                                 0.198 M: 16.9 M; 60 x 1761 normals of about 37: 3.9 M, of which a
//                                 quarter are integer operations
//                  memory         gradient and end, 28 KB, once each; eps and activations of 50
//                                 samples, 530 KB, written and read
//                  second cache   passes over weights: 36 vectors per step, 53 per adjoint step:
//                                 3.5 MB; eps 1.6 MB, activations 0.3 MB
//                  shared memory  26 KB per team, 56 KB per block of two: 4 on a multiprocessor
//                The floor is 4.0 M tasks/s at 67 TFLOP/s. docs/kernels.md says what to expect.
#include "kernels/gaussian_perceptron.h"

#include <algorithm>
#include <type_traits>

#include "kernels/normal.h"
#include "kernels/perceptron_task.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

using namespace perceptron;

/// The elements of a Philox quad are 16 apart (inverse of kshot::noise_address).
constexpr int quad_elements = 4, quad_stride = 16;
/// The largest number of samples that a block computes at the same time.
constexpr int most_teams = 2;

/// Number of runs of 32 quads. A warp takes a run at a time. The last run may have elements that do
/// not exist.
constexpr int runs_of(int weights) {
  return (weights + quad_elements * warp_lanes - 1) / (quad_elements * warp_lanes);
}
__device__ inline int first_of_quad(int quad) {
  return (quad >> 4) * 64 + (quad & 15);
}
/// Number of elements of a quad that exist. They are the first ones.
__device__ inline int elements_of_quad(int quad, int weights) {
  return (weights - first_of_quad(quad) + quad_stride - 1) >> 4;
}

/// A quad's elements of a vector in the flat order. Elements that do not exist are 0.
template <class T>
__device__ __forceinline__ Quad<T> flat_quad(const T* from, int quad, int weights) {
  Quad<T> x = {};
#pragma unroll
  for (int word = 0; word < quad_elements; ++word) {
    if (word < elements_of_quad(quad, weights)) {
      x.v[word] = from[first_of_quad(quad) + quad_stride * word];
    }
  }
  return x;
}
template <class T>
__device__ __forceinline__ void put_flat(T* to, int quad, int weights, const Quad<T>& x) {
#pragma unroll
  for (int word = 0; word < quad_elements; ++word) {
    if (word < elements_of_quad(quad, weights)) {
      to[first_of_quad(quad) + quad_stride * word] = x.v[word];
    }
  }
}

/// The noise of a pass for task t.
template <class T>
struct Noise {
  std::uint32_t task, step, purpose;  ///< words of Philox's counter
  const T* given;
  std::size_t sample_stride;

  __device__ Noise(const PerceptronNoise<T>& noise, int t, int k) {
    const RandomKey& key = noise.key;
    const auto counter = key.counter(0);
    task = counter[2] + static_cast<std::uint32_t>(t);
    step = static_cast<std::uint32_t>(k) << 16;
    purpose = counter[3];
    given = noise.given;
    sample_stride = noise.sample_stride;
    if (given) {
      given += static_cast<std::size_t>(k) * noise.step_stride +
               static_cast<std::size_t>(t) * noise.task_stride;
    }
  }

  __device__ Quad<T> read(int quad, int sample, int weights) const {
    return flat_quad(given + static_cast<std::size_t>(sample) * sample_stride, quad, weights);
  }
  /// Draws a quad's standard normals of `samples` samples, of which `sample` is the first.
  template <int samples>
  __device__ __forceinline__ void draw(const PhiloxKeys& keys, int quad, int sample,
                                       Quad<T> (&normals)[most_teams]) const {
#pragma unroll
    for (int n = 0; n < samples; ++n) {
      const PhiloxWords words =
          philox_words({static_cast<std::uint32_t>(quad),
                        step | (static_cast<std::uint32_t>(sample + n) & 0xffffu), task, purpose},
                       keys);
      const NormalPair low = normal_pair(words.a, words.b), high = normal_pair(words.c, words.d);
      normals[n] = {static_cast<T>(low.cosine), static_cast<T>(low.sine),
                    static_cast<T>(high.cosine), static_cast<T>(high.sine)};
    }
  }
};

/// What the block keeps of its task in global memory: vectors of weights, which a thread reads only
/// where it wrote them itself. A quad's elements are neighbours, including those that do not exist.
/// Within a run of quads the vectors follow one another.
template <class T>
struct Kept {
  Quad<T>* first;  ///< first vector of the current quad
  int steps;

  static constexpr int of_task = 7, of_state = 3;
  /// Number of vectors for `steps` steps and the noise of `samples` samples.
  static constexpr int vectors(int steps, int samples) {
    return of_task + of_state * (steps + 1) + steps + samples;
  }
  __device__ Quad<T>& vector(int number) const { return first[number * warp_lanes]; }
  __device__ Quad<T>& sum_mu() const { return vector(0); }  ///< sums over samples
  __device__ Quad<T>& sum_s() const { return vector(1); }
  __device__ Quad<T>& v_mu() const { return vector(2); }  ///< adjoint: gradient by the current q
  __device__ Quad<T>& v_s() const { return vector(3); }
  /// gradient by theta as the prior of both KLs
  __device__ Quad<T>& path_mu() const { return vector(4); }
  __device__ Quad<T>& path_s() const { return vector(5); }
  __device__ Quad<T>& prior_precision() const { return vector(6); }
  /// q_k and its standard deviation. q_0 is theta.
  __device__ Quad<T>& mu(int k) const { return vector(of_task + of_state * k); }
  __device__ Quad<T>& s(int k) const { return vector(of_task + of_state * k + 1); }
  __device__ Quad<T>& sigma(int k) const { return vector(of_task + of_state * k + 2); }
  /// The gradient of the likelihood by s at step k.
  __device__ Quad<T>& by_s(int k) const { return vector(of_task + of_state * (steps + 1) + k); }
  /// The noise of samples from `sample` on.
  __device__ Quad<T>* noise(int sample) const {
    return &vector(of_task + of_state * (steps + 1) + steps + sample);
  }
};

/// The offsets of a quad's elements in a vector of the block's memory.
struct alignas(8) Places {
  std::uint16_t at[quad_elements];
};

/// One round of a pass. It covers the teams' samples, whose noise is drawn and whose gradients are
/// computed now, and the samples of the last round, which are added up. One additional round draws
/// nothing and ends the pass. The members are computed again in every round, so that they do not
/// stay in registers.
template <class T>
struct Round {
  int task, k;  ///< k is the inner step, or `steps` in the outer pass
  int number;   ///< number of the round, from 0
  bool down, outer, up;
  int samples;
  int drawn, left;              ///< samples of this round and of the last one, at most one per team
  int noise_now, noise_before;  ///< where their noise is kept (Kept::noise)
  Noise<T> noise;
  T kl;
  RateArgument<T> rate;

  __device__ Round(const GaussianDescent<T>& descent, int t, int pass, int round, int teams)
      : task(t),
        k(pass > descent.steps ? 2 * descent.steps - pass : pass),
        number(round),
        down(pass < descent.steps),
        outer(pass == descent.steps),
        up(pass > descent.steps),
        samples(outer ? descent.outer_samples : descent.samples),
        drawn(lesser(teams, samples - round * teams)),
        left(round == 0 ? 0 : lesser(teams, samples - (round - 1) * teams)),
        noise(outer ? descent.outer_noise : descent.noise, t, outer ? 0 : k),
        kl(scale_of(outer ? descent.outer_kl : descent.kl, t)),
        rate(descent.rates[lesser(k, descent.rate_count - 1)]) {
    const bool keeps = descent.second_order && !outer;
    noise_now = keeps ? teams + k * samples + round * teams : 0;
    noise_before = keeps ? noise_now - teams : 0;
  }
  __device__ bool draws() const { return drawn > 0; }
  __device__ Quad<T> rates(int quad, int width) const {
    if (rate.vector) return flat_quad(rate.vector, quad, width);
    return Quad<T>{rate.value, rate.value, rate.value, rate.value};
  }
};

/// A quad of q, of the sums over samples, and in the adjoint of the direction d.
template <class T>
struct State {
  Quad<T> mu, sigma, d_mu, d_s, sum_mu, sum_s;
};

/// Gradients by q, and by theta as the prior of a KL.
template <class T>
struct Derivatives {
  Quad<T> mu, s, path_mu, path_s;
};

/// A block and its memory, and a thread's place in it.
template <class T>
struct Block {
  const Perceptron& network;
  const GaussianDescent<T>& descent;
  const PhiloxKeys& keys;
  int thread, threads, teams, team;
  int width, quads, of_team;
  T* first_team;
  T* warp_sums;
  Places* places;
  int kept_vectors;
  std::size_t of_block;
  Kept<T> kept;
  Task<T> task;
  T divergence;  ///< KL of this thread's weights, times its factor

  __device__ Block(const Perceptron& n, const GaussianDescent<T>& d, const PhiloxKeys& k, int of,
                   int vectors, std::size_t scalars)
      : network(n),
        descent(d),
        keys(k),
        thread(static_cast<int>(threadIdx.x)),
        threads(static_cast<int>(blockDim.x)),
        teams(of),
        team(thread / (threads / teams)),
        width(n.weights),
        quads(runs_of(width) * warp_lanes),
        of_team(team_scalars(n, 2)),
        kept_vectors(vectors),
        of_block(scalars),
        kept{nullptr, d.steps},
        task{n, {thread - team * (threads / teams), threads / teams}, {}},
        divergence(0) {
    DynamicShared shared;
    const auto take = [&](int count) {
      return reinterpret_cast<T*>(shared.take<Quad<T>>(static_cast<unsigned>(count / 4)));
    };
    first_team = take(of_team * teams);  // the teams' memory is contiguous
    warp_sums = take(most_threads / warp_lanes);
    places = shared.take<Places>(static_cast<unsigned>(quads));
  }

  // ---- addresses in global memory: computed anew, so that they do not stay in registers ----

  __device__ T* memory() const {
    return descent.scratch + static_cast<std::size_t>(blockIdx.x) * of_block;
  }
  /// The distance from one run of quads to the next.
  __device__ std::ptrdiff_t run_quads() const {
    return static_cast<std::ptrdiff_t>(kept_vectors) * warp_lanes;
  }
  /// The first quad of this thread.
  __device__ Quad<T>* first_quad() const {
    return reinterpret_cast<Quad<T>*>(memory()) + thread / warp_lanes * run_quads() +
           thread % warp_lanes;
  }
  /// The distance from one quad of a thread to its next.
  __device__ std::ptrdiff_t next_quad() const { return run_quads() * (threads / warp_lanes); }
  /// The activations that gradients keep of their samples. They follow the vectors.
  __device__ T* first_activation() const {
    return memory() + runs_of(width) * run_quads() * quad_elements;
  }

  /// The distance from an element of phi to that of u, g and h.
  __device__ int u_offset() const { return network.stored_weights + overrun; }

  /// Sets the team's memory, and the offset of each weight of a quad in it.
  __device__ __forceinline__ void lay_out_memory() {
    const int stored = network.stored_weights;
    Memory<T>& memory = task.memory;
    memory.w = first_team + team * of_team;
    memory.u = memory.w + u_offset();
    memory.v = memory.u;
    memory.feature = memory.u + u_offset();
    memory.tangent = memory.feature + network.features + overrun;
    memory.row_loss = memory.tangent + network.layer[0].inputs_offset + overrun;
    for (int i = thread; i < of_team * teams; i += threads) first_team[i] = T(0);
    const auto put_place = [&](int at, int i) {
      places[(i >> 6) * 16 + (i & 15)].at[(i >> 4) & 3] = static_cast<std::uint16_t>(at);
    };
    each_weight({thread, threads}, network, put_place);
    // Elements that do not exist go behind the vector, to a word that no other thread uses.
    for (int i = width + thread; i < quads * quad_elements; i += threads) {
      put_place(stored + (((i >> 6) & 1) * 16 + (i & 15)), i);
    }
  }

  /// q_0 = theta.
  __device__ __forceinline__ void load_start() {
    kept.first = first_quad();
    for (int quad = thread; quad < quads; quad += threads, kept.first += next_quad()) {
      const Quad<T> s = flat_quad(descent.s, quad, width);
      Quad<T> sigma, precision;
#pragma unroll
      for (int word = 0; word < quad_elements; ++word) {
        sigma.v[word] = exp(s.v[word]);
        precision.v[word] = exp(T(-2) * s.v[word]);
      }
      kept.mu(0) = flat_quad(descent.mu, quad, width);
      kept.s(0) = s;
      kept.sigma(0) = sigma;
      kept.prior_precision() = precision;
    }
  }

  // ---- the end of a pass, for one quad ----

  /// Adds the KL's derivatives, or, in the adjoint, their derivatives along d.
  template <bool adjoint>
  __device__ __forceinline__ void add_kl(const Round<T>& round, int quad, const State<T>& at,
                                         const Quad<T>& s, Derivatives<T>& by) {
    const Quad<T> prior_mu = kept.mu(0), prior_s = kept.s(0);
    const Quad<T> precision = kept.prior_precision();
    const int elements = !adjoint && round.outer ? elements_of_quad(quad, width) : 0;
#pragma unroll
    for (int word = 0; word < quad_elements; ++word) {
      const T d = at.mu.v[word] - prior_mu.v[word];
      const T pull = round.kl * precision.v[word];  // to be multiplied by d, or by the change of d
      const T apart = s.v[word] - prior_s.v[word];
      const T ratio = exp(T(2) * apart);
      if constexpr (adjoint) {
        const T along_mu = pull * at.d_mu.v[word];
        const T along_s = round.kl * T(2) * ratio * at.d_s.v[word];
        by.mu.v[word] += along_mu;
        by.s.v[word] += along_s;
        if (!descent.prior_path) continue;
        by.path_mu.v[word] = along_mu;
        by.path_s.v[word] = T(2) * d * along_mu + along_s;
      } else {
        const T along = pull * d, grown = ratio - T(1);
        by.mu.v[word] += along;
        by.s.v[word] += round.kl * grown;
        by.path_mu.v[word] = -along;
        by.path_s.v[word] = -round.kl * grown - along * d;
        if (word < elements) {
          divergence += T(0.5) * (round.kl * grown + along * d) - round.kl * apart;
        }
      }
    }
  }

  /// Computes q_{k+1}.
  __device__ __forceinline__ void step(const Round<T>& round, int quad, const Quad<T>& mu,
                                       const Quad<T>& s, const Derivatives<T>& by) {
    const Quad<T> rate = round.rates(quad, width);
    Quad<T> next_mu, next_s, next_sigma;
#pragma unroll
    for (int word = 0; word < quad_elements; ++word) {
      next_mu.v[word] = mu.v[word] - rate.v[word] * by.mu.v[word];
      next_s.v[word] = s.v[word] - rate.v[word] * by.s.v[word];
      next_sigma.v[word] = exp(next_s.v[word]);
    }
    kept.mu(round.k + 1) = next_mu;
    kept.s(round.k + 1) = next_s;
    kept.sigma(round.k + 1) = next_sigma;
  }

  /// Ends a pass after the gradients of all samples are added up: takes the step, or the step of
  /// the adjoint.
  template <bool adjoint>
  __device__ __forceinline__ void finish(const Round<T>& round, int quad, const State<T>& at) {
    const bool back = descent.second_order;
    const std::size_t row = static_cast<std::size_t>(round.task) * static_cast<std::size_t>(width);
    const Quad<T> s = kept.s(round.k);
    Derivatives<T> by = {at.sum_mu, {}, {}, {}};
#pragma unroll
    for (int word = 0; word < quad_elements; ++word) {
      by.s.v[word] = at.sigma.v[word] * at.sum_s.v[word];
    }
    if (!adjoint && round.down && back) kept.by_s(round.k) = by.s;
    if (round.kl != T(0)) add_kl<adjoint>(round, quad, at, s, by);
    if (!adjoint && round.down) return step(round, quad, at.mu, s, by);
    if constexpr (adjoint) {
      const Quad<T> v_mu = kept.v_mu(), v_s = kept.v_s(), at_k = kept.by_s(round.k);
      const Quad<T> by_prior_mu = kept.path_mu(), by_prior_s = kept.path_s();
#pragma unroll
      for (int word = 0; word < quad_elements; ++word) {
        by.mu.v[word] = v_mu.v[word] - by.mu.v[word];
        by.s.v[word] = v_s.v[word] - (by.s.v[word] + at_k.v[word] * at.d_s.v[word]);
        by.path_mu.v[word] += by_prior_mu.v[word];
        by.path_s.v[word] += by_prior_s.v[word];
      }
    } else {
      put_flat(descent.end_mu + row, quad, width, at.mu);
      put_flat(descent.end_s + row, quad, width, s);
    }
    if (back && round.k > 0) {
      kept.v_mu() = by.mu;
      kept.v_s() = by.s;
      kept.path_mu() = by.path_mu;
      kept.path_s() = by.path_s;
      return;
    }
#pragma unroll
    for (int word = 0; word < quad_elements; ++word) {
      by.path_mu.v[word] += by.mu.v[word];
      by.path_s.v[word] += by.s.v[word];
    }
    put_flat(descent.gradient_mu + row, quad, width, by.path_mu);
    put_flat(descent.gradient_s + row, quad, width, by.path_s);
  }

  // ---- a pass over weights, one quad per thread ----

  /// Takes the noise of this round's samples. The adjoint reads the kept noise. The other passes
  /// draw it (or read the given noise) and keep it.
  template <bool adjoint>
  __device__ __forceinline__ void take_noise(const Round<T>& round, int quad,
                                             Quad<T> (&normals)[most_teams]) {
    Quad<T>* const now = kept.noise(round.noise_now);
    if constexpr (adjoint) {
#pragma unroll
      for (int n = 0; n < most_teams; ++n) {
        if (n < round.drawn) normals[n] = now[n * warp_lanes];
      }
    } else if (round.draws()) {
      const int sample = round.number * teams;
      if (round.noise.given) {
        normals[0] = round.noise.read(quad, sample, width);
        if (round.drawn > 1) normals[1] = round.noise.read(quad, sample + 1, width);
      } else if (round.drawn > 1) {
        round.noise.template draw<2>(keys, quad, sample, normals);
      } else {
        round.noise.template draw<1>(keys, quad, sample, normals);
      }
      now[0] = normals[0];
      if (round.drawn > 1) now[warp_lanes] = normals[1];
    }
  }

  /// Adds what the samples of the last round left in the place of g.
  __device__ __forceinline__ void add_samples(const Round<T>& round, const Places& at,
                                              const Quad<T> (&normals)[most_teams],
                                              State<T>& state) {
#pragma unroll
    for (int n = 0; n < most_teams; ++n) {
      if (n >= round.left) continue;
#pragma unroll
      for (int word = 0; word < quad_elements; ++word) {
        const T g = first_team[at.at[word] + u_offset() + n * of_team];
        state.sum_mu.v[word] += g;
        state.sum_s.v[word] += g * normals[n].v[word];
      }
    }
  }

  /// Writes phi of this round's samples, and in the adjoint u, to the teams' memory.
  template <bool adjoint>
  __device__ __forceinline__ void put_samples(const Round<T>& round, const Places& at,
                                              const Quad<T> (&normals)[most_teams],
                                              State<T>& state) {
    if constexpr (adjoint) {
#pragma unroll
      for (int word = 0; word < quad_elements; ++word) state.d_s.v[word] *= state.sigma.v[word];
    }
#pragma unroll
    for (int n = 0; n < most_teams; ++n) {
      if (n >= round.drawn) continue;
#pragma unroll
      for (int word = 0; word < quad_elements; ++word) {
        const T eps = normals[n].v[word];
        first_team[at.at[word] + n * of_team] = state.mu.v[word] + state.sigma.v[word] * eps;
        if constexpr (adjoint) {
          first_team[at.at[word] + u_offset() + n * of_team] =
              state.d_mu.v[word] + state.d_s.v[word] * eps;
        }
      }
    }
  }

  template <bool adjoint>
  __device__ __forceinline__ void pass_over_weights(const Round<T>& round) {
    kept.first = first_quad();
#pragma unroll 1
    for (int quad = thread; quad < quads; quad += threads, kept.first += next_quad()) {
      State<T> state = {kept.mu(round.k), kept.sigma(round.k), {}, {}, {}, {}};
      Quad<T> normals[most_teams] = {}, left_normals[most_teams] = {};
      const Places at = places[quad];  // offsets in the memory of the first team
      if constexpr (adjoint) {
        const Quad<T> rate = round.rates(quad, width), v_mu = kept.v_mu(), v_s = kept.v_s();
#pragma unroll
        for (int word = 0; word < quad_elements; ++word) {
          state.d_mu.v[word] = rate.v[word] * v_mu.v[word];
          state.d_s.v[word] = rate.v[word] * v_s.v[word];
        }
      }
      if (round.number > 1) {
        state.sum_mu = kept.sum_mu();
        state.sum_s = kept.sum_s();
      }
#pragma unroll
      for (int n = 0; n < most_teams; ++n) {
        if (n < round.left) left_normals[n] = kept.noise(round.noise_before)[n * warp_lanes];
      }
      take_noise<adjoint>(round, quad, normals);
      add_samples(round, at, left_normals, state);
      if (!round.draws()) {
        finish<adjoint>(round, quad, state);
        continue;
      }
      if (round.number > 0) {
        kept.sum_mu() = state.sum_mu;
        kept.sum_s() = state.sum_s;
      }
      put_samples<adjoint>(round, at, normals, state);
    }
  }

  // ---- passes of the network, one sample per team ----

  /// Adds the losses of the rows of all samples, and the KL, in a fixed order.
  __device__ __forceinline__ void add_loss(const Round<T>& round) {
    const T sum = warp_sum(divergence);
    if (thread % warp_lanes == 0) warp_sums[thread / warp_lanes] = sum;
    __syncthreads();
    if (thread != 0) return;
    T rows = 0, total = 0;
    for (int n = 0; n < teams; ++n) {
      const T* row_loss = task.memory.row_loss + n * of_team;
      for (int r = 0; r < network.rows; ++r) rows += row_loss[r];
    }
    for (int w = 0; w < threads / warp_lanes; ++w) total += warp_sums[w];
    descent.loss[round.task] +=
        scale_of(descent.outer.scale, round.task) / static_cast<T>(round.samples) * rows;
    descent.loss[round.task] += total;
  }

  /// Computes h, the derivative of the sample's gradient along u, in u's place.
  __device__ __forceinline__ void differentiate(const Round<T>& round, const T* activations,
                                                bool live) {
    task.load_rows(descent.inner, round.task);
    copy_quads(task.team, task.memory.feature + network.kept_offset, activations, network.kept);
    if (!live) task.rows = 0;
    __syncthreads();
    const T scale = scale_of(descent.inner.scale, round.task) / static_cast<T>(round.samples);
    task.derivative(
        descent.inner, round.task, scale,
        [&](const PerceptronLayer& layer, bool first) {
          if (first) {
            task.template weight_gradient<Use::keep_dot, first_dot>(layer, task.memory.u, T(0),
                                                                    nullptr);
          } else {
            task.template weight_gradient<Use::keep_dot, both_dots>(layer, task.memory.u, T(0),
                                                                    nullptr);
          }
        },
        true);
  }

  /// Computes g, the sample's gradient, over both sets if the outer loss has two.
  __device__ __forceinline__ void take_gradient(const Round<T>& round, T* activations, bool live) {
    const int sets = round.outer && descent.two_sets ? 2 : 1;
#pragma unroll 1
    for (int which = 0; which < sets; ++which) {
      const PerceptronRows<T>& set = which > 0     ? descent.second
                                     : round.outer ? descent.outer
                                                   : descent.inner;
      task.load_rows(set, round.task);
      if (!live) task.rows = 0;
      __syncthreads();
      const T scale = scale_of(set.scale, round.task) / static_cast<T>(round.samples);
      task.gradient(
          set, round.task, scale,
          [&](const PerceptronLayer& layer, bool) {
            if (which > 0) {
              task.template weight_gradient<Use::add, values>(layer, task.memory.u, T(0), nullptr);
            } else {
              task.template weight_gradient<Use::keep, values>(layer, task.memory.u, T(0), nullptr);
            }
          },
          activations);
    }
  }

  /// Computes a round: a pass over the weights, quad by quad, then a pass of the network for every
  /// team's sample. Returns false after the round that ends the pass.
  __device__ __forceinline__ bool run(int t, int pass, int number) {
    const Round<T> round(descent, t, pass, number, teams);
    divergence = T(0);
    if (round.up) {
      pass_over_weights<true>(round);
    } else {
      pass_over_weights<false>(round);
    }
    if (!round.draws()) {
      if (round.outer && descent.loss) add_loss(round);
      return false;
    }
    // a team without a sample computes a pass of no rows
    const bool live = number * teams + team < round.samples;
    T* activations = nullptr;
    if (descent.second_order && !round.outer) {
      const int sample =
          live ? round.k * round.samples + number * teams + team : descent.steps * round.samples;
      activations = first_activation() + static_cast<std::ptrdiff_t>(sample) * network.kept;
    }
    if (round.up) {
      differentiate(round, activations, live);
    } else {
      take_gradient(round, activations, live);
    }
    return true;
  }
};

template <class T>
__global__ void __launch_bounds__(most_threads, 1)
    gaussian_perceptron_kernel(const __grid_constant__ Perceptron network,
                               const __grid_constant__ GaussianDescent<T> descent,
                               const __grid_constant__ PhiloxKeys keys, int tasks, int teams,
                               int kept_vectors, std::size_t of_block) {
  Block<T> block(network, descent, keys, teams, kept_vectors, of_block);
  block.lay_out_memory();
  block.load_start();
  __syncthreads();
  const int steps = descent.steps;
  const int losses = (network.rows + 3) / 4 * 4;
  for (int t = static_cast<int>(blockIdx.x); t < tasks; t += static_cast<int>(gridDim.x)) {
#pragma unroll 1
    for (int pass = 0; pass <= (descent.second_order ? 2 * steps : steps); ++pass) {
      if (pass == steps) {
        const Team& team = block.task.team;
        for (int r = team.thread; r < losses; r += team.threads) {
          block.task.memory.row_loss[r] = T(0);
        }
      }
#pragma unroll 1
      for (int round = 0; block.run(t, pass, round); ++round) {
      }
      // What the teams left of the pass is read. A thread's own vectors need no barrier.
      __syncthreads();
    }
  }
}

int kept_vectors_of(const PerceptronPlan& plan, int steps, int adjoint_samples) {
  return Kept<float>::vectors(steps, plan.teams + adjoint_samples);
}

/// Number of scalars that a block keeps. They include a place for the activations of a team without
/// a sample.
std::size_t kept_scalars_of(const PerceptronPlan& plan, int steps, int adjoint_samples) {
  const int activations = adjoint_samples > 0 ? adjoint_samples + 1 : 0;
  return static_cast<std::size_t>(kept_vectors_of(plan, steps, adjoint_samples)) *
             static_cast<std::size_t>(runs_of(plan.network.weights) * warp_lanes * quad_elements) +
         static_cast<std::size_t>(activations) * static_cast<std::size_t>(plan.network.kept);
}

}  // namespace

std::size_t gaussian_scratch(const PerceptronPlan& plan, int tasks, int steps,
                             int adjoint_samples) {
  return static_cast<std::size_t>(std::min(tasks, plan.blocks)) *
         kept_scalars_of(plan, steps, adjoint_samples);
}

template <class T>
bool plan_gaussian_perceptron(PerceptronPlan& plan, const Perceptron& network, int rows,
                              int samples, const DeviceLimits& device) {
  plan.network = network;
  lay_out(plan.network, rows);
  if (plan.network.stored_weights > 0xffff) return false;  // places have 16 bits
  // Two samples at the same time share what is read of their task, and its memory on the device.
  // More samples would leave teams idle in the last round more often.
  for (int teams = std::min(samples, most_teams); teams > 0; --teams) {
    plan.teams = teams;
    plan.shared_bytes =
        static_cast<std::size_t>(team_scalars(plan.network, 2) * teams +
                                 most_threads / warp_lanes) *
            sizeof(T) +
        static_cast<std::size_t>(runs_of(network.weights) * warp_lanes) * sizeof(Places);
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
      plan.network, descent, philox_keys(descent.noise.key), tasks, plan.teams,
      kept_vectors_of(plan, descent.steps, descent.adjoint_samples()),
      kept_scalars_of(plan, descent.steps, descent.adjoint_samples()));
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
