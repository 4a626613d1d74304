// The exchange of a reduction's nodes between ranks that compute on devices.
#pragma once

#include <cstddef>
#include <memory>

#include "backend/cuda/memory.h"
#include "kshot/communicator.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

class NodeExchange {
 public:
  virtual ~NodeExchange() = default;
  /// all [ranks, count] has mine [count] of every rank, both in device memory, in the stream's
  /// order.
  virtual void all_gather(double* all, const double* mine, std::size_t count,
                          const Stream& stream) = 0;
  /// Row r of mine [ranks, count] goes to rank r, and row r of all [ranks, count] comes from rank
  /// r. Both are in device memory. The exchange runs in the stream's order.
  virtual void all_to_all(double* all, const double* mine, std::size_t count,
                          const Stream& stream) = 0;
  /// Waits for the work of a stream that has exchanges in it; ends the program where a rank does
  /// not come in time.
  virtual void wait(const Stream& /*stream*/) {}
  /// Whether it needs nothing from the host, so that it can be a part of a graph.
  virtual bool on_device() const = 0;
  virtual const char* name() const = 0;
};

/// By NCCL where the build has it, else by the host; KSHOT_EXCHANGE (auto, nccl, mpi) chooses. The
/// device is the current one. All ranks call it.
std::shared_ptr<NodeExchange> open_exchange(std::shared_ptr<Communicator> ranks);
/// Through the host's memory and its communicator.
std::shared_ptr<NodeExchange> exchange_by_host(std::shared_ptr<Communicator> ranks);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
