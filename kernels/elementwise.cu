// Algebra of per-task vectors and of Gaussians over weights (elementwise.h).
//
// Mathematics    q = N(mu, e^{2s}), p = N(mu_p, e^{2s_p}), d = mu - mu_p, w = e^{-2 s_p}, r = e^{2
//                (s - s_p)}, everything element by element:
//                  KL          = sum s_p - s + (r + d^2 w - 1) / 2
//                  dKL/d(...)  : mu: d w     s: r - 1     mu_p: -d w     s_p: 1 - r - d^2 w
//                  d2KL/dq2 v  : mu: w v_mu  s: 2 r v_s
//                  d2KL/dpdq v : mu_p: -w v_mu            s_p: -(2 d w v_mu + 2 r v_s)
//                The header has the other formulas, as they are computed here.
// Layout         Per-task vectors [tasks, width], shared vectors [width].
// Who does what  Flat passes: each thread takes every (grid size)-th element. Passes that need the
//                index of the task or of the weight: a block takes `chunk` elements of one task,
//                and neighbouring threads take neighbouring elements. draw_sample: a thread takes
//                one Philox quad, which is four elements 16 apart, so that 16 threads fill 64
//                neighbours. kl: a block takes a task. Its sum is added in a fixed order: over the
//                strides of a thread, then over lanes, then over warps.
// Outputs        Overwritten, unless the header says +=.
// Bytes          Scalars of T and operations (a multiply-add counts as two) per element of each
//                pass:
//                  broadcast 1 (+ src once, from L2)  0     rate_step        3 (+ rate)       2
//                  fill 1, copy_tensor 2              0     draw_sample      3, 4 with eps    ~65
//                  axpy      3                        2     sample           4                2
//                  multiply_add 4                     3     sample_pullback  7                5
//                  exponential 2                      ~10   sample_direction 5                3
//                  rate_multiply 2 (+ rate)           1     kl, all outputs  12               ~40
//                                                           kl_hvp, all      14               ~40
//                The Philox of draw_sample is 10 rounds of 6 integer operations per quad, that is
//                15 per element, and Box-Muller is ~100 per pair. All passes are bound by memory:
//                the bytes at 4 TB/s are the floor on an H200. They compute what the fused kernels
//                do not cover.
#include "kernels/elementwise.h"

#include "kernels/passes.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

// ---- flat ----

template <class T>
struct Fill {
  T* dst;
  T value;
  __device__ void operator()(std::size_t i) const { dst[i] = value; }
};

template <class T>
struct Axpy {
  T* y;
  T a;
  const T* x;
  __device__ void operator()(std::size_t i) const { y[i] += a * x[i]; }
};

template <class T>
struct MultiplyAdd {
  T* y;
  T a;
  const T* x1;
  const T* x2;
  __device__ void operator()(std::size_t i) const { y[i] += a * x1[i] * x2[i]; }
};

template <class T>
struct Exponential {
  T* dst;
  const T* src;
  __device__ void operator()(std::size_t i) const { dst[i] = exp(src[i]); }
};

template <class T>
struct Sample {
  T* phi;
  const T* eps;
  const T* mu;
  const T* sigma;
  __device__ void operator()(std::size_t i) const { phi[i] = mu[i] + sigma[i] * eps[i]; }
};

template <class T>
struct SamplePullback {
  T* g_mu;
  T* g_s;
  T a;
  const T* g;
  const T* eps;
  const T* sigma;
  __device__ void operator()(std::size_t i) const {
    const T scaled = a * g[i];
    g_mu[i] += scaled;
    g_s[i] += scaled * eps[i] * sigma[i];
  }
};

template <class T>
struct SampleDirection {
  T* u;
  const T* v_mu;
  const T* v_s;
  const T* eps;
  const T* sigma;
  __device__ void operator()(std::size_t i) const { u[i] = v_mu[i] + sigma[i] * eps[i] * v_s[i]; }
};

// ---- by task: pass(task, element, index over all tasks) ----

template <class T>
struct Broadcast {
  T* dst;
  const T* src;
  __device__ void operator()(int, int i, std::size_t at) const { dst[at] = src[i]; }
};

template <class T>
__device__ T rate_of(const RateArgument<T>& rate, int i) {
  return rate.vector ? rate.vector[i] : rate.value;
}

template <class T>
struct CopyTensor {
  TaskTensor<T> dst;
  TaskTensor<const T> src;
  __device__ void operator()(int task, int i, std::size_t) const {
    const auto t = static_cast<std::size_t>(task), e = static_cast<std::size_t>(i);
    dst.data[t * dst.stride + e] = src.data[t * src.stride + e];
  }
};

