// Element-wise passes of generated weights (decoder.h).
//
// Mathematics    std = exp(u) - (1 - offset). Its slope is exp(u), which is its own derivative.
//                Where std would fall below `least`, std is `least` and the slope is zero. exp(u) -
//                1 is computed as one function, because the offset of latents is zero and their u
//                may be small.
// Layout         In the header. The m and u of a latent are neighbours.
// Who does what  Passes by task (passes.h): a thread computes one weight of one group, or the
//                statistics of one latent element, and goes through the group's latents in
//                ascending order. KL: one block per task (block_sum).
// Outputs        Overwritten, unless the header says +=.
// Bytes          Every operand once, and w once per latent: 5 to 9 scalars per element.
// Operations     One or two exponentials per element. The kernels are bound by memory.
#include "kernels/decoder.h"

#include <cmath>

#include "kernels/passes.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

/// std(u; offset) and its derivative.
template <class T>
struct Deviation {
  T value, slope;
};

template <class T>
__device__ Deviation<T> deviation(T u, T offset, T least) {
  const T std = expm1(u) + offset;
  if (std < least) return {least, T(0)};  // false for NaN, which is passed on
  return {std, exp(u)};
}

/// Index of element (row, part, i) of [rows, parts, width].
__device__ inline std::size_t at_of(std::size_t row, int part, int parts, int i, int width) {
  return (row * static_cast<std::size_t>(parts) + static_cast<std::size_t>(part)) *
             static_cast<std::size_t>(width) +
         static_cast<std::size_t>(i);
}

/// The place of element i of [groups, width] of a task: its group, counted over all tasks, and i
/// within the group.
struct Place {
  std::size_t group;
  int i;
  __device__ Place(const LatentSize& size, int task, int element) {
    const int of_task = element / size.width;
    group = static_cast<std::size_t>(task) * static_cast<std::size_t>(size.groups) +
            static_cast<std::size_t>(of_task);
    i = element - of_task * size.width;
  }
};

template <class T>
struct LatentsPass {
  T* z;
  const T* statistics;
  const T* eps;
  T least;
  LatentSize size;
  __device__ void operator()(int task, int element, std::size_t) const {
    const Place at(size, task, element);
    const T m = statistics[at_of(at.group, 0, 2, at.i, size.width)];
    const T u = statistics[at_of(at.group, 1, 2, at.i, size.width)];
    const T std = eps ? deviation(u, T(0), least).value : T(0);
    for (int c = 0; c < size.latents; ++c) {
      const std::size_t to = at_of(at.group, c, size.latents, at.i, size.width);
      z[to] = eps ? m + std * eps[to] : m;
    }
  }
};

template <class T>
struct LatentsPullback {
  T* g_statistics;
  const T* statistics;
  const T* eps;
  const T* g_z;
  T least;
  LatentSize size;
  __device__ void operator()(int task, int element, std::size_t) const {
    const Place at(size, task, element);
    const std::size_t m = at_of(at.group, 0, 2, at.i, size.width);
    const std::size_t u = at_of(at.group, 1, 2, at.i, size.width);
    T g_m = T(0), g_std = T(0);
    for (int c = 0; c < size.latents; ++c) {
      const std::size_t from = at_of(at.group, c, size.latents, at.i, size.width);
      g_m += g_z[from];
      if (eps) g_std += g_z[from] * eps[from];
    }
    g_statistics[m] += g_m;
    if (eps) g_statistics[u] += deviation(statistics[u], T(0), least).slope * g_std;
  }
};

template <class T>
struct LatentKl {
  T* value;
  T* g_statistics;
  T scale;
  const T* statistics;
  const T* z;    // only if sampled
  const T* eps;  // only if sampled
  T least;
  LatentSize size;
};

