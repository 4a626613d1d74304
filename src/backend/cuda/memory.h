// Device memory and streams as objects. Everything here belongs to one device, which must be
// current (Device::activate) where the objects are made.
#pragma once

#include <fmt/format.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "kernels/runtime.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// Sizes in messages: "1.5 GiB".
inline std::string bytes_text(std::size_t bytes) {
  const auto size = static_cast<double>(bytes);
  if (size < 0x1p20) return fmt::format("{:.0f} KiB", size / 0x1p10);
  return size < 0x1p30 ? fmt::format("{:.0f} MiB", size / 0x1p20)
                       : fmt::format("{:.1f} GiB", size / 0x1p30);
}

/// Bytes of device memory that this program has taken.
inline std::atomic<std::size_t>& device_bytes() {
  static std::atomic<std::size_t> bytes{0};
  return bytes;
}

/// While such an object exists, device memory that its thread allocates is only counted, not
/// allocated. It measures how much memory an object needs by making the object.
class MemoryCount {
 public:
  MemoryCount() : enclosing_(current()) { current() = this; }
  ~MemoryCount() { current() = enclosing_; }
  MemoryCount(const MemoryCount&) = delete;
  MemoryCount& operator=(const MemoryCount&) = delete;
  std::size_t bytes() const { return bytes_; }
  void add(std::size_t bytes) { bytes_ += bytes; }
  /// The calling thread's innermost count, or null.
  static MemoryCount*& current() {
    thread_local MemoryCount* count = nullptr;
    return count;
  }

 private:
  MemoryCount* enclosing_;
  std::size_t bytes_ = 0;
};

/// `size` elements of memory from a Source, not initialised.
template <class T, class Source>
class Array {
 public:
  Array() = default;
  explicit Array(std::size_t size) : size_(size) {
    if (size > 0) data_ = static_cast<T*>(Source::take(size * sizeof(T)));
  }
  ~Array() {
    // An empty array makes no call, because a capture allows none.
    if (data_) Source::give_back(data_, size_ * sizeof(T));
  }
  Array(Array&& other) noexcept { swap(other); }
  Array& operator=(Array&& other) noexcept {
    swap(other);
    return *this;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t size() const { return size_; }
  /// Makes room for `size` elements. If the array grows, its contents are lost.
  void reserve(std::size_t size) {
    if (size > size_) *this = Array(size);
  }

 private:
  void swap(Array& other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

struct DeviceSource {
  /// Throws DeviceError where the device has not enough memory. Returns null where memory is only
  /// counted.
  static void* take(std::size_t bytes) {
    if (MemoryCount* count = MemoryCount::current()) {
      count->add(bytes);
      return nullptr;
    }
    void* data = nullptr;
    const cudaError_t error = cudaMalloc(&data, bytes);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      std::size_t free = 0, total = 0;
      cudaMemGetInfo(&free, &total);
      throw_device_error(
          error, fmt::format("{} of device memory asked for, {} of {} free", bytes_text(bytes),
                             bytes_text(free), bytes_text(total)));
    }
    check(error, "cudaMalloc");
    device_bytes() += bytes;
    return data;
  }
  static void give_back(void* data, std::size_t bytes) {
    device_bytes() -= bytes;
    cudaFree(data);
  }
};
template <class T>
using DeviceMemory = Array<T, DeviceSource>;

/// Pinned host memory, with which the device exchanges data while the host goes on.
struct PinnedSource {
  static void* take(std::size_t bytes) {
    void* data = nullptr;
    KSHOT_CUDA_CHECK(cudaMallocHost(&data, bytes));
    return data;
  }
  static void give_back(void* data, std::size_t /*bytes*/) { cudaFreeHost(data); }
};
template <class T>
using HostMemory = Array<T, PinnedSource>;

/// A point in a stream's work.
class Event {
 public:
  Event() { KSHOT_CUDA_CHECK(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  cudaEvent_t get() const { return event_; }
  /// Waits until the stream has reached this point. Costs almost nothing if it already has.
  void wait() const {
    const cudaError_t state = cudaEventQuery(event_);
    if (state == cudaSuccess) return;
    if (state != cudaErrorNotReady) check(state, "cudaEventQuery");
    cudaGetLastError();
    KSHOT_CUDA_CHECK(cudaEventSynchronize(event_));
  }

 private:
  cudaEvent_t event_ = nullptr;
};

class Stream {
 public:
  Stream() { KSHOT_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  cudaStream_t get() const { return stream_; }
  void wait() const { KSHOT_CUDA_CHECK(cudaStreamSynchronize(stream_)); }
  void record(const Event& event) const { KSHOT_CUDA_CHECK(cudaEventRecord(event.get(), stream_)); }
  /// Later work on this stream waits for the recorded event. The host does not wait.
  void wait_for(const Event& event) const {
    KSHOT_CUDA_CHECK(cudaStreamWaitEvent(stream_, event.get(), 0));
  }
  /// Copies from pinned host memory, which must not change until the stream has passed this copy.
  template <class T>
  void start_to_device(T* to, const T* from, std::size_t count) const {
    start(to, from, count, cudaMemcpyHostToDevice);
  }
  template <class T>
  void start_to_host(T* to, const T* from, std::size_t count) const {
    start(to, from, count, cudaMemcpyDeviceToHost);
  }
  /// These wait: when they return, host memory is filled, or free to be changed.
  template <class T>
  void to_device(T* to, const T* from, std::size_t count) const {
    transfer(to, from, count, cudaMemcpyHostToDevice);
  }
  template <class T>
  void to_host(T* to, const T* from, std::size_t count) const {
    transfer(to, from, count, cudaMemcpyDeviceToHost);
  }
  /// Copies within the device, in the order of the stream.
  template <class T>
  void copy(T* to, const T* from, std::size_t count) const {
    start(to, from, count, cudaMemcpyDeviceToDevice);
  }
  /// Row i of from [rows, count] to `to` + i * stride, within the device, in the order of the
  /// stream.
  template <class T>
  void copy_rows(T* to, std::size_t stride, const T* from, std::size_t rows,
                 std::size_t count) const {
    if (nothing(rows * count)) return;
    KSHOT_CUDA_CHECK(cudaMemcpy2DAsync(to, stride * sizeof(T), from, count * sizeof(T),
                                       count * sizeof(T), rows, cudaMemcpyDeviceToDevice, stream_));
  }
  template <class T>
  void clear(T* to, std::size_t count) const {
    if (nothing(count)) return;
    KSHOT_CUDA_CHECK(cudaMemsetAsync(to, 0, count * sizeof(T), stream_));
  }

 private:
  template <class T>
  void transfer(T* to, const T* from, std::size_t count, cudaMemcpyKind kind) const {
    if (nothing(count)) return;
    start(to, from, count, kind);
    wait();
  }
  template <class T>
  void start(T* to, const T* from, std::size_t count, cudaMemcpyKind kind) const {
    if (nothing(count)) return;
    KSHOT_CUDA_CHECK(cudaMemcpyAsync(to, from, count * sizeof(T), kind, stream_));
  }
  /// True also where memory is only counted.
  static bool nothing(std::size_t count) { return count == 0 || MemoryCount::current(); }
  cudaStream_t stream_ = nullptr;
};

/// The device of a backend.
class Device {
 public:
  explicit Device(int index) : index_(index) { activate(); }
  int index() const { return index_; }
  /// Makes this device the calling thread's current one.
  void activate() const { KSHOT_CUDA_CHECK(cudaSetDevice(index_)); }

 private:
  int index_;
};

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
