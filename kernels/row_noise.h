// Noise by rows under Gaussian weights, and what the estimators flipout and local do around a
// layer's product with the spread (docs/mathematics.md, "Estimators"):
//
//   flipout   y += r_out * f(r_in * x; S)            r: random signs, one a channel of a row
//   local     y += sqrt(f(x^2; S)) * zeta            zeta: standard normals, one an element
//
// Noise is drawn where it is used and never stored, unless a case gives it.
//
// Layout: features [tasks, rows, features], for images [channels, height, width] of them. Rows
// beyond a task's own are neither read nor written. Tangents: an argument's dot is null where it is
// zero, a result's where it is not wanted. Pointers are device memory. Instantiated for float and
// double.
#pragma once

#include <cstddef>

#include "kernels/extent.h"
#include "kshot/random.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// One layer's noise within that of its rows. Row r of a task has the elements [r width,
/// (r + 1) width) of a stream (kshot/random.h), the layer's from `offset` on.
template <class T>
struct RowNoise {
  RandomKey key;  ///< task 0's
  /// [tasks]: rows from there on are a query set's, counted from 0 again in the stream of purpose
  /// `query`. Null: all rows are of the key's own stream.
  const std::int32_t* support = nullptr;
  Purpose query = Purpose::user;
  std::size_t width = 0, offset = 0;
  const T* given = nullptr;  ///< [tasks, rows, width], taken instead of what would be drawn
};

// ---- flipout ----

/// Features [tasks, rows, channels, positions].
struct SignSize {
  int channels = 0;
  int positions = 1;
};

/// y = or += (`accumulate`) sign x, and the dots likewise. y may be x.
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
/// y += sqrt(v) zeta and the tangent of that, v the variance: below the least one whose derivatives
/// are numbers it counts as zero, and so do they.
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
