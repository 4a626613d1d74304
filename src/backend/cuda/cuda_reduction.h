// Sums over tasks on the device, in the order of backend.h. The host sees flags, losses and counts
// alone.
#pragma once

#include <vector>

#include "backend/backend.h"
#include "backend/cuda/cuda_wave.h"
#include "backend/ordered_queue.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

template <class T>
class CudaReduction final : public backend::Reduction {
 public:
  CudaReduction(const Device& device, std::span<const std::size_t> widths);
  void begin(std::size_t waves) override;
  void add(backend::Wave& wave, std::size_t ordinal, std::span<const backend::Block> gradients,
           backend::Block loss) override;
  void cancel() override { queue_.cancel(); }
  void finish(std::span<const backend::Shared> means) override;
  std::size_t diverged() const override { return diverged_.size(); }
  double mean_loss() const override;
  std::vector<std::uint32_t> diverged_tasks() const override { return diverged_; }

 private:
  /// One wave's share, until its turn comes.
  struct Partial {
    DeviceMemory<T> sums;  ///< [runs, width]
    DeviceMemory<std::int32_t> flags;
    HostMemory<std::int32_t> diverged;
    HostMemory<T> losses;
    std::size_t tasks = 0;
    std::uint32_t first = 0;
    int runs = 0;
  };
  /// Runs on the wave's stream, and waits for it.
  void take(Partial& partial, CudaWave<T>& wave, std::span<const backend::Block> gradients,
            backend::Block loss);
  void commit(const Partial& partial);

  Device device_;
  Stream stream_;
  std::vector<std::size_t> widths_;
  std::size_t width_ = 0;
  DeviceMemory<double> total_;
  backend::OrderedQueue<Partial> queue_;
  std::vector<std::uint32_t> diverged_;
  double loss_ = 0.0;
  std::size_t tasks_ = 0;
};

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
