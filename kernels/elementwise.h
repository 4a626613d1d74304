// Algebra of per-task vectors, and of Gaussians over weights: fused passes over memory.
//
// Layout: a per-task vector is [tasks, width], row-major, without padding. A shared vector is
// [width]. Pointers are device memory, and `stream` is the stream that the work is put on. Outputs
// do not overlap other arguments, unless a formula names the same vector on both sides.
// Instantiated for float and double.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/extent.h"
#include "kshot/random.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// Step sizes: one per weight, `vector` [width], if it is given, else the number `value`.
template <class T>
struct RateArgument {
  T value = 0;
  const T* vector = nullptr;
};

/// q = N(mu, exp(2 s)) and prior p = N(prior_mu, exp(2 prior_s)), all [tasks, width].
template <class T>
struct GaussianPair {
  const T* mu = nullptr;
  const T* s = nullptr;
  const T* prior_mu = nullptr;
  const T* prior_s = nullptr;
  TaskScale<T> scale;
};

// ---- algebra ----

/// dst[b, i] = src[i].
template <class T>
void broadcast(T* dst, const T* src, Extent extent, cudaStream_t stream);
/// dst = value, for `count` elements in all, as in the functions below.
template <class T>
void fill(T* dst, T value, std::size_t count, cudaStream_t stream);
/// dst[b, i] = src[b, i] for one tensor of each task; extent.width is the tensor's size.
template <class T>
void copy_tensor(TaskTensor<T> dst, TaskTensor<const T> src, Extent extent, cudaStream_t stream);
/// y += a x.
template <class T>
void axpy(T* y, T a, const T* x, std::size_t count, cudaStream_t stream);
/// y += a x1 x2.
template <class T>
void multiply_add(T* y, T a, const T* x1, const T* x2, std::size_t count, cudaStream_t stream);
/// dst = exp(src). dst may be src.
template <class T>
void exponential(T* dst, const T* src, std::size_t count, cudaStream_t stream);
/// dst = rate x. dst may be x.
template <class T>
void rate_multiply(T* dst, RateArgument<T> rate, const T* x, Extent extent, cudaStream_t stream);
/// dst = src - rate grad. dst may be src.
template <class T>
void rate_step(T* dst, const T* src, RateArgument<T> rate, const T* grad, Extent extent,
               cudaStream_t stream);

// ---- Gaussian over weights ----

/// phi = mu + sigma eps, with eps drawn here: element i of task b is normal_element of `key` with
/// key.task + b (kshot/random.h), in float. eps is stored if it is not null.
template <class T>
void draw_sample(T* phi, T* eps, const T* mu, const T* sigma, const RandomKey& key, Extent extent,
                 cudaStream_t stream);
/// phi = mu + sigma eps.
template <class T>
void sample(T* phi, const T* eps, const T* mu, const T* sigma, std::size_t count,
            cudaStream_t stream);
/// g_mu += a g; g_s += a g eps sigma.
template <class T>
void sample_pullback(T* g_mu, T* g_s, T a, const T* g, const T* eps, const T* sigma,
                     std::size_t count, cudaStream_t stream);
/// u = v_mu + sigma eps v_s.
template <class T>
void sample_direction(T* u, const T* v_mu, const T* v_s, const T* eps, const T* sigma,
                      std::size_t count, cudaStream_t stream);

/// value[b] += scale KL(q || p). (g_mu, g_s) += scale dKL/d(mu, s), and (gp_mu, gp_s) += the same
/// by the prior's parameters. value is [tasks]. Outputs that are null are not computed.
template <class T>
void kl(const GaussianPair<T>& pair, T* value, T* g_mu, T* g_s, T* gp_mu, T* gp_s, Extent extent,
        cudaStream_t stream);
/// (r_mu, r_s) += scale d2KL/dq2 (v_mu, v_s), and (rp_mu, rp_s) += scale d2KL/(dp dq) (v_mu, v_s).
/// Outputs that are null are not computed.
template <class T>
void kl_hvp(const GaussianPair<T>& pair, const T* v_mu, const T* v_s, T* r_mu, T* r_s, T* rp_mu,
            T* rp_s, Extent extent, cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
