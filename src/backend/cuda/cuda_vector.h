// A vector that all tasks share, in device memory.
#pragma once

#include <functional>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/memory.h"
#include "backend/cuda/shared_stream.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

inline void check_sizes(std::size_t a, std::size_t b) {
  if (a != b) throw std::logic_error(fmt::format("vectors of {} and {} elements", a, b));
}

/// Operations on the vector run in the order of its stream (SharedStream).
template <class T>
class CudaVector final : public backend::SharedVector {
 public:
  CudaVector(const Device& device, SharedStreamPointer stream, std::size_t size)
      : device_(device), stream_(std::move(stream)), values_(size) {
    stream_->get().clear(values_.data(), size);
    stream_->get().wait();
  }
  std::size_t size() const override { return values_.size(); }
  void upload(std::span<const double> values) override {
    check_sizes(values.size(), size());
    device_.activate();
    std::vector<T> host(size());
    for (std::size_t i = 0; i < host.size(); ++i) host[i] = static_cast<T>(values[i]);
    stream_->write().to_device(data(), host.data(), host.size());
  }
  void download(std::span<double> values) const override {
    check_sizes(values.size(), size());
    device_.activate();
    std::vector<T> host(size());
    stream_->get().to_host(host.data(), data(), host.size());
    for (std::size_t i = 0; i < host.size(); ++i) values[i] = static_cast<double>(host[i]);
  }
  /// The copy goes to pinned memory on its own stream. Later writes wait for it.
  std::function<std::vector<double>()> snapshot() const override {
    device_.activate();
    auto copy = std::make_shared<Copy>(size());
    stream_->start_copy(copy->values.data(), values_.data(), size(), copy->done);
    // The function shares ownership of the streams, which must outlive the work put on them.
    return [copy, device = device_, stream = stream_] {
      device.activate();
      copy->done.wait();
      const T* const values = copy->values.data();
      return std::vector<double>(values, values + copy->values.size());
    };
  }
  /// For work on SharedStream::write().
  T* data() { return values_.data(); }
  const T* data() const { return values_.data(); }

 private:
  struct Copy {
    explicit Copy(std::size_t size) : values(size) {}
    HostMemory<T> values;
    Event done;
  };

  Device device_;
  SharedStreamPointer stream_;
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