template <class T>
struct RateMultiply {
  T* dst;
  RateArgument<T> rate;
  const T* x;
  __device__ void operator()(int, int i, std::size_t at) const {
    dst[at] = rate_of(rate, i) * x[at];
  }
};

template <class T>
struct RateStep {
  T* dst;
  const T* src;
  RateArgument<T> rate;
  const T* grad;
  __device__ void operator()(int, int i, std::size_t at) const {
    dst[at] = src[at] - rate_of(rate, i) * grad[at];
  }
};

template <class T>
struct KlHvp {
  GaussianPair<T> pair;
  const T* v_mu;
  const T* v_s;
  T* r_mu;
  T* r_s;
  T* rp_mu;
  T* rp_s;
  __device__ void operator()(int task, int, std::size_t at) const {
    const T scale = scale_of(pair.scale, task);
    const T s_p = pair.prior_s[at];
    const T along_mu = scale * exp(T(-2) * s_p) * v_mu[at];
    const T along_s = scale * T(2) * exp(T(2) * (pair.s[at] - s_p)) * v_s[at];
    if (r_mu) r_mu[at] += along_mu;
    if (r_s) r_s[at] += along_s;
    if (rp_mu) rp_mu[at] -= along_mu;
    // The means are read where they are needed, so that no register holds them until then.
    if (rp_s) rp_s[at] -= T(2) * (pair.mu[at] - pair.prior_mu[at]) * along_mu + along_s;
  }
};

// ---- noise ----

template <class T>
__global__ void __launch_bounds__(threads)
    draw_sample_kernel(T* phi, T* eps, const T* mu, const T* sigma, RandomKey key, int width,
                       int chunks) {
  const int task = static_cast<int>(blockIdx.x) / chunks;
  const int quad =
      (static_cast<int>(blockIdx.x) - task * chunks) * threads + static_cast<int>(threadIdx.x);
  const int first = (quad >> 4) * 64 + (quad & 15);  // inverse of kshot::noise_address
  if (first >= width) return;
  // four normals
  key.task += static_cast<std::uint32_t>(task);
  const auto words = philox4x32(key.counter(static_cast<std::uint32_t>(quad)), key.key());
  const NormalPair low = box_muller(words[0], words[1]), high = box_muller(words[2], words[3]);
  const float normals[4] = {low.cosine, low.sine, high.cosine, high.sine};
  // their elements, 16 apart
  const std::size_t row = static_cast<std::size_t>(task) * static_cast<std::size_t>(width);
#pragma unroll
  for (int word = 0; word < 4; ++word) {
    const int i = first + 16 * word;
    if (i < width) {
      const std::size_t at = row + static_cast<std::size_t>(i);
      const T e = static_cast<T>(normals[word]);
      if (eps) eps[at] = e;
      phi[at] = mu[at] + sigma[at] * e;
    }
  }
}

// ---- KL: one block per task ----

template <class T>
__global__ void __launch_bounds__(threads)
    kl_kernel(GaussianPair<T> pair, T* value, T* g_mu, T* g_s, T* gp_mu, T* gp_s, int width) {
  const int task = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const std::size_t row = static_cast<std::size_t>(task) * static_cast<std::size_t>(width);
  const T scale = scale_of(pair.scale, task);
  T sum = 0;
  for (int i = thread; i < width; i += threads) {
    const std::size_t at = row + static_cast<std::size_t>(i);
    const T s = pair.s[at], s_p = pair.prior_s[at];
    const T d = pair.mu[at] - pair.prior_mu[at];
    const T pull = d * exp(T(-2) * s_p);
    const T ratio = exp(T(2) * (s - s_p));  // ratio of the variances
    sum += s_p - s + T(0.5) * (ratio + d * pull - T(1));
    if (g_mu) g_mu[at] += scale * pull;
    if (g_s) g_s[at] += scale * (ratio - T(1));
    if (gp_mu) gp_mu[at] -= scale * pull;
    if (gp_s) gp_s[at] += scale * (T(1) - ratio - d * pull);
  }
  if (!value) return;  // The whole block returns, and no barrier was passed.
  const T total = block_sum(sum);
  if (thread == 0) value[task] += scale * total;
}

}  // namespace

// ---- launchers ----

template <class T>
void broadcast(T* dst, const T* src, Extent extent, cudaStream_t stream) {
  by_task(Broadcast<T>{dst, src}, extent, stream);
}

template <class T>
void fill(T* dst, T value, std::size_t count, cudaStream_t stream) {
  flat(Fill<T>{dst, value}, count, stream);
}

template <class T>
void copy_tensor(TaskTensor<T> dst, TaskTensor<const T> src, Extent extent, cudaStream_t stream) {
  by_task(CopyTensor<T>{dst, src}, extent, stream);
}

template <class T>
void axpy(T* y, T a, const T* x, std::size_t count, cudaStream_t stream) {
  flat(Axpy<T>{y, a, x}, count, stream);
}

