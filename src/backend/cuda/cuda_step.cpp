#include "backend/cuda/cuda_step.h"

#include <cstddef>

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

// The same doubles in the same order on both sides.
static_assert(sizeof(backend::StepFigures) == sizeof(StepFigures));
static_assert(offsetof(backend::StepFigures, outside) == offsetof(StepFigures, outside) &&
              offsetof(backend::StepFigures, clipped_squares) ==
                  offsetof(StepFigures, clipped_squares) &&
              offsetof(backend::StepFigures, outcome) == offsetof(StepFigures, outcome));
static_assert(static_cast<int>(backend::Outcome::guard) == static_cast<int>(StepOutcome::guard) &&
              static_cast<int>(backend::Outcome::stop) == static_cast<int>(StepOutcome::stop));

template <class T>
const Stream& stream_of(backend::Wave* wave) {
  return dynamic_cast<CudaWave<T>&>(*wave).stream();
}

}  // namespace

template <class T>
void CudaStep<T>::fork(std::span<backend::Wave* const> waves) const {
  shared_->get().record(turn_);
  for (backend::Wave* wave : waves) stream_of<T>(wave).wait_for(turn_);
}

template <class T>
void CudaStep<T>::join(std::span<backend::Wave* const> waves) const {
  for (backend::Wave* wave : waves) {
    stream_of<T>(wave).record(turn_);
    shared_->get().wait_for(turn_);
  }
}

template <class T>
void CudaStep<T>::gather(std::span<backend::Wave* const> waves, const std::function<void()>& work) {
  device_.activate();
  const Stream& stream = shared_->write();  // nothing in a graph can wait for snapshots before it
  join(waves);                              // nor for what was loaded
  if (gathering_ == Gathering::yes) {
    const bool captured = graph_.capture(stream, [&] {
      fork(waves);
      work();
      join(waves);
    });
    if (captured) {
      graph_.launch(stream);
      return fork(waves);  // what is loaded next comes after it
    }
    gathering_ = Gathering::never;
  }
  work();
  if (gathering_ == Gathering::not_yet) gathering_ = Gathering::yes;
}

template <class T>
double* CudaStep<T>::at(backend::Figure figure) {
  static const backend::StepFigures layout;
  const auto offset =
      reinterpret_cast<const char*>(&(layout.*figure)) - reinterpret_cast<const char*>(&layout);
  return reinterpret_cast<double*>(figures_.data()) +
         offset / static_cast<std::ptrdiff_t>(sizeof(double));
}

template <class T>
void CudaStep<T>::clear() {
  device_.activate();
  shared_->get().clear(figures_.data(), 1);
}

template <class T>
void CudaStep<T>::add(backend::Figure figure, double value) {
  device_.activate();
  add_number(at(figure), value, shared_->get().get());
}

template <class T>
void CudaStep<T>::judge(const backend::StepRule& rule) {
  device_.activate();
  cuda::judge(figures_.data(), rule.max_diverged, rule.guard, shared_->get().get());
}

template <class T>
backend::StepFigures CudaStep<T>::read() const {
  device_.activate();
  if (exchange_) exchange_->wait(shared_->get());
  shared_->get().to_host(host_.data(), figures_.data(), 1);
  const StepFigures& f = host_.data()[0];
  return {f.loss,
          f.tasks,
          f.diverged,
          f.outside,
          f.mean_squares,
          f.gradient_squares,
          f.clipped_squares,
          f.outcome};
}

template class CudaStep<float>;
template class CudaStep<double>;

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
