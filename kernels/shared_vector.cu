// Vectors that all tasks share (shared_vector.h).
//
// Mathematics    The comments of src/backend/shared_vectors.h. Adam: Kingma & Ba 2015, algorithm 1.
// Layout         [count].
// Who does what  Element-wise passes: passes.h. Sums: one block strides over the vector
//                (gather_sum: one block per element; clip: one block per segment), so that the
//                length alone fixes the order of the sum. The vectors have the size of one task's
//                weights, about a megabyte. column_orthogonality: a block computes the length of
//                one column, and a thread computes one of the other numbers.
// Outputs        Overwritten, but sums and gradients are accumulated.
// Bytes          Every operand once.
#include "kernels/shared_vector.h"

#include "kernels/passes.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

template <class T>
__device__ T clamp(T x, T limit) {
  if (x > limit) return limit;
  return x < -limit ? -limit : x;
}

template <class T>
struct Multiply {
  T* dst;
  const T* src;
  __device__ void operator()(std::size_t i) const { dst[i] *= src[i]; }
};

template <class T>
struct Gather {
  T* dst;
  const T* src;
  const std::uint32_t* index;
  __device__ void operator()(std::size_t i) const { dst[i] = src[index[i]]; }
};

template <class T>
struct OptimizerPass {
  OptimizerArguments<T> a;
  __device__ void operator()(std::size_t i) const {
    // factor of clip_norm
    double factor = 1.0;
    if (a.step) {
      if (a.step->status == static_cast<double>(StepStatus::stop)) return;
      if (a.clip_norm > 0.0) {
        const double length = sqrt(a.step->clipped_squares);
        if (length > a.clip_norm) factor = a.clip_norm / length;
      }
    }
    // clipped gradient, with weight decay
    T x = a.gradient[i];
    if (a.clip > T(0)) x = clamp(x, a.clip);
    x *= static_cast<T>(factor);
    x += a.decay * a.parameters[i];
    // SGD with momentum
    if (!a.second) {
      const T m = a.momentum * a.first[i] + x;
      a.first[i] = m;
      a.parameters[i] -= a.rate * m;
      return;
    }
    // Adam
    const T m = a.beta1 * a.first[i] + (T(1) - a.beta1) * x;
    const T v = a.beta2 * a.second[i] + (T(1) - a.beta2) * x * x;
    a.first[i] = m;
    a.second[i] = v;
    a.parameters[i] -= a.rate * (m / a.correction1) / (sqrt(v / a.correction2) + a.epsilon);
  }
};

/// Returns the sum of term(i) over [0, count), computed by one block, to its thread 0.
template <class Term>
__device__ double strided_sum(const Term& term, std::size_t count) {
  double sum = 0.0;
  for (std::size_t i = threadIdx.x; i < count; i += threads) sum += term(i);
  return block_sum(sum);
}

template <class T>
__global__ void __launch_bounds__(threads)
    squared_norm_kernel(double* to, double factor, const T* x, T limit, std::size_t count) {
  const double sum = strided_sum(
      [&](std::size_t i) {
        const double v = static_cast<double>(limit > T(0) ? clamp(x[i], limit) : x[i]);
        return v * v;
      },
      count);
  if (threadIdx.x == 0) to[0] += factor * sum;
}

template <class T>
__global__ void __launch_bounds__(threads)
    gather_sum_kernel(T* dst, const T* src, const std::uint32_t* first, const std::uint32_t* order,
                      bool accumulate) {
  const std::uint32_t begin = first[blockIdx.x];
  const double sum =
      strided_sum([&](std::size_t i) { return static_cast<double>(src[order[begin + i]]); },
                  first[blockIdx.x + 1] - begin);
  if (threadIdx.x != 0) return;
  dst[blockIdx.x] = accumulate ? dst[blockIdx.x] + static_cast<T>(sum) : static_cast<T>(sum);
}

