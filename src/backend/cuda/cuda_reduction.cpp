#include "backend/cuda/cuda_reduction.h"

#include <stdexcept>

#include "backend/cuda/cuda_step.h"
#include "kernels/compaction.h"
#include "kernels/elementwise.h"
#include "kernels/reduction.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

/// A run's counts: its loss, its tasks, and those that diverged, in the order of the figures.
constexpr std::size_t counts = 3;

}  // namespace

template <class T>
CudaReduction<T>::CudaReduction(const Device& device, SharedStreamPointer shared,
                                std::span<const std::size_t> widths)
    : device_(device), shared_(std::move(shared)), widths_(widths.begin(), widths.end()) {
  for (const std::size_t w : widths_) width_ += w;
  total_ = DeviceMemory<double>(width_ + counts);
}

template <class T>
void CudaReduction<T>::begin(std::size_t waves, std::size_t tasks, backend::Step& step) {
  device_.activate();
  queue_.begin(waves);
  ++steps_;
  tasks_ = tasks;
  flags_.reserve(tasks);
  figures_ = dynamic_cast<CudaStep<T>&>(step).at(&backend::StepFigures::loss);
  const Stream& stream = shared_->write();  // so that waves come after it
  stream.clear(total_.data(), total_.size());
  stream.clear(flags_.data(), tasks);
}

template <class T>
void CudaReduction<T>::add(backend::Wave& wave, std::size_t ordinal,
                           std::span<const backend::Block> gradients, backend::Block loss) {
  device_.activate();
  wave.exclude_not_finite(loss);
  Partial partial = queue_.take();
  take(partial, dynamic_cast<CudaWave<T>&>(wave), gradients, loss);
  queue_.put(ordinal, std::move(partial), [&](Partial& next) { commit(next); });
}

template <class T>
void CudaReduction<T>::take(Partial& partial, CudaWave<T>& wave,
                            std::span<const backend::Block> gradients, backend::Block loss) {
  if (gradients.size() != widths_.size()) {
    throw std::logic_error("reduction: wrong number of blocks");
  }
  const std::size_t first = wave.global_first();
  if (first + static_cast<std::size_t>(wave.count()) > tasks_) {
    throw std::logic_error("reduction: more tasks than were said");
  }
  if (!partial.summed) {
    partial.summed = std::make_unique<Event>();
    partial.added = std::make_unique<Event>();
  }
  const auto most = static_cast<std::size_t>((wave.capacity() + run_tasks - 1) / run_tasks);
  partial.sums.reserve(most * width_);
  partial.counts.reserve(most * counts);
  partial.runs = (wave.count() + run_tasks - 1) / run_tasks;
  const Stream& stream = wave.stream();
  wave.follow_shared();
  std::int32_t* const flags = flags_.data() + first;
  mark_diverged(flags, wave.data(loss), wave.extent(loss), stream.get());
  for (const backend::Block block : gradients) {
    mark_diverged(flags, wave.data(block), wave.extent(block), stream.get());
  }
  if (partial.step == steps_) stream.wait_for(*partial.added);  // its memory is free again
  std::size_t offset = 0;
  for (std::size_t g = 0; g < gradients.size(); ++g) {
    const Extent extent = wave.extent(gradients[g]);
    check_sizes(static_cast<std::size_t>(extent.width), widths_[g]);
    sum_runs<T>(partial.sums.data() + offset, width_, wave.data(gradients[g]), flags, extent,
                stream.get());
    offset += widths_[g];
  }
  count_runs(partial.counts.data(), wave.data(loss), flags, wave.count(), stream.get());
  stream.record(*partial.summed);
}

template <class T>
void CudaReduction<T>::commit(Partial& partial) {
  const Stream& stream = shared_->get();
  stream.wait_for(*partial.summed);
  add_runs(total_.data(), partial.sums.data(), partial.runs, width_, stream.get());
  add_runs(total_.data() + width_, partial.counts.data(), partial.runs, counts, stream.get());
  stream.record(*partial.added);
  partial.step = steps_;
}

template <class T>
void CudaReduction<T>::finish(std::span<const backend::Shared> means) {
  device_.activate();
  queue_.check_complete();
  if (means.size() != widths_.size()) throw std::logic_error("reduction: wrong number of vectors");
  const Stream& stream = shared_->write();
  const double* const totals = total_.data() + width_;
  axpy(figures_, 1.0, totals, counts, stream.get());
  std::size_t offset = 0;
  for (std::size_t g = 0; g < means.size(); ++g) {
    check_sizes(means[g]->size(), widths_[g]);
    mean_of_total(on_device<T>(*means[g]).data(), total_.data() + offset, totals + 1, widths_[g],
                  stream.get());
    offset += widths_[g];
  }
}

template <class T>
std::vector<std::uint32_t> CudaReduction<T>::diverged_tasks() const {
  device_.activate();
  const Stream& stream = shared_->get();
  DeviceMemory<std::uint32_t> list(tasks_);
  std::vector<std::uint32_t> tasks(set_indices(list.data(), flags_.data(), tasks_, stream.get()));
  stream.to_host(tasks.data(), list.data(), tasks.size());
  return tasks;
}

template class CudaReduction<float>;
template class CudaReduction<double>;

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
