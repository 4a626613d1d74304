#include "simt/kernels/good.h"

#include <thrust/copy.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/scan.h>
#include <thrust/system/cuda/execution_policy.h>

#include "kernels/device.h"
#include "kernels/tensor_core.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

constexpr int tile_size = 16;

template <class T>
__global__ void matrix_product_kernel(T* c, const T* a, const T* b, int m, int n, int k) {
  KSHOT_SHARED(T, tile_a, [tile_size][tile_size]);
  KSHOT_SHARED(T, tile_b, [tile_size][tile_size]);
  const int tx = static_cast<int>(threadIdx.x), ty = static_cast<int>(threadIdx.y);
  const int col = static_cast<int>(blockIdx.x) * tile_size + tx;
  const int row = static_cast<int>(blockIdx.y) * tile_size + ty;
  T sum = 0;
  for (int first = 0; first < k; first += tile_size) {
    tile_a[ty][tx] = row < m && first + tx < k ? a[row * k + first + tx] : T(0);
    tile_b[ty][tx] = first + ty < k && col < n ? b[(first + ty) * n + col] : T(0);
    __syncthreads();
    for (int i = 0; i < tile_size; ++i) sum += tile_a[ty][i] * tile_b[i][tx];
    __syncthreads();
  }
  if (row < m && col < n) c[row * n + col] = sum;
}

template <class T>
__device__ T warp_sum(T value) {
  for (int lanes = warp_lanes / 2; lanes > 0; lanes /= 2) {
    value += __shfl_xor_sync(all_lanes, value, lanes);
  }
  return value;
}

template <class T>
__global__ void __launch_bounds__(128) row_sums_kernel(T* sums, const T* x, int width) {
  KSHOT_SHARED(T, of_warp, [4]);
  const int thread = static_cast<int>(threadIdx.x), row = static_cast<int>(blockIdx.x);
  T sum = 0;
  for (int i = thread; i < width; i += 128) sum += x[row * width + i];
  sum = warp_sum(sum);
  if (thread % warp_lanes == 0) of_warp[thread / warp_lanes] = sum;
  __syncthreads();
  if (thread == 0) sums[row] = of_warp[0] + of_warp[1] + of_warp[2] + of_warp[3];
}

__global__ void transpose_kernel(float* to, const float* from, int rows, int cols) {
  // one more column, so that the elements of a column lie in 32 banks
  KSHOT_SHARED(float, tile, [32][33]);
  const int tx = static_cast<int>(threadIdx.x), ty = static_cast<int>(threadIdx.y);
  const int left = static_cast<int>(blockIdx.x) * 32, top = static_cast<int>(blockIdx.y) * 32;
  for (int i = ty; i < 32; i += 8) {
    if (top + i < rows && left + tx < cols) tile[i][tx] = from[(top + i) * cols + left + tx];
  }
  __syncthreads();
  for (int i = ty; i < 32; i += 8) {
    if (left + i < cols && top + tx < rows) to[(left + i) * rows + top + tx] = tile[tx][i];
  }
}

__global__ void warp_scan_kernel(int* y, const int* x, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  int sum = i < n ? x[i] : 0;
  for (unsigned delta = 1; delta < warp_lanes; delta *= 2) {
    const int below = __shfl_up_sync(all_lanes, sum, delta);
    if (lane >= static_cast<int>(delta)) sum += below;
  }
  if (i < n) y[i] = sum;
}

__global__ void histogram_kernel(unsigned* bins, const int* x, int n) {
  KSHOT_SHARED(unsigned, counts, [16]);
  if (threadIdx.x < 16) counts[threadIdx.x] = 0;
  __syncthreads();
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) atomicAdd(&counts[x[i]], 1u);
  __syncthreads();
  if (threadIdx.x < 16) atomicAdd(&bins[threadIdx.x], counts[threadIdx.x]);
}

__global__ void axpy_kernel(float* y, float a, const float* x, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) y[i] += a * x[i];
}

__global__ void reverse_kernel(double* y, const double* x, int n) {
  DynamicShared shared;
  auto* place = shared.take<int>(static_cast<unsigned>(n));
  auto* value = shared.take<double>(static_cast<unsigned>(n));
  const int i = static_cast<int>(threadIdx.x);
  if (i < n) {
    place[i] = n - 1 - i;
    value[i] = x[i];
  }
  __syncthreads();
  if (i < n) y[i] = value[place[i]];
}

__global__ void any_negative_kernel(int* flag, const float* x, int n) {
  const int i = static_cast<int>(threadIdx.x);
  if (i < n && x[i] < 0.0f) store_uniform(flag, 1);
}

unsigned blocks(int n, int size) {
  return static_cast<unsigned>((n + size - 1) / size);
}

}  // namespace

template <class T>
void matrix_product(T* c, const T* a, const T* b, int m, int n, int k, cudaStream_t stream) {
  launch<matrix_product_kernel<T>>({.grid = {blocks(n, tile_size), blocks(m, tile_size)},
                                    .block = {tile_size, tile_size},
                                    .stream = stream},
                                   c, a, b, m, n, k);
}
template void matrix_product(float*, const float*, const float*, int, int, int, cudaStream_t);
template void matrix_product(double*, const double*, const double*, int, int, int, cudaStream_t);

