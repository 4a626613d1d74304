// Vectors that all tasks share: algebra, norms, the hyper-prior and the optimiser. Pointers are
// device memory. Sums over elements are in double and in a fixed order. Instantiated for float and
// double.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/runtime.h"
#include "kernels/step.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// dst *= src.
template <class T>
void multiply(T* dst, const T* src, std::size_t count, cudaStream_t stream);
/// sum[0] += factor * sum of the squares of x. If clip > 0, each element is first clipped to
/// [-clip, clip].
template <class T>
void squared_norm(double* sum, double factor, const T* x, T clip, std::size_t count,
                  cudaStream_t stream);
/// dst[i] = src[index[i]].
template <class T>
void gather(T* dst, const T* src, const std::uint32_t* index, std::size_t count,
            cudaStream_t stream);
/// dst[j] = or += (`accumulate`) the sum of src[order[k]] for k in [first[j], first[j + 1]). dst is
/// [count], and first is [count + 1].
template <class T>
void gather_sum(T* dst, const T* src, const std::uint32_t* first, const std::uint32_t* order,
                std::size_t count, bool accumulate, cudaStream_t stream);
/// The hyper-prior of Backend::hyper_prior: its value is added to sum[0], its gradients to g_mu and
/// g_s.
template <class T>
void hyper_prior(double* sum, const T* mu, const T* s, double a0, double b0, double weight, T* g_mu,
                 T* g_s, std::size_t count, cudaStream_t stream);

/// A contiguous range of a vector's elements.
struct Segment {
  std::size_t offset = 0, size = 0;
};
/// Clips each element to [-value, value] if value > 0. Then scales each segment whose norm is
/// larger than `norm` down to `norm`.
template <class T>
void clip(T* x, T value, double norm, const Segment* segments, int count, cudaStream_t stream);

/// Backend::column_orthogonality of d [rows, columns]. The value is added to value[0] and the
/// gradient to g. `scratch` has columns * columns + 2 * columns numbers.
template <class T>
void column_orthogonality(double* value, const T* d, int rows, int columns, double weight, T* g,
                          double* scratch, cudaStream_t stream);

/// backend::OptimizerStep, in the precision of the vectors. It is Adam if `second` is given, else
/// SGD. If `step` is given, a step whose status is `stop` changes nothing, and clip_norm > 0 clips
/// by its clipped_squares.
template <class T>
struct OptimizerArguments {
  T* parameters = nullptr;
  const T* gradient = nullptr;
  T* first = nullptr;
  T* second = nullptr;
  T rate = 0, momentum = 0, beta1 = 0, beta2 = 0, epsilon = 0;
  T correction1 = 1, correction2 = 1;  ///< 1 - beta^step
  T clip = 0, decay = 0;
  const StepStatistics* step = nullptr;
  double clip_norm = 0.0;
};
template <class T>
void optimizer_step(const OptimizerArguments<T>& step, std::size_t count, cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
