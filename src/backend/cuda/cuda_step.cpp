#include "backend/cuda/cuda_step.h"

#include <cstddef>

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

// Both structs have the same doubles in the same order.
static_assert(sizeof(backend::StepStatistics) == sizeof(StepStatistics));
static_assert(offsetof(backend::StepStatistics, outside) == offsetof(StepStatistics, outside) &&
              offsetof(backend::StepStatistics, clipped_squares) ==
                  offsetof(StepStatistics, clipped_squares) &&
              offsetof(backend::StepStatistics, status) == offsetof(StepStatistics, status));
static_assert(static_cast<int>(backend::StepStatus::guard) == static_cast<int>(StepStatus::guard) &&
              static_cast<int>(backend::StepStatus::stop) == static_cast<int>(StepStatus::stop));

template <class T>
const Stream& stream_of(backend::Wave* wave) {
  return dynamic_cast<CudaWave<T>&>(*wave).stream();
}

}  // namespace

template <class T>
void CudaStep<T>::fork(std::span<backend::Wave* const> waves) const {
  shared_->get().record(event_);
  for (backend::Wave* wave : waves) stream_of<T>(wave).wait_for(event_);
}

template <class T>
void CudaStep<T>::join(std::span<backend::Wave* const> waves) const {
  for (backend::Wave* wave : waves) {
    stream_of<T>(wave).record(event_);
    shared_->get().wait_for(event_);
  }
}

template <class T>
void CudaStep<T>::capture(std::span<backend::Wave* const> waves,
                          const std::function<void()>& work) {
  device_.activate();
  const Stream& stream = shared_->write();  // waits for snapshots; work in a graph cannot
  join(waves);                              // waits for loads, likewise
  if (capture_state_ == CaptureState::enabled) {
    const bool captured = graph_.capture(stream, [&] {
      fork(waves);
      work();
      join(waves);
    });
    if (captured) {
      graph_.launch(stream);
      return fork(waves);  // later loads come after the graph
    }
    capture_state_ = CaptureState::unsupported;
  }
  work();
  if (capture_state_ == CaptureState::first_call) capture_state_ = CaptureState::enabled;
}

template <class T>
double* CudaStep<T>::at(backend::Statistic statistic) {
  static const backend::StepStatistics layout;
  const auto offset =
      reinterpret_cast<const char*>(&(layout.*statistic)) - reinterpret_cast<const char*>(&layout);
  return reinterpret_cast<double*>(statistics_.data()) +
         offset / static_cast<std::ptrdiff_t>(sizeof(double));
}

template <class T>
void CudaStep<T>::clear() {
  device_.activate();
  shared_->get().clear(statistics_.data(), 1);
}

template <class T>
void CudaStep<T>::add(backend::Statistic statistic, double value) {
  device_.activate();
  add_number(at(statistic), value, shared_->get().get());
}

template <class T>
void CudaStep<T>::decide_update(const backend::StepRule& rule) {
  device_.activate();
  cuda::decide_update(statistics_.data(), rule.max_diverged, rule.guard, shared_->get().get());
}

template <class T>
backend::StepStatistics CudaStep<T>::read() const {
  device_.activate();
  if (exchange_) exchange_->wait(shared_->get());
  shared_->get().to_host(host_.data(), statistics_.data(), 1);
  const StepStatistics& f = host_.data()[0];
  return {f.loss,
          f.tasks,
          f.diverged,
          f.outside,
          f.mean_squares,
          f.gradient_squares,
          f.clipped_squares,
          f.status};
}

template class CudaStep<float>;
template class CudaStep<double>;

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