template <class T>
__global__ void __launch_bounds__(threads)
    hyper_prior_kernel(double* to, const T* mu, const T* s, double a0, double b0, double weight,
                       T* g_mu, T* g_s, std::size_t count) {
  const double sum = strided_sum(
      [&](std::size_t i) {
        const double x = static_cast<double>(mu[i]), log_sigma = static_cast<double>(s[i]);
        const double tau = exp(-2.0 * log_sigma);
        g_mu[i] += static_cast<T>(weight * x);
        g_s[i] += static_cast<T>(weight * (2.0 * (a0 - 1.0) - 2.0 * b0 * tau));
        return 0.5 * x * x - ((a0 - 1.0) * (-2.0 * log_sigma) - b0 * tau);
      },
      count);
  if (threadIdx.x == 0) to[0] += weight * sum;
}

template <class T>
__global__ void __launch_bounds__(threads)
    clip_kernel(T* x, T limit, double norm, const Segment* segments) {
  KSHOT_SHARED(double, length, );
  const Segment segment = segments[blockIdx.x];
  T* const begin = x + segment.offset;
  const double sum = strided_sum(
      [&](std::size_t i) {
        if (limit > T(0)) begin[i] = clamp(begin[i], limit);
        return static_cast<double>(begin[i]) * static_cast<double>(begin[i]);
      },
      segment.size);
  if (threadIdx.x == 0) length = sqrt(sum);
  __syncthreads();
  if (length <= norm) return;
  const T factor = static_cast<T>(norm / length);
  for (std::size_t i = threadIdx.x; i < segment.size; i += threads) begin[i] *= factor;
}

// ---- orthogonality of columns: the formulas are explained in host.cpp ----

template <class T>
__global__ void __launch_bounds__(threads)
    column_length_kernel(double* length, const T* d, int rows, int columns) {
  const double sum = strided_sum(
      [&](std::size_t r) {
        const double x = static_cast<double>(d[r * static_cast<std::size_t>(columns) + blockIdx.x]);
        return x * x;
      },
      static_cast<std::size_t>(rows));
  if (threadIdx.x == 0) length[blockIdx.x] = sqrt(sum);
}

template <class T>
struct ColumnCosine {
  double* cosine;
  const double* length;
  const T* d;
  int rows, columns;
  __device__ void operator()(std::size_t i) const {
    const std::size_t n = static_cast<std::size_t>(columns), a = i / n, b = i - a * n;
    double sum = 0.0;
    for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r) {
      sum += static_cast<double>(d[r * n + a]) * static_cast<double>(d[r * n + b]);
    }
    cosine[i] = sum / (length[a] * length[b]);
  }
};

/// Computes a column's share of the value. Replaces the column's row of cosines by the factors of
/// the other columns in its gradient.
struct ColumnShare {
  double* cosine;
  double* share_of;
  double share;
  int columns;
  __device__ void operator()(std::size_t a) const {
    const std::size_t n = static_cast<std::size_t>(columns);
    double along = 0.0, value = 0.0;
    for (std::size_t b = 0; b < n; ++b) {
      const double c = cosine[a * n + b], off = c - (a == b ? 1.0 : 0.0);
      value += share * off * off;
      along += off * c;
      cosine[a * n + b] = off;
    }
    cosine[a * n + a] -= along;
    share_of[a] = value;
  }
};

__global__ void __launch_bounds__(threads) sum_kernel(double* to, const double* x, int count) {
  const double sum =
      strided_sum([&](std::size_t i) { return x[i]; }, static_cast<std::size_t>(count));
  if (threadIdx.x == 0) to[0] += sum;
}

template <class T>
struct ColumnGradient {
  T* g;
  const double* cosine;
  const double* length;
  const T* d;
  double share;
  int columns;
  __device__ void operator()(std::size_t i) const {
    const std::size_t n = static_cast<std::size_t>(columns), r = i / n, a = i - r * n;
    double sum = 0.0;
    for (std::size_t b = 0; b < n; ++b) {
      sum += cosine[a * n + b] * (static_cast<double>(d[r * n + b]) / length[b]);
    }
    g[i] += static_cast<T>(4.0 * share * sum / length[a]);
  }
};

}  // namespace

