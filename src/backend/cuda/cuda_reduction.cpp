#include "backend/cuda/cuda_reduction.h"

#include <stdexcept>

#include "kernels/reduction.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

template <class T>
CudaReduction<T>::CudaReduction(const Device& device, std::span<const std::size_t> widths)
    : device_(device), widths_(widths.begin(), widths.end()) {
  for (const std::size_t w : widths_) width_ += w;
  total_ = DeviceMemory<double>(width_);
}

template <class T>
void CudaReduction<T>::begin(std::size_t waves) {
  device_.activate();
  queue_.begin(waves);
  stream_.clear(total_.data(), width_);
  diverged_.clear();
  loss_ = 0.0;
  tasks_ = 0;
}

template <class T>
void CudaReduction<T>::add(backend::Wave& wave, std::size_t ordinal,
                           std::span<const backend::Block> gradients, backend::Block loss) {
  device_.activate();
  Partial partial = queue_.take();
  take(partial, dynamic_cast<CudaWave<T>&>(wave), gradients, loss);
  queue_.put(ordinal, std::move(partial), [&](Partial& next) {
    commit(next);
    stream_.wait();  // its memory is free again
  });
}

template <class T>
void CudaReduction<T>::take(Partial& partial, CudaWave<T>& wave,
                            std::span<const backend::Block> gradients, backend::Block loss) {
  if (gradients.size() != widths_.size()) {
    throw std::logic_error("reduction: wrong number of blocks");
  }
  const Stream& stream = wave.stream();
  const auto tasks = static_cast<std::size_t>(wave.count());
  partial.first = wave.global_first();
  partial.runs = (wave.count() + run_tasks - 1) / run_tasks;
  partial.flags.reserve(static_cast<std::size_t>(wave.capacity()));
  partial.sums.reserve(static_cast<std::size_t>((wave.capacity() + run_tasks - 1) / run_tasks) *
                       width_);
  stream.clear(partial.flags.data(), tasks);
  mark_diverged(partial.flags.data(), wave.data(loss), wave.extent(loss), stream.get());
  for (const backend::Block block : gradients) {
    mark_diverged(partial.flags.data(), wave.data(block), wave.extent(block), stream.get());
  }
  std::size_t offset = 0;
  for (std::size_t g = 0; g < gradients.size(); ++g) {
    const Extent extent = wave.extent(gradients[g]);
    check_sizes(static_cast<std::size_t>(extent.width), widths_[g]);
    sum_runs<T>(partial.sums.data() + offset, width_, wave.data(gradients[g]), partial.flags.data(),
                extent, stream.get());
    offset += widths_[g];
  }
  partial.tasks = tasks;
  partial.diverged.reserve(static_cast<std::size_t>(wave.capacity()));
  partial.losses.reserve(static_cast<std::size_t>(wave.capacity()));
  stream.start_to_host(partial.diverged.data(), partial.flags.data(), tasks);
  stream.start_to_host(partial.losses.data(), wave.data(loss), tasks);
  stream.wait();
}

template <class T>
void CudaReduction<T>::commit(const Partial& partial) {
  for (std::size_t t = 0; t < partial.tasks; ++t) {
    if (partial.diverged.data()[t] != 0) {
      diverged_.push_back(partial.first + static_cast<std::uint32_t>(t));
    } else {
      loss_ += static_cast<double>(partial.losses.data()[t]);
      ++tasks_;
    }
  }
  add_runs(total_.data(), partial.sums.data(), partial.runs, width_, stream_.get());
}

template <class T>
void CudaReduction<T>::finish(std::span<const backend::Shared> means) {
  device_.activate();
  queue_.check_complete();
  if (means.size() != widths_.size()) throw std::logic_error("reduction: wrong number of vectors");
  const double scale = tasks_ > 0 ? 1.0 / static_cast<double>(tasks_) : 0.0;
  std::size_t offset = 0;
  for (std::size_t g = 0; g < means.size(); ++g) {
    check_sizes(means[g]->size(), widths_[g]);
    mean_of_total(on_device<T>(*means[g]).data(), total_.data() + offset, scale, widths_[g],
                  stream_.get());
    offset += widths_[g];
  }
  stream_.wait();
}

template <class T>
double CudaReduction<T>::mean_loss() const {
  return tasks_ > 0 ? loss_ / static_cast<double>(tasks_) : 0.0;
}

template class CudaReduction<float>;
template class CudaReduction<double>;

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
