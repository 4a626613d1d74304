// Max and mean pooling (pool.h).
//
// Mathematics    y[o] = max over its window of x[i]. winner[o] is the argmax, and everything else
//                is linear: the tangent is y'[o] = x'[winner], and the gradient is g_x[i] = g_y[o]
//                where i is o's winner, else 0. Windows do not overlap, so an input has at most one
//                output.
// Layout         Features [task][row][channel][y][x]; winner has one byte per output.
// Who does what  A thread computes one element of the output (in mean_forward: sums one map), in
//                by_own_row of passes.h. Nothing is written twice.
// Outputs        Overwritten.
// Bytes          Per output, with s = sizeof(T) and w = size^2: max_pool_forward w s + s + 1,
//                gather 2 s + 1 (whole sectors of x are fetched: up to w s), scatter w s + s + 1.
//                The mean moves one map and one number, in both directions.
// Operations     A comparison or an addition per input, and the divisions of its index. All kernels
//                are bound by memory.
#include "kernels/pool.h"

#include <string>

#include "kernels/passes.h"
#include "kshot/error.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

/// Maps of the input and of the output, counted over all tasks, rows and channels.
struct Windows {
  int height, width, out_height, out_width, size;

  /// Index of the input element at the upper left corner of output `o`'s window.
  __device__ std::size_t corner(std::size_t o) const {
    const auto plane = static_cast<std::size_t>(out_height * out_width);
    const std::size_t map = o / plane;
    const int at = static_cast<int>(o - map * plane);
    const int y = at / out_width * size, x = at % out_width * size;
    return map * static_cast<std::size_t>(height * width) + static_cast<std::size_t>(y * width + x);
  }
  /// Offset of element w of a window from its corner.
  __device__ std::size_t offset(int w) const {
    return static_cast<std::size_t>(w / size * width + w % size);
  }
};

template <class T>
struct Forward {
  T* y;
  std::uint8_t* winner;
  const T* x;
  Windows windows;
  __device__ void operator()(std::size_t o) const {
    const T* corner = x + windows.corner(o);
    T best = corner[0];
    int who = 0;
    for (int w = 1; w < windows.size * windows.size; ++w) {
      const T value = corner[windows.offset(w)];
      if (value > best || value != value) {
        best = value;
        who = w;
      }
    }
    y[o] = best;
    winner[o] = static_cast<std::uint8_t>(who);
  }
};

template <class T>
struct Gather {
  T* y;
  const std::uint8_t* winner;
  const T* x;
  Windows windows;
  __device__ void operator()(std::size_t o) const {
    y[o] = x[windows.corner(o) + windows.offset(winner[o])];
  }
};

template <class T>
struct Scatter {
  T* g_x;
  const std::uint8_t* winner;
  const T* g_y;
  Windows windows;
  __device__ void operator()(std::size_t i) const {
    const Windows& s = windows;
    const auto plane = static_cast<std::size_t>(s.height * s.width);
    const std::size_t map = i / plane;
    const int at = static_cast<int>(i - map * plane);
    const int in_y = at / s.width, in_x = at % s.width;
    const int y = in_y / s.size, x = in_x / s.size;
    T value = 0;
    if (y < s.out_height && x < s.out_width) {
      const std::size_t o = map * static_cast<std::size_t>(s.out_height * s.out_width) +
                            static_cast<std::size_t>(y * s.out_width + x);
      if (winner[o] == (in_y - y * s.size) * s.size + in_x - x * s.size) value = g_y[o];
    }
    g_x[i] = value;
  }
};

template <class T>
struct MeanForward {
  T* y;
  const T* x;
  int positions;
  __device__ void operator()(std::size_t o) const {
    const T* map = x + o * static_cast<std::size_t>(positions);
    T sum = 0;
    for (int p = 0; p < positions; ++p) sum += map[p];
    y[o] = sum / static_cast<T>(positions);
  }
};

template <class T>
struct MeanBackward {
  T* g_x;
  const T* g_y;
  int positions;
  __device__ void operator()(std::size_t i) const {
    g_x[i] = g_y[i / static_cast<std::size_t>(positions)] / static_cast<T>(positions);
  }
};

Windows windows_of(const PoolSize& s) {
  if (s.size < 1 || s.size > 15 || s.height < s.size || s.width < s.size) {
    throw Error("max_pool of " + std::to_string(s.height) + " x " + std::to_string(s.width) +
                ": window " + std::to_string(s.size) + ", expected 1 to 15 that fits");
  }
  return {s.height, s.width, s.height / s.size, s.width / s.size, s.size};
}

int outputs_of(const PoolSize& s) {
  return s.channels * (s.height / s.size) * (s.width / s.size);
}

}  // namespace

// ---- launchers ----

template <class T>
void max_pool_forward(T* y, std::uint8_t* winner, const T* x, PoolSize size, const RowExtent& rows,
                      cudaStream_t stream) {
  by_own_row(Forward<T>{y, winner, x, windows_of(size)}, outputs_of(size), rows, stream);
}

template <class T>
void max_pool_gather(T* y, const std::uint8_t* winner, const T* x, PoolSize size,
                     const RowExtent& rows, cudaStream_t stream) {
  by_own_row(Gather<T>{y, winner, x, windows_of(size)}, outputs_of(size), rows, stream);
}

template <class T>
void max_pool_scatter(T* g_x, const std::uint8_t* winner, const T* g_y, PoolSize size,
                      const RowExtent& rows, cudaStream_t stream) {
  by_own_row(Scatter<T>{g_x, winner, g_y, windows_of(size)},
             size.channels * size.height * size.width, rows, stream);
}

template <class T>
void mean_forward(T* y, const T* x, int channels, int positions, const RowExtent& rows,
                  cudaStream_t stream) {
  by_own_row(MeanForward<T>{y, x, positions}, channels, rows, stream);
}

template <class T>
void mean_backward(T* g_x, const T* g_y, int channels, int positions, const RowExtent& rows,
                   cudaStream_t stream) {
  by_own_row(MeanBackward<T>{g_x, g_y, positions}, channels * positions, rows, stream);
}

#define KSHOT_INSTANTIATE(T)                                                                    \
  template void max_pool_forward(T*, std::uint8_t*, const T*, PoolSize, const RowExtent&,       \
                                 cudaStream_t);                                                 \
  template void max_pool_gather(T*, const std::uint8_t*, const T*, PoolSize, const RowExtent&,  \
                                cudaStream_t);                                                  \
  template void max_pool_scatter(T*, const std::uint8_t*, const T*, PoolSize, const RowExtent&, \
                                 cudaStream_t);                                                 \
  template void mean_forward(T*, const T*, int, int, const RowExtent&, cudaStream_t);           \
  template void mean_backward(T*, const T*, int, int, const RowExtent&, cudaStream_t)
KSHOT_INSTANTIATE(float);
KSHOT_INSTANTIATE(double);
#undef KSHOT_INSTANTIATE

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
