// Element-wise passes of generated weights (backend/generator.h). They compute latents from their
// statistics, and weights from the decoder's outputs, with
//   std(u; offset) = max(exp(u) - (1 - offset), least).
// If eps is null there is no noise, and the result is the mean alone. Pointers are device memory.
// Instantiated for float and double.
#pragma once

#include "kernels/extent.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// Sizes of the statistics [tasks, groups, 2, width] (m, then u), and of the latents and their
/// noise [tasks, groups, latents, width].
struct LatentSize {
  int tasks = 0, groups = 0, latents = 1, width = 0;
};

/// z = m + std(u; 0) eps.
template <class T>
void latents(T* z, const T* statistics, const T* eps, T least, const LatentSize& size,
             cudaStream_t stream);
/// g_statistics += the pull-back of g_z.
template <class T>
void latents_pullback(T* g_statistics, const T* statistics, const T* eps, const T* g_z, T least,
                      const LatentSize& size, cudaStream_t stream);
/// value[task] += weight times the mean over latent elements of log q(z) - log N(z; 0, 1).
/// g_statistics += its derivative, including the path through z.
template <class T>
void sampled_kl(T* value, T* g_statistics, T weight, const T* statistics, const T* z, const T* eps,
                T least, const LatentSize& size, cudaStream_t stream);
/// The KL of sampled_kl in closed form: the mean over (group, element) of KL(N(m, std^2) || N(0,
/// 1)).
template <class T>
void analytic_kl(T* value, T* g_statistics, T weight, const T* statistics, T least,
                 const LatentSize& size, cudaStream_t stream);

/// The decoder's outputs for every latent: out [tasks, groups, latents, 2, width] (m, then u).
template <class T>
struct Decoded {
  const T* out = nullptr;
  const T* eps = nullptr;     ///< [tasks, groups, latents, width]
  const T* offset = nullptr;  ///< [width]
  T least = 0;
  LatentSize size;  ///< width is the number of weights of a group
};

/// w[task, group] = mean over latents of m + std(u; offset) eps.
template <class T>
void decoded_weights(T* w, const Decoded<T>& decoded, cudaStream_t stream);
/// w_dot = the derivative of decoded_weights along out_dot.
template <class T>
void decoded_tangent(T* w_dot, const Decoded<T>& decoded, const T* out_dot, cudaStream_t stream);
/// g_out = the pull-back of g_w. If g_out.dot is not null, g_out.dot = the derivative of the
/// pull-back along (out_dot, g_w.dot).
template <class T>
void decoded_pullback(Tangent<T> g_out, const Decoded<T>& decoded, const T* out_dot,
                      Tangent<const T> g_w, cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
