// The exchange by NCCL, which stays on the devices and can be a part of a graph.
#include <fmt/format.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "backend/cuda/node_exchange.h"
#include "base/failure_watch.h"
#include "kshot/error.h"

#if defined(KSHOT_HAS_NCCL)
#include <nccl.h>

#include <chrono>
#include <thread>
#endif

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

#if defined(KSHOT_HAS_NCCL)

void check(ncclResult_t result, const char* call) {
  if (result == ncclSuccess || result == ncclInProgress) return;
  throw DeviceError(fmt::format("{}: {}", call, ncclGetErrorString(result)));
}

class NcclExchange final : public NodeExchange {
 public:
  explicit NcclExchange(std::shared_ptr<Communicator> ranks) : ranks_(std::move(ranks)) {
    ncclUniqueId id{};
    if (ranks_->rank() == 0) check(ncclGetUniqueId(&id), "ncclGetUniqueId");
    const Communicator::Bytes first =
        ranks_->all_gather(std::as_bytes(std::span(&id, 1)), "the name of NCCL's ranks")[0];
    std::memcpy(&id, first.data(), sizeof id);
    check(ncclCommInitRank(&comm_, ranks_->size(), id, ranks_->rank()), "ncclCommInitRank");
    // A rank that fails takes part in no more sums: those of the others must not wait for it.
    watch_ = dynamic_cast<FailureWatch*>(ranks_.get());
    if (watch_ != nullptr) watch_->on_failure([this] { abort(); });
  }
  ~NcclExchange() override {
    if (watch_ != nullptr) watch_->on_failure({});
    // Destroying waits for the other ranks, which may be gone.
    if (ranks_->failed()) abort();
    if (comm_ != nullptr) ncclCommDestroy(comm_);
  }

  void all_gather(double* all, const double* mine, std::size_t count,
                  const Stream& stream) override {
    check(ncclAllGather(mine, all, count, ncclFloat64, comm_, stream.get()), "ncclAllGather");
  }
  /// NCCL has no all-to-all of its own. Sends and receives in one group run together.
  void all_to_all(double* all, const double* mine, std::size_t count,
                  const Stream& stream) override {
    check(ncclGroupStart(), "ncclGroupStart");
    for (int r = 0; r < ranks_->size(); ++r) {
      const std::size_t row = static_cast<std::size_t>(r) * count;
      check(ncclSend(mine + row, count, ncclFloat64, r, comm_, stream.get()), "ncclSend");
      check(ncclRecv(all + row, count, ncclFloat64, r, comm_, stream.get()), "ncclRecv");
    }
    check(ncclGroupEnd(), "ncclGroupEnd");
  }
  void wait(const Stream& stream) override {
    const auto start = std::chrono::steady_clock::now();
    while (true) {
      check_ranks();
      const cudaError_t state = cudaStreamQuery(stream.get());
      if (state == cudaSuccess) break;
      if (state != cudaErrorNotReady) cuda::check(state, "cudaStreamQuery");
      cudaGetLastError();
      const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - start;
      if (waited.count() > ranks_->time_limit()) ranks_->give_up("NCCL's sums over tasks");
      // Steps take some hundred microseconds: a sleep would be longer than many of them.
      if (waited.count() < 0.01) {
        std::this_thread::yield();
      } else {
        std::this_thread::sleep_for(std::chrono::microseconds(100));
      }
    }
    check_ranks();
  }
  bool on_device() const override { return true; }
  const char* name() const override { return "NCCL"; }

 private:
  void abort() {
    if (comm_ != nullptr) ncclCommAbort(comm_);
    comm_ = nullptr;
  }
  /// Throws where another rank has failed, or NCCL reports an error.
  void check_ranks() {
    if (comm_ == nullptr) throw DeviceError("NCCL's ranks are gone");
    ncclResult_t error = ncclSuccess;
    check(ncclCommGetAsyncError(comm_, &error), "ncclCommGetAsyncError");
    bool announced = watch_ != nullptr && watch_->failure_announced();
    if (watch_ != nullptr && error != ncclSuccess && error != ncclInProgress) {
      // Where a rank is gone because it failed, its announcement is on its way.
      for (int tries = 0; !announced && tries < 200; ++tries) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        announced = watch_->failure_announced();
      }
    }
    if (announced) {
      abort();                                    // else the device would wait for ever
      ranks_->barrier("NCCL's sums over tasks");  // throws what the other rank says
    }
    check(error, "NCCL's sums over tasks");
  }

  std::shared_ptr<Communicator> ranks_;
  FailureWatch* watch_ = nullptr;  ///< of ranks_; null where they cannot announce failures
  ncclComm_t comm_ = nullptr;
};

#endif

}  // namespace

std::shared_ptr<NodeExchange> open_exchange(std::shared_ptr<Communicator> ranks) {
#if defined(KSHOT_HAS_NCCL)
  constexpr bool built = true;
#else
  constexpr bool built = false;
#endif
#ifdef KSHOT_SIMT
  constexpr bool usual = false;  // the emulated ranks may be threads, the stand-in wants processes
#else
  constexpr bool usual = built;
#endif
  const char* const setting = std::getenv("KSHOT_EXCHANGE");
  const std::string text = setting ? setting : "auto";
  if (text != "auto" && text != "nccl" && text != "mpi") {
    throw Error(fmt::format("KSHOT_EXCHANGE = \"{}\": expected auto, nccl or mpi", text));
  }
  if (text == "nccl" && !built) {
    throw DeviceError("KSHOT_EXCHANGE = \"nccl\": this kshot was built without NCCL");
  }
#if defined(KSHOT_HAS_NCCL)
  if (text == "nccl" || (text == "auto" && usual)) {
    return std::make_shared<NcclExchange>(std::move(ranks));
  }
#else
  static_cast<void>(usual);
#endif
  return exchange_by_host(std::move(ranks));
}

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
