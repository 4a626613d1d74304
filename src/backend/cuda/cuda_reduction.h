// Sums over tasks on the device, in the order of backend.h. The host sees nothing of them: figures
// go to the step's.
#pragma once

#include <memory>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/cuda_wave.h"
#include "backend/ordered_queue.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// Runs are summed on a wave's own stream; the runs of all waves one after another on the shared
/// one, which waits there for each wave in turn.
template <class T>
class CudaReduction final : public backend::Reduction {
 public:
  CudaReduction(const Device& device, SharedStreamPointer shared,
                std::span<const std::size_t> widths);
  void begin(std::size_t waves, std::size_t tasks, backend::Step& step) override;
  void add(backend::Wave& wave, std::size_t ordinal, std::span<const backend::Block> gradients,
           backend::Block loss) override;
  void cancel() override { queue_.cancel(); }
  void finish(std::span<const backend::Shared> means) override;
  std::vector<std::uint32_t> diverged_tasks() const override;

 private:
  /// One wave's share, until its turn comes.
  struct Partial {
    DeviceMemory<T> sums;         ///< [runs, width]
    DeviceMemory<double> counts;  ///< [runs, 3]: count_runs
    int runs = 0;
    std::unique_ptr<Event> summed, added;
    std::uint64_t step = 0;  ///< number of the step in which it was last added
  };
  /// Runs on the wave's stream.
  void take(Partial& partial, CudaWave<T>& wave, std::span<const backend::Block> gradients,
            backend::Block loss);
  void commit(Partial& partial);

  Device device_;
  SharedStreamPointer shared_;
  std::vector<std::size_t> widths_;
  std::size_t width_ = 0;
  DeviceMemory<double> total_;  ///< [width + 3]: gradients, then counts
  DeviceMemory<std::int32_t> flags_;
  std::size_t tasks_ = 0;
  double* figures_ = nullptr;  ///< of the step: loss, tasks, diverged
  std::uint64_t steps_ = 0;
  backend::OrderedQueue<Partial> queue_;
};

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
