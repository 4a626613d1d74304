// Pooling of maps, and the linear maps that are its gradient and tangent.
//
// Layout: features [tasks, rows, channels, height, width]. Rows beyond a task's own are neither
// read nor written. Outputs are overwritten and do not overlap inputs. Pointers are device memory.
// Instantiated for float and double. Throws kshot::Error for a window that does not fit.
#pragma once

#include "kernels/extent.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// Windows of size x size, side by side; what is left over at the right and below is not seen.
struct PoolSize {
  int channels = 0, height = 0, width = 0;  ///< of the input
  int size = 2;                             ///< at most 15
};

/// y = the largest of each window; winner = its place in the window, row by row. Of equals the
/// first wins, and a NaN beats all, so that a diverged task is seen.
template <class T>
void max_pool_forward(T* y, std::uint8_t* winner, const T* x, PoolSize size, const RowExtent& rows,
                      cudaStream_t stream);
/// y = x at the winners: the tangent.
template <class T>
void max_pool_gather(T* y, const std::uint8_t* winner, const T* x, PoolSize size,
                     const RowExtent& rows, cudaStream_t stream);
/// g_x = g_y at the winners and zero elsewhere: the gradient, and the gradient's tangent.
template <class T>
void max_pool_scatter(T* g_x, const std::uint8_t* winner, const T* g_y, PoolSize size,
                      const RowExtent& rows, cudaStream_t stream);

/// y [tasks, rows, channels] = mean over the `positions` of a map; its own tangent.
template <class T>
void mean_forward(T* y, const T* x, int channels, int positions, const RowExtent& rows,
                  cudaStream_t stream);
/// g_x = g_y / positions: the gradient, and the gradient's tangent.
template <class T>
void mean_backward(T* g_x, const T* g_y, int channels, int positions, const RowExtent& rows,
                   cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