template <class T>
void multiply(T* dst, const T* src, std::size_t count, cudaStream_t stream) {
  flat(Multiply<T>{dst, src}, count, stream);
}

template <class T>
void squared_norm(double* sum, double factor, const T* x, T clip, std::size_t count,
                  cudaStream_t stream) {
  launch<squared_norm_kernel<T>>({.block = threads, .stream = stream}, sum, factor, x, clip, count);
}

template <class T>
void gather(T* dst, const T* src, const std::uint32_t* index, std::size_t count,
            cudaStream_t stream) {
  flat(Gather<T>{dst, src, index}, count, stream);
}

template <class T>
void gather_sum(T* dst, const T* src, const std::uint32_t* first, const std::uint32_t* order,
                std::size_t count, bool accumulate, cudaStream_t stream) {
  if (count == 0) return;
  launch<gather_sum_kernel<T>>(
      {.grid = static_cast<unsigned>(count), .block = threads, .stream = stream}, dst, src, first,
      order, accumulate);
}

template <class T>
void hyper_prior(double* sum, const T* mu, const T* s, double a0, double b0, double weight, T* g_mu,
                 T* g_s, std::size_t count, cudaStream_t stream) {
  launch<hyper_prior_kernel<T>>({.block = threads, .stream = stream}, sum, mu, s, a0, b0, weight,
                                g_mu, g_s, count);
}

template <class T>
void clip(T* x, T value, double norm, const Segment* segments, int count, cudaStream_t stream) {
  if (count == 0) return;
  launch<clip_kernel<T>>({.grid = static_cast<unsigned>(count), .block = threads, .stream = stream},
                         x, value, norm, segments);
}

template <class T>
void column_orthogonality(double* value, const T* d, int rows, int columns, double weight, T* g,
                          double* scratch, cudaStream_t stream) {
  const auto n = static_cast<std::size_t>(columns);
  double* const cosine = scratch;
  double* const length = cosine + n * n;
  double* const share_of = length + n;
  const double share = weight / static_cast<double>(n * n);
  launch<column_length_kernel<T>>(
      {.grid = static_cast<unsigned>(columns), .block = threads, .stream = stream}, length, d, rows,
      columns);
  flat(ColumnCosine<T>{cosine, length, d, rows, columns}, n * n, stream);
  flat(ColumnShare{cosine, share_of, share, columns}, n, stream);
  launch<sum_kernel>({.block = threads, .stream = stream}, value, share_of, columns);
  flat(ColumnGradient<T>{g, cosine, length, d, share, columns}, static_cast<std::size_t>(rows) * n,
       stream);
}

template <class T>
void optimizer_step(const OptimizerArguments<T>& step, std::size_t count, cudaStream_t stream) {
  flat(OptimizerPass<T>{step}, count, stream);
}

#define KSHOT_INSTANTIATE(T)                                                                      \
  template void multiply(T*, const T*, std::size_t, cudaStream_t);                                \
  template void squared_norm(double*, double, const T*, T, std::size_t, cudaStream_t);            \
  template void gather(T*, const T*, const std::uint32_t*, std::size_t, cudaStream_t);            \
  template void gather_sum(T*, const T*, const std::uint32_t*, const std::uint32_t*, std::size_t, \
                           bool, cudaStream_t);                                                   \
  template void hyper_prior(double*, const T*, const T*, double, double, double, T*, T*,          \
                            std::size_t, cudaStream_t);                                           \
  template void clip(T*, T, double, const Segment*, int, cudaStream_t);                           \
  template void column_orthogonality(double*, const T*, int, int, double, T*, double*,            \
                                     cudaStream_t);                                               \
  template void optimizer_step(const OptimizerArguments<T>&, std::size_t, cudaStream_t)
KSHOT_INSTANTIATE(float);
KSHOT_INSTANTIATE(double);
#undef KSHOT_INSTANTIATE

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
