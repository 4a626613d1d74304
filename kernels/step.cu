// Statistics of a training step (step.h).
//
// Mathematics    backend::StepRule: the mean loss plus the terms outside the mean must be finite,
//                and the share of diverged tasks must be at most max_diverged.
// Layout         StepStatistics; vectors [count].
// Who does what  add_number, decide_update: one thread. guard: one thread per element.
// Outputs        add_number accumulates; the others overwrite.
// Bytes          About 64. guard moves its vectors only if the status is `guard`.
#include "kernels/step.h"

#include "kernels/passes.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

struct AddNumber {
  double* to;
  double value;
  __device__ void operator()(std::size_t) const { to[0] += value; }
};

struct DecideUpdate {
  StepStatistics* step;
  double max_diverged;
  bool guard;
  __device__ void operator()(std::size_t) const {
    const StepStatistics& f = *step;
    const double total = (f.tasks > 0.0 ? f.loss / f.tasks : 0.0) + f.outside;
    const bool finite = total * 0.0 == 0.0;
    const bool many = f.tasks == 0.0 || f.diverged / (f.tasks + f.diverged) > max_diverged;
    StepStatus status = many || !finite ? StepStatus::stop : StepStatus::update;
    if (guard && (f.diverged > 0.0 || !finite)) status = StepStatus::guard;
    step->status = static_cast<double>(status);
  }
};

template <class T>
struct Guard {
  T* gradient;
  const T* parameters;
  T factor;
  const StepStatistics* step;
  __device__ void operator()(std::size_t i) const {
    if (step->status == static_cast<double>(StepStatus::guard)) {
      gradient[i] = factor * parameters[i];
    }
  }
};

}  // namespace

void add_number(double* to, double value, cudaStream_t stream) {
  flat(AddNumber{to, value}, 1, stream);
}

void decide_update(StepStatistics* step, double max_diverged, bool guard, cudaStream_t stream) {
  flat(DecideUpdate{step, max_diverged, guard}, 1, stream);
}

template <class T>
void guard(T* gradient, const T* parameters, T factor, const StepStatistics* step,
           std::size_t count, cudaStream_t stream) {
  flat(Guard<T>{gradient, parameters, factor, step}, count, stream);
}

template void guard(float*, const float*, float, const StepStatistics*, std::size_t, cudaStream_t);
template void guard(double*, const double*, double, const StepStatistics*, std::size_t,
                    cudaStream_t);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