template <class T, bool sampled>
__global__ void __launch_bounds__(threads) latent_kl_kernel(LatentKl<T> kl) {
  const int task = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const LatentSize& size = kl.size;
  T sum = T(0);
  for (int element = thread; element < size.groups * size.width; element += threads) {
    const Place at(size, task, element);
    const std::size_t m = at_of(at.group, 0, 2, at.i, size.width);
    const std::size_t u = at_of(at.group, 1, 2, at.i, size.width);
    const Deviation<T> std = deviation(kl.statistics[u], T(0), kl.least);
    const T log_std = log(std.value), precision = T(1) / std.value;
    if constexpr (sampled) {
      T g_m = T(0), g_std = T(0);
      for (int c = 0; c < size.latents; ++c) {
        const std::size_t from = at_of(at.group, c, size.latents, at.i, size.width);
        const T z = kl.z[from], e = kl.eps[from];
        sum += T(0.5) * (z * z - e * e) - log_std;
        g_m += z;
        g_std += z * e - precision;
      }
      kl.g_statistics[m] += kl.scale * g_m;
      kl.g_statistics[u] += kl.scale * g_std * std.slope;
    } else {
      const T mean = kl.statistics[m];
      sum += T(0.5) * (std.value * std.value + mean * mean - T(1)) - log_std;
      kl.g_statistics[m] += kl.scale * mean;
      kl.g_statistics[u] += kl.scale * (std.value - precision) * std.slope;
    }
  }
  const T total = block_sum(sum);
  if (thread == 0) kl.value[task] += kl.scale * total;
}

/// The m and u of one latent for one weight of a group: their indices in `out`, and their noise.
template <class T>
struct DecodedElement {
  std::size_t m, u;
  T eps;
  __device__ DecodedElement(const Decoded<T>& d, const Place& at, int c) {
    const std::size_t row =
        at.group * static_cast<std::size_t>(d.size.latents) + static_cast<std::size_t>(c);
    m = at_of(row, 0, 2, at.i, d.size.width);
    u = m + static_cast<std::size_t>(d.size.width);
    eps = d.eps ? d.eps[at_of(row, 0, 1, at.i, d.size.width)] : T(0);
  }
  __device__ Deviation<T> std(const Decoded<T>& d, const Place& at) const {
    return deviation(d.out[u], d.offset[at.i], d.least);
  }
};

template <class T>
struct DecodedWeights {
  T* w;
  Decoded<T> d;
  __device__ void operator()(int task, int element, std::size_t to) const {
    const Place at(d.size, task, element);
    T sum = T(0);
    for (int c = 0; c < d.size.latents; ++c) {
      const DecodedElement<T> e(d, at, c);
      sum += d.out[e.m];
      if (d.eps) sum += e.std(d, at).value * e.eps;
    }
    w[to] = sum / static_cast<T>(d.size.latents);
  }
};

template <class T>
struct DecodedTangent {
  T* w_dot;
  Decoded<T> d;
  const T* out_dot;
  __device__ void operator()(int task, int element, std::size_t to) const {
    const Place at(d.size, task, element);
    T sum = T(0);
    for (int c = 0; c < d.size.latents; ++c) {
      const DecodedElement<T> e(d, at, c);
      sum += out_dot[e.m];
      if (d.eps) sum += e.std(d, at).slope * e.eps * out_dot[e.u];
    }
    w_dot[to] = sum / static_cast<T>(d.size.latents);
  }
};

template <class T>
struct DecodedPullback {
  Tangent<T> g_out;
  Decoded<T> d;
  const T* out_dot;
  Tangent<const T> g_w;
  __device__ void operator()(int task, int element, std::size_t from) const {
    const Place at(d.size, task, element);
    const T share = T(1) / static_cast<T>(d.size.latents);
    const T g = share * g_w.value[from];
    for (int c = 0; c < d.size.latents; ++c) {
      const DecodedElement<T> e(d, at, c);
      const T slope = d.eps ? e.std(d, at).slope * e.eps : T(0);
      g_out.value[e.m] = g;
      g_out.value[e.u] = slope * g;
      if (!g_out.dot) continue;
      const T g_dot = share * g_w.dot[from];
      g_out.dot[e.m] = g_dot;
      g_out.dot[e.u] = d.eps ? slope * (g_dot + g * out_dot[e.u]) : T(0);
    }
  }
};

}  // namespace

