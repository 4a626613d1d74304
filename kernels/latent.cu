// Small passes over per-task vectors (latent.h).
//
// Mathematics    In the header.
// Layout         [tasks, width].
// Who does what  A thread computes one element. multiply_fold sums in ascending order. In
//                mean_square one block takes one task (passes.h, block_sum).
// Outputs        Overwritten, unless the header says +=.
// Bytes          Every operand once. draw_normal and drop are bound by Philox, with 60 integer
//                operations per element. They do not share the four words of a quad, because
//                latents and inputs are small.
#include "kernels/latent.h"

#include "kernels/passes.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

template <class T>
struct MultiplyFold {
  T* y;
  T a;
  const T* x1;
  const T* x2;
  int width, n;
  __device__ void operator()(int task, int i, std::size_t at) const {
    const std::size_t row = static_cast<std::size_t>(task) * static_cast<std::size_t>(width);
    T sum = y[at];
    for (int k = i; k < width; k += n) {
      sum += a * x1[row + static_cast<std::size_t>(k)] * x2[row + static_cast<std::size_t>(k)];
    }
    y[at] = sum;
  }
};

template <class T>
struct DrawNormal {
  T* dst;
  RandomKey key;
  __device__ void operator()(int task, int i, std::size_t at) const {
    RandomKey of_task = key;
    of_task.task += static_cast<std::uint32_t>(task);
    dst[at] = static_cast<T>(normal_element(of_task, static_cast<std::uint64_t>(i)));
  }
};

template <class T>
struct Drop {
  T* dst;
  const T* src;
  double rate;
  RandomKey key;
  __device__ void operator()(int task, int i, std::size_t at) const {
    RandomKey of_task = key;
    of_task.task += static_cast<std::uint32_t>(task);
    const double u = uniform_element(of_task, static_cast<std::uint64_t>(i));
    dst[at] = u < rate ? T(0) : src[at] / static_cast<T>(1.0 - rate);
  }
};

template <class T>
__global__ void __launch_bounds__(threads)
    mean_square_kernel(T* value, T scale, const T* a, const T* b, T* g_b, int width) {
  const int task = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const std::size_t row = static_cast<std::size_t>(task) * static_cast<std::size_t>(width);
  T sum = 0;
  for (int i = thread; i < width; i += threads) {
    const std::size_t at = row + static_cast<std::size_t>(i);
    const T d = a[at] - b[at];
    sum += d * d;
    g_b[at] -= T(2) * scale * d;
  }
  const T total = block_sum(sum);
  if (thread == 0) value[task] += scale * total;
}

}  // namespace

template <class T>
void multiply_fold(T* y, T a, const T* x1, const T* x2, Extent extent, int n, cudaStream_t stream) {
  by_task(MultiplyFold<T>{y, a, x1, x2, extent.width, n}, {extent.tasks, n}, stream);
}

template <class T>
void draw_normal(T* dst, const RandomKey& key, Extent extent, cudaStream_t stream) {
  by_task(DrawNormal<T>{dst, key}, extent, stream);
}

template <class T>
void mean_square(T* value, T weight, const T* a, const T* b, T* g_b, Extent extent,
                 cudaStream_t stream) {
  if (extent.count() == 0) return;
  launch<mean_square_kernel<T>>(
      {.grid = static_cast<unsigned>(extent.tasks), .block = threads, .stream = stream}, value,
      weight / static_cast<T>(extent.width), a, b, g_b, extent.width);
}

template <class T>
void drop(T* dst, const T* src, double rate, const RandomKey& key, Extent extent,
          cudaStream_t stream) {
  by_task(Drop<T>{dst, src, rate, key}, extent, stream);
}

#define KSHOT_INSTANTIATE(T)                                                         \
  template void multiply_fold(T*, T, const T*, const T*, Extent, int, cudaStream_t); \
  template void draw_normal(T*, const RandomKey&, Extent, cudaStream_t);             \
  template void mean_square(T*, T, const T*, const T*, T*, Extent, cudaStream_t);    \
  template void drop(T*, const T*, double, const RandomKey&, Extent, cudaStream_t)
KSHOT_INSTANTIATE(float);
KSHOT_INSTANTIATE(double);
#undef KSHOT_INSTANTIATE

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
