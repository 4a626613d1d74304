#include "backend/cuda/node_exchange.h"

#include <cstring>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

class HostExchange final : public NodeExchange {
 public:
  explicit HostExchange(std::shared_ptr<Communicator> ranks) : ranks_(std::move(ranks)) {}

  void all_gather(double* all, const double* mine, std::size_t count,
                  const Stream& stream) override {
    host_.reserve(count);
    stream.to_host(host_.data(), mine, count);
    const std::vector<std::vector<double>> parts =
        ranks_->all_gather(std::span<const double>(host_.data(), count), "sums over tasks");
    for (std::size_t r = 0; r < parts.size(); ++r) {
      if (parts[r].size() != count) throw std::logic_error("reduction: other tasks");
      stream.to_device(all + r * count, parts[r].data(), count);
    }
  }
  void all_to_all(double* all, const double* mine, std::size_t count,
                  const Stream& stream) override {
    const auto ranks = static_cast<std::size_t>(ranks_->size());
    host_.reserve(ranks * count);
    stream.to_host(host_.data(), mine, ranks * count);
    std::vector<Communicator::Bytes> to;
    for (std::size_t r = 0; r < ranks; ++r) {
      const auto bytes = std::as_bytes(std::span(host_.data() + r * count, count));
      to.emplace_back(bytes.begin(), bytes.end());
    }
    const std::vector<Communicator::Bytes> parts =
        ranks_->all_to_all(to, "pieces of sums over tasks");
    for (std::size_t r = 0; r < parts.size(); ++r) {
      if (parts[r].size() != count * sizeof(double)) {
        throw std::logic_error("reduction: pieces of another size");
      }
      std::memcpy(host_.data() + r * count, parts[r].data(), parts[r].size());
    }
    stream.to_device(all, host_.data(), ranks * count);
  }
  bool on_device() const override { return false; }
  const char* name() const override { return "MPI"; }

 private:
  std::shared_ptr<Communicator> ranks_;
  HostMemory<double> host_;
};

}  // namespace

std::shared_ptr<NodeExchange> exchange_by_host(std::shared_ptr<Communicator> ranks) {
  return std::make_shared<HostExchange>(std::move(ranks));
}

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
