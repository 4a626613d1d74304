// Small passes over per-task vectors other than weights: latents, noise, dropout. Pointers are
// device memory. Instantiated for float and double.
#pragma once

#include <cstddef>

#include "kernels/extent.h"
#include "kshot/random.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// y[b, i mod n] += a x1[b, i] x2[b, i], for x1 and x2 of size `extent` and y [tasks, n]. n must
/// divide the width.
template <class T>
void multiply_fold(T* y, T a, const T* x1, const T* x2, Extent extent, int n, cudaStream_t stream);
/// dst ~ N(0, 1): element i of task b is normal_element of `key` with key.task + b.
template <class T>
void draw_normal(T* dst, const RandomKey& key, Extent extent, cudaStream_t stream);
/// With d = a - b over `width` elements: value[b] += weight mean(d^2), g_b -= 2 weight d / width.
template <class T>
void mean_square(T* value, T weight, const T* a, const T* b, T* g_b, Extent extent,
                 cudaStream_t stream);
/// dst = 0 with probability `rate`, else src / (1 - rate). The decision is made by uniform_element
/// of `key` with key.task + b.
template <class T>
void drop(T* dst, const T* src, double rate, const RandomKey& key, Extent extent,
          cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
