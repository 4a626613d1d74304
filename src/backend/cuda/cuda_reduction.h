// Sums over tasks on the device, in the order of backend.h. The host sees nothing of them:
// statistics go to the step's.
#pragma once

#include <memory>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/cuda_wave.h"
#include "backend/cuda/node_exchange.h"
#include "backend/ordered_queue.h"
#include "backend/task_tree.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// Runs are summed on a wave's own stream; those of all waves go into the tree on the shared one,
/// which waits there for each wave in turn. With several ranks the nodes of all are exchanged.
template <class T>
class CudaReduction final : public backend::Reduction {
 public:
  CudaReduction(const Device& device, SharedStreamPointer shared,
                std::span<const std::size_t> widths, std::shared_ptr<NodeExchange> exchange);
  void begin(std::size_t waves, const backend::TaskShares& shares, backend::Step& step) override;
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
    std::int64_t first_run = 0;
    std::unique_ptr<Event> summed, added;
    std::uint64_t step = 0;  ///< number of the step in which it was last added
  };
  /// Runs on the wave's stream.
  void take(Partial& partial, CudaWave<T>& wave, std::span<const backend::Block> gradients,
            backend::Block loss);
  void commit(Partial& partial);
  /// Where the nodes lie and how they are added up, for shares that are not the last ones.
  void lay_out(const backend::TaskShares& shares);

  Device device_;
  SharedStreamPointer shared_;
  std::vector<std::size_t> widths_;
  std::size_t width_ = 0;
  std::shared_ptr<NodeExchange> exchange_;  ///< null: this process alone
  backend::TaskShares shares_;
  int levels_ = 0;
  std::vector<int> rows_;  ///< rows of nodes_ that hold this process's nodes, from the left
  std::size_t most_rows_ = 0, all_rows_ = 0;  ///< nodes of a rank, of all ranks
  std::vector<std::size_t> places_;           ///< of all nodes, in what was gathered
  bool in_pieces_ = false;                    ///< backend::exchanged_in_pieces
  std::size_t columns_ = 0;  ///< columns that this rank adds up: all [width + 3], or one piece
  std::size_t stride_ = 0;   ///< of a row of nodes_: all columns, filled up to whole pieces
  DeviceMemory<std::int32_t> merges_;
  DeviceMemory<double> nodes_;     ///< RunTree; a row has gradients, then counts: [width + 3]
  DeviceMemory<double> mine_;      ///< to send: [most_rows, columns]; in pieces [ranks, ...]
  DeviceMemory<double> gathered_;  ///< received: [ranks, most_rows, columns]
  DeviceMemory<double> ordered_;   ///< the nodes in the order of the tree: [all_rows, columns]
  DeviceMemory<double> part_;      ///< in pieces, the sums of this rank's columns: [columns]
  DeviceMemory<double> total_;     ///< [width + 3]; in pieces [ranks, columns]
  DeviceMemory<std::int32_t> flags_;
  double* statistics_ = nullptr;  ///< of the step: loss, tasks, diverged
  std::uint64_t steps_ = 0;
  backend::OrderedQueue<Partial> queue_;
};

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
