// Gradients of matrices that all tasks share, kept as factors. A task's gradient is a sum of
// products g^T x of its own rows. The products are computed once for each run of 16 tasks, when it
// is known which tasks diverged. Pointers are device memory. Instantiated for float and double.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/extent.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// One term of the gradients of a matrix [out, in]: g [tasks, rows, out] and x [tasks, rows, in].
/// The term of task t is scale * g_t^T x_t.
template <class T>
struct FactorPair {
  const T* g = nullptr;
  const T* x = nullptr;
  T scale = 1;
  /// if set, the term of the bias's gradient is the sum over rows of scale * g
  bool to_bias = false;
};

struct FactorSize {
  int tasks = 0, rows = 0;
  int out = 0, in = 0;
};

/// diverged[task] |= 1 if a factor has an element that is not finite, or if the term of these
/// factors could exceed the largest number / 65536. Otherwise neither a term nor the sum of all
/// terms of a run can overflow. Copies the factors to g and x, each unless it is null.
template <class T>
void keep_factors(std::int32_t* diverged, T* g, T* x, const FactorPair<T>& from,
                  const FactorSize& size, cudaStream_t stream);
/// diverged[task] |= also[task].
void merge_diverged(std::int32_t* diverged, const std::int32_t* also, int tasks,
                    cudaStream_t stream);

/// The largest number of terms of one launch.
constexpr int most_factor_pairs = 32;

/// sums[run] = or += the sum over the terms and over the run's tasks that did not diverge.
template <class T>
struct FactorSums {
  FactorPair<T> pairs[most_factor_pairs];
  int count = 0;  ///< number of pairs; with 0 the sums are zero
  FactorSize size;
  const std::int32_t* diverged = nullptr;  ///< [tasks]
  T* sums = nullptr;       ///< element (o, i) of a run is at + run * stride + o * row + i
  T* bias_sums = nullptr;  ///< [out] at + run * stride; null: no bias
  std::size_t stride = 0, row = 0;
  bool accumulate = false;
};

/// The sums of a run have the same bits in a launch of any number of runs. Throws Error if there
/// are 2^31 tiles or more, or 2^18 rows or more.
template <class T>
void sum_factors(const FactorSums<T>& sums, cudaStream_t stream);

/// sums[run * stride + i] = 0 for i in [first, end).
template <class T>
void clear_columns(T* sums, std::size_t stride, int runs, std::size_t first, std::size_t end,
                   cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
