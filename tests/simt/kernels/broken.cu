#include "simt/kernels/broken.h"

#include "kernels/device.h"
#include "kernels/tensor_core.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace broken {
namespace {

constexpr int threads = 64;

__device__ int thread() {
  return static_cast<int>(threadIdx.x);
}

__global__ void barrier_removed_kernel(float* y, const float* x) {
  KSHOT_SHARED(float, tile, [threads]);
  tile[thread()] = x[thread()];
  y[thread()] = tile[threads - 1 - thread()];
}

__global__ void second_barrier_removed_kernel(float* y, const float* x) {
  KSHOT_SHARED(float, tile, [threads]);
  for (int i = 0; i < 2; ++i) {
    tile[thread()] = x[thread()];
    __syncthreads();
    y[thread()] = tile[threads - 1 - thread()];
  }
}

__global__ void shared_past_end_kernel(float* y, const float* x) {
  KSHOT_SHARED(float, tile, [threads]);
  float* at = tile;
  at[thread() + 1] = x[thread()];
  __syncthreads();
  y[thread()] = at[thread() + 1];
}

__global__ void shared_row_past_end_kernel(float* y, const float* x) {
  KSHOT_SHARED(float, tile, [8][8]);
  tile[thread() / 8][thread() % 8] = x[thread()];
  __syncthreads();
  y[thread()] = tile[thread() / 8][thread() % 8 + 1];
}

__global__ void dynamic_past_end_kernel(float* y, const float* x) {
  DynamicShared shared;
  auto* first = shared.take<float>(threads);
  auto* second = shared.take<float>(threads);
  second[thread()] = x[thread()];
  __syncthreads();
  y[thread()] = first[threads + thread()];
}

__global__ void dynamic_too_small_kernel(float* y, const float* x) {
  DynamicShared shared;
  auto* first = shared.take<float>(threads);
  auto* second = shared.take<float>(threads + 1);
  first[thread()] = second[thread()] = x[thread()];
  y[thread()] = first[thread()];
}

__global__ void global_past_end_kernel(float* y, const float* x) {
  y[thread()] = x[thread() + 1];
}

__global__ void global_before_begin_kernel(float* y, const float* x) {
  y[thread() - 1] = x[thread()];
}

__global__ void misaligned_kernel(float* y, const float* x) {
  if (thread() == 0) {
    *reinterpret_cast<float2*>(y + 1) = make_float2(x[0], x[1]);
  }
}

__global__ void shuffle_mask_lacks_caller_kernel(float* y, const float* x) {
  y[thread()] = __shfl_xor_sync(0x0000ffffu, x[thread()], 1);
}

__global__ void shuffle_mask_too_wide_kernel(float* y, const float* x) {
  if (thread() % 32 < 16) y[thread()] = __shfl_xor_sync(all_lanes, x[thread()], 1);
}

__global__ void shuffle_reads_outside_mask_kernel(float* y, const float* x) {
  if (thread() % 32 < 16) y[thread()] = __shfl_down_sync(0x0000ffffu, x[thread()], 1u);
}

__global__ void tensor_core_half_warp_kernel(float* y, const float* x) {
  const Tf32 a[4] = {}, b[2] = {};
  const float c[4] = {x[thread()]};
  float d[4] = {};
  if (thread() % 32 < 16) multiply_tf32(d, a, b, c);
  y[thread()] = d[0];
}

__global__ void barrier_in_divergent_code_kernel(float* y, const float* x) {
  if (thread() < threads / 2) {
    y[thread()] = x[thread()];
    __syncthreads();
  }
}

__global__ void two_barriers_kernel(float* y, const float* x) {
  if (thread() < threads / 2) {
    y[thread()] = x[thread()];
    __syncthreads();
  } else {
    y[thread()] = -x[thread()];
    __syncthreads();
  }
}

__global__ void return_before_barrier_kernel(float* y, const float* x) {
  KSHOT_SHARED(float, tile, [threads]);
  if (thread() == threads - 1) return;
  tile[thread()] = x[thread()];
  __syncthreads();
  y[thread()] = tile[0];
}

__global__ void same_value_kernel(float* y, const float* x) {
  KSHOT_SHARED(int, found, );
  if (x[thread()] > -1e30f) found = 1;
  __syncthreads();
  y[thread()] = static_cast<float>(found);
}

__global__ void uniform_differs_kernel(float* y, const float* x) {
  KSHOT_SHARED(float, last, );
  store_uniform(&last, x[thread()]);
  __syncthreads();
  y[thread()] = last;
}

__global__ void uninitialised_shared_kernel(float* y, const float* x) {
  KSHOT_SHARED(float, tile, [threads]);
  if (thread() != 7) tile[thread()] = x[thread()];
  __syncthreads();
  y[thread()] = tile[thread()];
}

__global__ void uninitialised_global_kernel(float* y, const float* x) {
  y[thread()] += x[thread()];
}

__global__ void warp_without_barrier_kernel(float* y, const float* x) {
  KSHOT_SHARED(float, tile, [threads]);
  tile[thread()] = x[thread()];
  y[thread()] = tile[thread() ^ 1];
}

__global__ void warp_barrier_between_warps_kernel(float* y, const float* x) {
  KSHOT_SHARED(float, tile, [threads]);
  tile[thread()] = x[thread()];
  __syncwarp();
  y[thread()] = tile[thread() ^ 32];
}

__global__ void blocks_write_same_kernel(float* y, const float* x) {
  y[thread()] = x[thread()];
}

__global__ void block_reads_other_kernel(float* y, const float* x) {
  if (blockIdx.x == 0) y[thread()] = x[thread()];
  if (blockIdx.x == 1 && y[thread()] > 1e30f) y[thread()] = 0;
}

__global__ void local_past_end_kernel(float* y, const float* x) {
  float sums[4] = {};
  for (int i = 0; i < 4; ++i) sums[(thread() + i) % 5] += x[i];
  y[thread()] = sums[0] + sums[1] + sums[2] + sums[3];
}

template <auto kernel>
void run(float* y, const float* x, unsigned blocks = 1, std::size_t shared_bytes = 0) {
  launch<kernel>({.grid = blocks, .block = threads, .shared_bytes = shared_bytes}, y, x);
}

}  // namespace

