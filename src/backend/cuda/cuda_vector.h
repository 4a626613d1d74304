// A vector that all tasks share, in device memory.
#pragma once

#include <stdexcept>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/memory.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

inline void check_sizes(std::size_t a, std::size_t b) {
  if (a != b) throw std::logic_error(fmt::format("vectors of {} and {} elements", a, b));
}

/// Every operation of its own and of the backend's is done when it returns, so that waves may read
/// it on their own streams.
template <class T>
class CudaVector final : public backend::SharedVector {
 public:
  CudaVector(const Device& device, std::shared_ptr<const Stream> stream, std::size_t size)
      : device_(device), stream_(std::move(stream)), values_(size) {
    stream_->clear(values_.data(), size);
    stream_->wait();
  }
  std::size_t size() const override { return values_.size(); }
  void upload(std::span<const double> values) override {
    check_sizes(values.size(), size());
    device_.activate();
    std::vector<T> host(size());
    for (std::size_t i = 0; i < host.size(); ++i) host[i] = static_cast<T>(values[i]);
    stream_->to_device(data(), host.data(), host.size());
  }
  void download(std::span<double> values) const override {
    check_sizes(values.size(), size());
    device_.activate();
    std::vector<T> host(size());
    stream_->to_host(host.data(), data(), host.size());
    for (std::size_t i = 0; i < host.size(); ++i) values[i] = static_cast<double>(host[i]);
  }
  T* data() { return values_.data(); }
  const T* data() const { return values_.data(); }

 private:
  Device device_;
  std::shared_ptr<const Stream> stream_;
  DeviceMemory<T> values_;
};

template <class T>
CudaVector<T>& on_device(backend::SharedVector& v) {
  return dynamic_cast<CudaVector<T>&>(v);
}
template <class T>
const CudaVector<T>& on_device(const backend::SharedVector& v) {
  return dynamic_cast<const CudaVector<T>&>(v);
}

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
