// A vector that all tasks share, in device memory.
#pragma once

#include <functional>
#include <memory>
#include <stdexcept>
#include <utility>
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
  /// copies: the stream on which snapshots leave the device.
  CudaVector(const Device& device, std::shared_ptr<const Stream> stream,
             std::shared_ptr<const Stream> copies, std::size_t size)
      : device_(device), stream_(std::move(stream)), copies_(std::move(copies)), values_(size) {
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
  /// Copied to pinned memory on a stream of its own: the vector is not written until that is done.
  std::function<std::vector<double>()> snapshot() const override {
    device_.activate();
    auto copy = std::make_shared<Copy>(size());
    copies_->start_to_host(copy->values.data(), values_.data(), size());
    copies_->record(copy->done);
    leaving_ = copy;
    // the stream outlives what was put on it
    return [copy, device = device_, stream = copies_] {
      device.activate();
      copy->done.wait();
      const T* const values = copy->values.data();
      return std::vector<double>(values, values + copy->values.size());
    };
  }
  /// For writing.
  T* data() {
    if (const std::shared_ptr<Copy> copy = std::exchange(leaving_, nullptr)) copy->done.wait();
    return values_.data();
  }
  const T* data() const { return values_.data(); }

 private:
  struct Copy {
    explicit Copy(std::size_t size) : values(size) {}
    HostMemory<T> values;
    Event done;
  };

  Device device_;
  std::shared_ptr<const Stream> stream_, copies_;
  mutable std::shared_ptr<Copy> leaving_;  ///< the last snapshot, until it is known to be done
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