template <class T>
void multiply_add(T* y, T a, const T* x1, const T* x2, std::size_t count, cudaStream_t stream) {
  flat(MultiplyAdd<T>{y, a, x1, x2}, count, stream);
}

template <class T>
void exponential(T* dst, const T* src, std::size_t count, cudaStream_t stream) {
  flat(Exponential<T>{dst, src}, count, stream);
}

template <class T>
void rate_multiply(T* dst, RateArgument<T> rate, const T* x, Extent extent, cudaStream_t stream) {
  by_task(RateMultiply<T>{dst, rate, x}, extent, stream);
}

template <class T>
void rate_step(T* dst, const T* src, RateArgument<T> rate, const T* grad, Extent extent,
               cudaStream_t stream) {
  by_task(RateStep<T>{dst, src, rate, grad}, extent, stream);
}

template <class T>
void draw_sample(T* phi, T* eps, const T* mu, const T* sigma, const RandomKey& key, Extent extent,
                 cudaStream_t stream) {
  if (extent.count() == 0) return;
  const int quads = (extent.width + 63) / 64 * 16, chunks = (quads + threads - 1) / threads;
  launch<draw_sample_kernel<T>>(
      {.grid = static_cast<unsigned>(extent.tasks) * static_cast<unsigned>(chunks),
       .block = threads,
       .stream = stream},
      phi, eps, mu, sigma, key, extent.width, chunks);
}

template <class T>
void sample(T* phi, const T* eps, const T* mu, const T* sigma, std::size_t count,
            cudaStream_t stream) {
  flat(Sample<T>{phi, eps, mu, sigma}, count, stream);
}

template <class T>
void sample_pullback(T* g_mu, T* g_s, T a, const T* g, const T* eps, const T* sigma,
                     std::size_t count, cudaStream_t stream) {
  flat(SamplePullback<T>{g_mu, g_s, a, g, eps, sigma}, count, stream);
}

template <class T>
void sample_direction(T* u, const T* v_mu, const T* v_s, const T* eps, const T* sigma,
                      std::size_t count, cudaStream_t stream) {
  flat(SampleDirection<T>{u, v_mu, v_s, eps, sigma}, count, stream);
}

template <class T>
void kl(const GaussianPair<T>& pair, T* value, T* g_mu, T* g_s, T* gp_mu, T* gp_s, Extent extent,
        cudaStream_t stream) {
  if (extent.count() == 0) return;
  launch<kl_kernel<T>>(
      {.grid = static_cast<unsigned>(extent.tasks), .block = threads, .stream = stream}, pair,
      value, g_mu, g_s, gp_mu, gp_s, extent.width);
}

template <class T>
void kl_hvp(const GaussianPair<T>& pair, const T* v_mu, const T* v_s, T* r_mu, T* r_s, T* rp_mu,
            T* rp_s, Extent extent, cudaStream_t stream) {
  by_task(KlHvp<T>{pair, v_mu, v_s, r_mu, r_s, rp_mu, rp_s}, extent, stream);
}

#define KSHOT_INSTANTIATE(T)                                                                     \
  template void broadcast(T*, const T*, Extent, cudaStream_t);                                   \
  template void fill(T*, T, std::size_t, cudaStream_t);                                          \
  template void copy_tensor(TaskTensor<T>, TaskTensor<const T>, Extent, cudaStream_t);           \
  template void axpy(T*, T, const T*, std::size_t, cudaStream_t);                                \
  template void multiply_add(T*, T, const T*, const T*, std::size_t, cudaStream_t);              \
  template void exponential(T*, const T*, std::size_t, cudaStream_t);                            \
  template void rate_multiply(T*, RateArgument<T>, const T*, Extent, cudaStream_t);              \
  template void rate_step(T*, const T*, RateArgument<T>, const T*, Extent, cudaStream_t);        \
  template void draw_sample(T*, T*, const T*, const T*, const RandomKey&, Extent, cudaStream_t); \
  template void sample(T*, const T*, const T*, const T*, std::size_t, cudaStream_t);             \
  template void sample_pullback(T*, T*, T, const T*, const T*, const T*, std::size_t,            \
                                cudaStream_t);                                                   \
  template void sample_direction(T*, const T*, const T*, const T*, const T*, std::size_t,        \
                                 cudaStream_t);                                                  \
  template void kl(const GaussianPair<T>&, T*, T*, T*, T*, T*, Extent, cudaStream_t);            \
  template void kl_hvp(const GaussianPair<T>&, const T*, const T*, T*, T*, T*, T*, Extent,       \
                       cudaStream_t)
KSHOT_INSTANTIATE(float);
KSHOT_INSTANTIATE(double);
#undef KSHOT_INSTANTIATE

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
