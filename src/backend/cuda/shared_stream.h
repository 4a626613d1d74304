// The stream of the vectors that all tasks share, and the order of work on it. The device keeps
// this order, and the host does not wait.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "backend/cuda/memory.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// Writers and readers of shared vectors use this stream in turn. Waves are the exception: they
/// read shared vectors on their own streams. Each wave follows this stream first. The reduction, in
/// which every reader's work ends, makes this stream wait for the waves. Snapshots are copied on a
/// separate stream, and the next write waits for them.
///
/// Only one thread at a time may write and take snapshots, while no wave is at work. Waves may
/// follow from any thread.
class SharedStream {
 public:
  /// How far a stream has followed this one.
  struct Followed {
    std::uint64_t writes = 0;
    Event event;
  };

  const Stream& get() const { return stream_; }
  /// The stream, for work that writes a shared vector.
  const Stream& write() const {
    if (copying_) stream_.wait_for(copied_);
    copying_ = false;
    ++writes_;
    return stream_;
  }
  /// Makes `reader` wait for all writes so far.
  void follow(const Stream& reader, Followed& followed) const {
    const std::uint64_t writes = writes_;
    if (followed.writes == writes) return;
    stream_.record(followed.event);
    reader.wait_for(followed.event);
    followed.writes = writes;
  }
  /// Begins a copy to pinned memory, after which `done` is recorded.
  template <class T>
  void start_copy(T* to, const T* from, std::size_t count, const Event& done) const {
    stream_.record(written_);
    copies_.wait_for(written_);
    copies_.start_to_host(to, from, count);
    copies_.record(done);
    copies_.record(copied_);
    copying_ = true;
  }

 private:
  Stream stream_, copies_;
  Event written_, copied_;
  mutable bool copying_ = false;
  mutable std::atomic<std::uint64_t> writes_{1};
};
using SharedStreamPointer = std::shared_ptr<const SharedStream>;

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
