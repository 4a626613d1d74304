// Noise by rows under Gaussian weights: the computations of the estimators flipout and local around
// a layer's product f with the second vector of weights S (docs/mathematics.md, "Estimators"):
//
//   flipout   y += r_out * f(r_in * x; S)            r: random signs, one per row and channel
//   local     y += sqrt(f(x^2; S)) * zeta            zeta: standard normals, one per element
//
// Noise is drawn where it is used and never stored, unless a test case gives it.
//
// Layout: features [tasks, rows, features], which are [channels, height, width] for images. Rows
// beyond a task's own are neither read nor written. The dot of an input is null if it is zero, and
// the dot of an output is null if it is not computed. Pointers are device memory. Instantiated for
// float and double.
#pragma once

#include <cstddef>

#include "kernels/extent.h"
#include "kshot/random.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// The noise of one layer, a part of the noise of its rows. Row r of a task has the elements [r
/// width, (r + 1) width) of a stream (kshot/random.h), and the layer's part begins at `offset`.
template <class T>
struct RowNoise {
  RandomKey key;  ///< the key of task 0
  /// [tasks]: the number of support rows. Later rows are a query set's. They are counted from 0
  /// again, in the stream of purpose `query`. If it is null, all rows use the key's own stream.
  const std::int32_t* support = nullptr;
  Purpose query = Purpose::user;
  std::size_t width = 0, offset = 0;
  const T* given = nullptr;  ///< [tasks, rows, width]; if given, it replaces the drawn noise
};

// ---- flipout ----

/// Features [tasks, rows, channels, positions].
struct SignSize {
  int channels = 0;
  int positions = 1;
};

/// y = or += (`accumulate`) sign x, and the dots in the same way. y may be x.
template <class T>
void multiply_signs(Tangent<T> y, Tangent<const T> x, bool accumulate, const RowNoise<T>& noise,
                    SignSize size, const RowExtent& rows, cudaStream_t stream);

// ---- local ----

/// y = x^2; y.dot = 2 x x.dot.
template <class T>
void square(Tangent<T> y, Tangent<const T> x, int features, const RowExtent& rows,
            cudaStream_t stream);
/// g_x += 2 x g; g_x.dot += 2 (x g.dot + x.dot g).
template <class T>
void square_pullback(Tangent<T> g_x, Tangent<const T> g, Tangent<const T> x, int features,
                     const RowExtent& rows, cudaStream_t stream);
/// y += sqrt(v) zeta, and the tangent of that, for the variance v. A variance below the least one
/// whose derivatives are finite counts as zero, and its derivatives are zero too.
template <class T>
void deviate(Tangent<T> y, Tangent<const T> variance, const RowNoise<T>& noise, int features,
             const RowExtent& rows, cudaStream_t stream);
/// g_v = g zeta / (2 sqrt(v)), and its tangent.
template <class T>
void deviate_pullback(Tangent<T> g_v, Tangent<const T> g, Tangent<const T> variance,
                      const RowNoise<T>& noise, int features, const RowExtent& rows,
                      cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
