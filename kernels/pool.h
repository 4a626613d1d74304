// Pooling of maps, and the linear maps that are its gradient and its tangent.
//
// Layout: features [tasks, rows, channels, height, width]. Rows beyond a task's own are neither
// read nor written. Outputs are overwritten and do not overlap inputs. Pointers are device memory.
// Instantiated for float and double. Throws kshot::Error if a window does not fit.
#pragma once

#include "kernels/extent.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// Windows of size x size, side by side. Columns at the right and rows at the bottom that do not
/// fill a window are ignored.
struct PoolSize {
  int channels = 0, height = 0, width = 0;  ///< sizes of the input
  int size = 2;                             ///< at most 15
};

/// y = the largest element of each window, and winner = its index in the window, row by row. The
/// first of equal elements wins. NaN wins over every number, so that a diverged task is detected.
template <class T>
void max_pool_forward(T* y, std::uint8_t* winner, const T* x, PoolSize size, const RowExtent& rows,
                      cudaStream_t stream);
/// y = x at the winners: the tangent of max pooling.
template <class T>
void max_pool_gather(T* y, const std::uint8_t* winner, const T* x, PoolSize size,
                     const RowExtent& rows, cudaStream_t stream);
/// g_x = g_y at the winners and zero elsewhere: the gradient, and the tangent of the gradient.
template <class T>
void max_pool_scatter(T* g_x, const std::uint8_t* winner, const T* g_y, PoolSize size,
                      const RowExtent& rows, cudaStream_t stream);

/// y [tasks, rows, channels] = the mean over the `positions` of a map. The function is its own
/// tangent.
template <class T>
void mean_forward(T* y, const T* x, int channels, int positions, const RowExtent& rows,
                  cudaStream_t stream);
/// g_x = g_y / positions: the gradient, and the tangent of the gradient.
template <class T>
void mean_backward(T* g_x, const T* g_y, int channels, int positions, const RowExtent& rows,
                   cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
