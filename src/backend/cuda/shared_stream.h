// The stream on which vectors that all tasks share are worked on, and who waits there for whom. The
// host does not wait: the device keeps the order.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "backend/cuda/memory.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// Writers and readers of shared vectors take turns on it, but for waves, which read them on their
/// own streams: each follows it first, and the reduction, which every reader's work ends in, leads
/// back. Snapshots leave on a stream of their own, and are waited for by what writes next.
///
/// One thread at a time writes and takes snapshots, while no wave is at work; waves follow from any
/// thread.
class SharedStream {
 public:
  /// What a stream has seen of this one.
  struct Followed {
    std::uint64_t writes = 0;
    Event event;
  };

  const Stream& get() const { return stream_; }
  /// For work that writes a shared vector.
  const Stream& write() const {
    if (copying_) stream_.wait_for(copied_);
    copying_ = false;
    ++writes_;
    return stream_;
  }
  /// `reader` comes after all that was written so far.
  void follow(const Stream& reader, Followed& followed) const {
    const std::uint64_t writes = writes_;
    if (followed.writes == writes) return;
    stream_.record(followed.event);
    reader.wait_for(followed.event);
    followed.writes = writes;
  }
  /// Begins a copy to pinned memory; `done` is then recorded.
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
