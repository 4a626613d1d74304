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

template <class T>
class CudaStep final : public backend::Step {
 public:
  /// `exchange`: between ranks, in the step's work; null: there is none.
  CudaStep(const Device& device, SharedStreamPointer shared, std::shared_ptr<NodeExchange> exchange)
      : device_(device),
        shared_(std::move(shared)),
        exchange_(std::move(exchange)),
        statistics_(1),
        host_(1) {}

  /// From the second time on as a graph, in which the waves' streams leave the shared one and come
  /// back to it. It is captured anew each time (docs/cuda.md says why), by this thread alone, so
  /// that its nodes come in the same order and the executable graph is updated.
  void capture(std::span<backend::Wave* const> waves, const std::function<void()>& work) override;
  void clear() override;
  void add(backend::Statistic statistic, double value) override;
  void decide_update(const backend::StepRule& rule) override;
  backend::StepStatistics read() const override;

  // ---- what operations see ----
  const StepStatistics* statistics() const { return statistics_.data(); }
  double* at(backend::Statistic statistic);

 private:
  /// From the shared stream to the waves', and back.
  void fork(std::span<backend::Wave* const> waves) const;
  void join(std::span<backend::Wave* const> waves) const;

  Device device_;
  SharedStreamPointer shared_;
  std::shared_ptr<NodeExchange> exchange_;
  DeviceMemory<StepStatistics> statistics_;
  mutable HostMemory<StepStatistics> host_;
  Event turn_;
  Graph graph_;
  /// As CudaWave's.
  enum class Gathering { not_yet, yes, never } gathering_ = Gathering::not_yet;
};

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