void barrier_removed(float* y, const float* x) {
  run<barrier_removed_kernel>(y, x);
}
void second_barrier_removed(float* y, const float* x) {
  run<second_barrier_removed_kernel>(y, x);
}
void shared_past_end(float* y, const float* x) {
  run<shared_past_end_kernel>(y, x);
}
void shared_row_past_end(float* y, const float* x) {
  run<shared_row_past_end_kernel>(y, x);
}
void dynamic_past_end(float* y, const float* x) {
  run<dynamic_past_end_kernel>(y, x, 1,
                               SharedSize().add<float>(threads).add<float>(threads).bytes());
}
void dynamic_too_small(float* y, const float* x) {
  run<dynamic_too_small_kernel>(y, x, 1,
                                SharedSize().add<float>(threads).add<float>(threads).bytes());
}
void global_past_end(float* y, const float* x) {
  run<global_past_end_kernel>(y, x);
}
void global_before_begin(float* y, const float* x) {
  run<global_before_begin_kernel>(y, x);
}
void host_pointer(float* y, const float*) {
  const std::string host(4096, '\0');
  run<blocks_write_same_kernel>(y, reinterpret_cast<const float*>(host.data()));
}
void misaligned(float* y, const float* x) {
  run<misaligned_kernel>(y, x);
}
void shuffle_mask_lacks_caller(float* y, const float* x) {
  run<shuffle_mask_lacks_caller_kernel>(y, x);
}
void shuffle_mask_too_wide(float* y, const float* x) {
  run<shuffle_mask_too_wide_kernel>(y, x);
}
void shuffle_reads_outside_mask(float* y, const float* x) {
  run<shuffle_reads_outside_mask_kernel>(y, x);
}
void tensor_core_half_warp(float* y, const float* x) {
  run<tensor_core_half_warp_kernel>(y, x);
}
void barrier_in_divergent_code(float* y, const float* x) {
  run<barrier_in_divergent_code_kernel>(y, x);
}
void two_barriers(float* y, const float* x) {
  run<two_barriers_kernel>(y, x);
}
void return_before_barrier(float* y, const float* x) {
  run<return_before_barrier_kernel>(y, x);
}
void same_value(float* y, const float* x) {
  run<same_value_kernel>(y, x);
}
void uniform_differs(float* y, const float* x) {
  run<uniform_differs_kernel>(y, x);
}
void uninitialised_shared(float* y, const float* x) {
  run<uninitialised_shared_kernel>(y, x);
}
void uninitialised_global(float* y, const float* x) {
  run<uninitialised_global_kernel>(y, x);
}
void warp_without_barrier(float* y, const float* x) {
  run<warp_without_barrier_kernel>(y, x);
}
void warp_barrier_between_warps(float* y, const float* x) {
  run<warp_barrier_between_warps_kernel>(y, x);
}
void blocks_write_same(float* y, const float* x) {
  run<blocks_write_same_kernel>(y, x, 2);
}
void block_reads_other(float* y, const float* x) {
  run<block_reads_other_kernel>(y, x, 2);
}
void local_past_end(float* y, const float* x) {
  run<local_past_end_kernel>(y, x);
}

}  // namespace broken
}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