template <class T>
void latents(T* z, const T* statistics, const T* eps, T least, const LatentSize& size,
             cudaStream_t stream) {
  by_task(LatentsPass<T>{z, statistics, eps, least, size}, {size.tasks, size.groups * size.width},
          stream);
}

template <class T>
void latents_pullback(T* g_statistics, const T* statistics, const T* eps, const T* g_z, T least,
                      const LatentSize& size, cudaStream_t stream) {
  by_task(LatentsPullback<T>{g_statistics, statistics, eps, g_z, least, size},
          {size.tasks, size.groups * size.width}, stream);
}

template <class T>
void sampled_kl(T* value, T* g_statistics, T weight, const T* statistics, const T* z, const T* eps,
                T least, const LatentSize& size, cudaStream_t stream) {
  if (size.tasks == 0) return;
  const T scale = weight / static_cast<T>(size.groups * size.latents * size.width);
  launch<latent_kl_kernel<T, true>>(
      {.grid = static_cast<unsigned>(size.tasks), .block = threads, .stream = stream},
      LatentKl<T>{value, g_statistics, scale, statistics, z, eps, least, size});
}

template <class T>
void analytic_kl(T* value, T* g_statistics, T weight, const T* statistics, T least,
                 const LatentSize& size, cudaStream_t stream) {
  if (size.tasks == 0) return;
  const T scale = weight / static_cast<T>(size.groups * size.width);
  launch<latent_kl_kernel<T, false>>(
      {.grid = static_cast<unsigned>(size.tasks), .block = threads, .stream = stream},
      LatentKl<T>{value, g_statistics, scale, statistics, nullptr, nullptr, least, size});
}

template <class T>
void decoded_weights(T* w, const Decoded<T>& d, cudaStream_t stream) {
  by_task(DecodedWeights<T>{w, d}, {d.size.tasks, d.size.groups * d.size.width}, stream);
}

template <class T>
void decoded_tangent(T* w_dot, const Decoded<T>& d, const T* out_dot, cudaStream_t stream) {
  by_task(DecodedTangent<T>{w_dot, d, out_dot}, {d.size.tasks, d.size.groups * d.size.width},
          stream);
}

template <class T>
void decoded_pullback(Tangent<T> g_out, const Decoded<T>& d, const T* out_dot, Tangent<const T> g_w,
                      cudaStream_t stream) {
  by_task(DecodedPullback<T>{g_out, d, out_dot, g_w}, {d.size.tasks, d.size.groups * d.size.width},
          stream);
}

#define KSHOT_INSTANTIATE(T)                                                                \
  template void latents(T*, const T*, const T*, T, const LatentSize&, cudaStream_t);        \
  template void latents_pullback(T*, const T*, const T*, const T*, T, const LatentSize&,    \
                                 cudaStream_t);                                             \
  template void sampled_kl(T*, T*, T, const T*, const T*, const T*, T, const LatentSize&,   \
                           cudaStream_t);                                                   \
  template void analytic_kl(T*, T*, T, const T*, T, const LatentSize&, cudaStream_t);       \
  template void decoded_weights(T*, const Decoded<T>&, cudaStream_t);                       \
  template void decoded_tangent(T*, const Decoded<T>&, const T*, cudaStream_t);             \
  template void decoded_pullback(Tangent<T>, const Decoded<T>&, const T*, Tangent<const T>, \
                                 cudaStream_t)
KSHOT_INSTANTIATE(float);
KSHOT_INSTANTIATE(double);
#undef KSHOT_INSTANTIATE

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