template <class T>
void row_sums(T* sums, const T* x, int rows, int width, cudaStream_t stream) {
  launch<row_sums_kernel<T>>({.grid = static_cast<unsigned>(rows), .block = 128, .stream = stream},
                             sums, x, width);
}
template void row_sums(float*, const float*, int, int, cudaStream_t);
template void row_sums(double*, const double*, int, int, cudaStream_t);

void transpose(float* to, const float* from, int rows, int cols, cudaStream_t stream) {
  launch<transpose_kernel>(
      {.grid = {blocks(cols, 32), blocks(rows, 32)}, .block = {32, 8}, .stream = stream}, to, from,
      rows, cols);
}

void warp_scan(int* y, const int* x, int n, cudaStream_t stream) {
  launch<warp_scan_kernel>({.grid = blocks(n, 64), .block = 64, .stream = stream}, y, x, n);
}

void histogram(unsigned* bins, const int* x, int n, cudaStream_t stream) {
  launch<histogram_kernel>({.grid = blocks(n, 64), .block = 64, .stream = stream}, bins, x, n);
}

void axpy(float* y, float a, const float* x, int n, cudaStream_t stream) {
  launch<axpy_kernel>({.grid = blocks(n, 64), .block = 64, .stream = stream}, y, a, x, n);
}

void reverse(double* y, const double* x, int n, cudaStream_t stream) {
  const auto count = static_cast<std::size_t>(n);
  launch<reverse_kernel>({.block = static_cast<unsigned>(n),
                          .shared_bytes = SharedSize().add<int>(count).add<double>(count).bytes(),
                          .stream = stream},
                         y, x, n);
}

void any_negative(int* flag, const float* x, int n, cudaStream_t stream) {
  launch<any_negative_kernel>({.block = static_cast<unsigned>(n), .stream = stream}, flag, x, n);
}

namespace {

// The fragments follow the PTX ISA ("Matrix Fragments for mma.m16n8k8", .tf32).
__global__ void tensor_product_kernel(float* d, const float* a, const float* b, const float* c) {
  const int lane = static_cast<int>(threadIdx.x), group = lane >> 2, in_group = lane % 4;
  Tf32 of_a[4], of_b[2];
  float of_c[4], of_d[4];
  const auto c_at = [&](int i) {
    const int row = i < 2 ? group : group + 8, col = in_group * 2 + (i & 1);
    return row * 8 + col;
  };
  for (int i = 0; i < 4; ++i) {
    const int row = i == 0 || i == 2 ? group : group + 8, col = i < 2 ? in_group : in_group + 4;
    of_a[i] = __float_as_uint(a[row * 8 + col]);
    of_c[i] = c[c_at(i)];
  }
  for (int i = 0; i < 2; ++i) {
    const int row = i == 0 ? in_group : in_group + 4, col = group;
    of_b[i] = __float_as_uint(b[row * 8 + col]);
  }
  multiply_tf32(of_d, of_a, of_b, of_c);
  for (int i = 0; i < 4; ++i) d[c_at(i)] = of_d[i];
}

__global__ void multiply_fragments_kernel(float* d, const float* a, const float* b,
                                          const float* c) {
  const int lane = static_cast<int>(threadIdx.x);
  Tf32 of_a[4], of_b[2];
  float of_c[4], of_d[4];
  for (int i = 0; i < 4; ++i) of_a[i] = __float_as_uint(a[lane * 4 + i]);
  for (int i = 0; i < 2; ++i) of_b[i] = __float_as_uint(b[lane * 2 + i]);
  for (int i = 0; i < 4; ++i) of_c[i] = c[lane * 4 + i];
  multiply_tf32(of_d, of_a, of_b, of_c);
  for (int i = 0; i < 4; ++i) d[lane * 4 + i] = of_d[i];
}

__global__ void split_kernel(float* hi, float* lo, const float* x, int n) {
  const int i = static_cast<int>(threadIdx.x);
  if (i >= n) return;
  Tf32 h, l;
  split_tf32(x[i], h, l);
  hi[i] = __uint_as_float(h);
  lo[i] = __uint_as_float(l);
}

}  // namespace

void tensor_product(float* d, const float* a, const float* b, const float* c, cudaStream_t stream) {
  launch<tensor_product_kernel>({.block = 32, .stream = stream}, d, a, b, c);
}

void multiply_fragments(float* d, const float* a, const float* b, const float* c,
                        cudaStream_t stream) {
  launch<multiply_fragments_kernel>({.block = 32, .stream = stream}, d, a, b, c);
}

void split(float* hi, float* lo, const float* x, int n, cudaStream_t stream) {
  launch<split_kernel>({.block = static_cast<unsigned>(n), .stream = stream}, hi, lo, x, n);
}

namespace {
struct NotZero {
  __host__ __device__ bool operator()(int count) const { return count != 0; }
};
}  // namespace

int starts_and_kept(int* starts, int* kept, const int* counts, int n, cudaStream_t stream) {
  const auto policy = thrust::cuda::par_nosync.on(stream);
  thrust::exclusive_scan(policy, counts, counts + n, starts, 0);
  const auto index = thrust::make_counting_iterator(0);
  return static_cast<int>(thrust::copy_if(policy, index, index + n, counts, kept, NotZero()) -
                          kept);
}

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
