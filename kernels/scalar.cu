// Scalars of a task, and their effect on the task's vectors (scalar.h).
//
// Mathematics    In the header. Adam is that of shared_vector.cu, with the task's own count.
// Layout         Scalars [tasks], vectors [tasks, width].
// Who does what  A thread computes one element (passes.h, flat and by_task).
// Outputs        Overwritten.
// Bytes          Every operand once. A step of Adam reads four vectors and writes three. Its two
//                powers are computed per element, not per task; memory hides their cost.
#include "kernels/scalar.h"

#include "kernels/passes.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

template <class T>
struct FromCounts {
  T* dst;
  const std::int32_t* counts;
  __device__ void operator()(std::size_t i) const { dst[i] = static_cast<T>(counts[i]); }
};

template <class T>
struct Reciprocal {
  T* dst;
  const T* src;
  __device__ void operator()(std::size_t i) const { dst[i] = T(1) / src[i]; }
};

template <class T>
struct Logarithm {
  T* dst;
  const T* src;
  __device__ void operator()(std::size_t i) const { dst[i] = log(src[i]); }
};

template <class T>
struct SquareRoot {
  T* dst;
  const T* src;
  __device__ void operator()(std::size_t i) const { dst[i] = sqrt(src[i]); }
};

template <class T>
struct ScaleBy {
  T* y;
  const T* scalar;
  __device__ void operator()(int task, int, std::size_t at) const { y[at] *= scalar[task]; }
};

template <class T>
struct Adam {
  TaskAdam<T> a;
  __device__ void operator()(int task, int, std::size_t at) const {
    const T g = a.gradient[at];
    const T m = a.beta1 * a.m[at] + (T(1) - a.beta1) * g;
    const T v = a.beta2 * a.v[at] + (T(1) - a.beta2) * g * g;
    a.m[at] = m;
    a.v[at] = v;
    const T count = a.count[task];
    const T m_hat = m / (T(1) - pow(a.beta1, count));
    const T v_hat = v / (T(1) - pow(a.beta2, count));
    a.parameters[at] -= a.learning_rate * m_hat / (sqrt(v_hat) + a.epsilon);
  }
};

}  // namespace

template <class T>
void from_counts(T* dst, const std::int32_t* counts, int tasks, cudaStream_t stream) {
  flat(FromCounts<T>{dst, counts}, static_cast<std::size_t>(tasks), stream);
}
template <class T>
void reciprocal(T* dst, const T* src, std::size_t count, cudaStream_t stream) {
  flat(Reciprocal<T>{dst, src}, count, stream);
}
template <class T>
void logarithm(T* dst, const T* src, std::size_t count, cudaStream_t stream) {
  flat(Logarithm<T>{dst, src}, count, stream);
}
template <class T>
void square_root(T* dst, const T* src, std::size_t count, cudaStream_t stream) {
  flat(SquareRoot<T>{dst, src}, count, stream);
}
template <class T>
void scale_by(T* y, const T* scalar, Extent extent, cudaStream_t stream) {
  by_task(ScaleBy<T>{y, scalar}, extent, stream);
}
template <class T>
void adam_step(const TaskAdam<T>& adam, Extent extent, cudaStream_t stream) {
  by_task(Adam<T>{adam}, extent, stream);
}

#define KSHOT_INSTANTIATE(T)                                             \
  template void from_counts(T*, const std::int32_t*, int, cudaStream_t); \
  template void reciprocal(T*, const T*, std::size_t, cudaStream_t);     \
  template void logarithm(T*, const T*, std::size_t, cudaStream_t);      \
  template void square_root(T*, const T*, std::size_t, cudaStream_t);    \
  template void scale_by(T*, const T*, Extent, cudaStream_t);            \
  template void adam_step(const TaskAdam<T>&, Extent, cudaStream_t)
KSHOT_INSTANTIATE(float);
KSHOT_INSTANTIATE(double);
#undef KSHOT_INSTANTIATE

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
