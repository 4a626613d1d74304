// A training step on the device: its statistics, and its work as one CUDA graph.
#pragma once

#include <span>

#include "backend/backend.h"
#include "backend/cuda/cuda_wave.h"
#include "backend/cuda/graph.h"
#include "backend/cuda/node_exchange.h"
#include "backend/cuda/shared_stream.h"
#include "kernels/step.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// The step statistics in device memory, and the capture of a step's work.
template <class T>
class CudaStep final : public backend::Step {
 public:
  /// `exchange` is the exchange between ranks in the step's work. Null for one process.
  CudaStep(const Device& device, SharedStreamPointer shared, std::shared_ptr<NodeExchange> exchange)
      : device_(device),
        shared_(std::move(shared)),
        exchange_(std::move(exchange)),
        statistics_(1),
        host_(1) {}

  /// The first call runs the work directly. Later calls run it as a graph, in which the waves'
  /// streams fork from the shared stream and join it again. The graph is captured anew each time
  /// (docs/cuda.md says why). One thread captures all of it, so that its nodes have the same order
  /// each time and the executable graph can be updated.
  void capture(std::span<backend::Wave* const> waves, const std::function<void()>& work) override;
  void clear() override;
  void add(backend::Statistic statistic, double value) override;
  void decide_update(const backend::StepRule& rule) override;
  backend::StepStatistics read() const override;

  // ---- access for operations ----
  const StepStatistics* statistics() const { return statistics_.data(); }
  double* at(backend::Statistic statistic);

 private:
  /// Makes the waves' streams wait for the shared stream (fork), and the shared stream for them
  /// (join).
  void fork(std::span<backend::Wave* const> waves) const;
  void join(std::span<backend::Wave* const> waves) const;

  Device device_;
  SharedStreamPointer shared_;
  std::shared_ptr<NodeExchange> exchange_;
  DeviceMemory<StepStatistics> statistics_;
  mutable HostMemory<StepStatistics> host_;
  Event event_;
  Graph graph_;
  /// State of the capture, as in CudaWave.
  enum class CaptureState {
    first_call,
    enabled,
    unsupported
  } capture_state_ = CaptureState::first_call;
};

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
