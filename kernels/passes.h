// Code that kernel files share: passes over vectors, element by element, and sums over a block.
//
// Who does what  flat: each thread takes every (grid size)-th element. by_task: a block takes
//                `chunk` elements of one task, and neighbouring threads take neighbouring elements.
//                by_own_row: a block takes 256 neighbouring elements of one task's own rows, one
//                per thread; blocks beyond these rows return at once. block_sum: adds over lanes,
//                then over warps, in a fixed order.
#pragma once

#include <algorithm>
#include <cstddef>

#include "kernels/device.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

constexpr int threads = 256;   ///< threads per block
constexpr int per_thread = 4;  ///< independent loads in flight per thread
constexpr int chunk = threads * per_thread;

#if defined(KSHOT_SIMT) || defined(__CUDACC__)

// ---- pass(index) for all of `count` ----

template <class Pass>
__global__ void __launch_bounds__(threads) flat_kernel(Pass pass, std::size_t count) {
  const std::size_t step = std::size_t{gridDim.x} * threads;
  for (std::size_t i = std::size_t{blockIdx.x} * threads + threadIdx.x; i < count; i += step) {
    pass(i);
  }
}

template <class Pass>
void flat(const Pass& pass, std::size_t count, cudaStream_t stream) {
  if (count == 0) return;
  const std::size_t blocks = (count + chunk - 1) / chunk;
  launch<flat_kernel<Pass>>({.grid = static_cast<unsigned>(std::min<std::size_t>(blocks, 1u << 30)),
                             .block = threads,
                             .stream = stream},
                            pass, count);
}

// ---- pass(task, element, index over all tasks) ----

template <class Pass>
__global__ void __launch_bounds__(threads) by_task_kernel(Pass pass, int width, int chunks) {
  const int task = static_cast<int>(blockIdx.x) / chunks;
  const int first = (static_cast<int>(blockIdx.x) - task * chunks) * chunk;
  const std::size_t row = static_cast<std::size_t>(task) * static_cast<std::size_t>(width);
#pragma unroll
  for (int k = 0; k < per_thread; ++k) {
    const int i = first + k * threads + static_cast<int>(threadIdx.x);
    if (i < width) pass(task, i, row + static_cast<std::size_t>(i));
  }
}

template <class Pass>
void by_task(const Pass& pass, Extent extent, cudaStream_t stream) {
  if (extent.count() == 0) return;
  const int chunks = (extent.width + chunk - 1) / chunk;
  launch<by_task_kernel<Pass>>(
      {.grid = static_cast<unsigned>(extent.tasks) * static_cast<unsigned>(chunks),
       .block = threads,
       .stream = stream},
      pass, extent.width, chunks);
}

// ---- pass(index) for the elements of a task's own rows, `features` per row, over all tasks ----

template <class Pass>
__global__ void __launch_bounds__(threads)
    by_own_row_kernel(Pass pass, RowExtent rows, int features, int blocks_per_task) {
  const int task = static_cast<int>(blockIdx.x) / blocks_per_task;
  const int i = (static_cast<int>(blockIdx.x) - task * blocks_per_task) * threads +
                static_cast<int>(threadIdx.x);
  if (i >= own_row_count(rows, task) * features) return;
  const std::size_t first = static_cast<std::size_t>(task) * static_cast<std::size_t>(rows.rows) *
                            static_cast<std::size_t>(features);
  pass(first + static_cast<std::size_t>(i));
}

template <class Pass>
void by_own_row(const Pass& pass, int features, const RowExtent& rows, cudaStream_t stream) {
  const int blocks = (rows.rows * features + threads - 1) / threads;
  if (rows.tasks == 0 || blocks == 0) return;
  launch<by_own_row_kernel<Pass>>(
      {.grid = static_cast<unsigned>(rows.tasks) * static_cast<unsigned>(blocks),
       .block = threads,
       .stream = stream},
      pass, rows, features, blocks);
}

// ---- factors ----

template <class T>
__device__ T scale_of(const TaskScale<T>& scale, int task) {
  return scale.counts ? scale.factor / static_cast<T>(scale.counts[task]) : scale.factor;
}

// ---- sums ----

/// Returns the sum over a block of `threads` to thread 0, and 0 to the others. All threads must
/// call it.
template <class T>
__device__ T block_sum(T value) {
  KSHOT_SHARED(T, of_warp, [threads / warp_lanes]);
  const int thread = static_cast<int>(threadIdx.x);
  value = warp_sum(value);
  __syncthreads();  // every thread has read of_warp of the last call
  if (thread % warp_lanes == 0) of_warp[thread / warp_lanes] = value;
  __syncthreads();
  if (thread != 0) return T(0);
  T total = 0;
  for (int w = 0; w < threads / warp_lanes; ++w) total += of_warp[w];
  return total;
}

#endif

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
