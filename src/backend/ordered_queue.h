// Partial results of waves, which are committed in the order of the waves' ordinals, whatever the
// order in which they arrive.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <map>
#include <mutex>
#include <stdexcept>
#include <utility>
#include <vector>

namespace kshot::backend {

/// Several workers put partial results. The worker whose result is the next in order commits it,
/// and all results that wait after it, one at a time. Meanwhile the other workers continue.
template <class Partial>
class OrderedQueue {
 public:
  /// Expects partial results 0 .. waves - 1.
  void begin(std::size_t waves) {
    next_ = 0;
    waves_ = waves;
    cancelled_ = committing_ = false;
    waiting_.clear();
  }

  /// Returns a partial result to fill. It reuses the memory of a committed one where there is one.
  Partial take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return {};
    Partial partial = std::move(free_.back());
    free_.pop_back();
    return partial;
  }

  /// Calls commit(Partial&) for this result and for those that waited for it. Two workers never
  /// call commit at the same time. A worker that is far ahead of the slowest one waits here, so
  /// that memory does not grow with the meta-batch. Does nothing after cancel().
  template <class Commit>
  void put(std::size_t ordinal, Partial partial, Commit&& commit) {
    std::unique_lock lock(mutex_);
    turn_.wait(lock, [&] { return cancelled_ || ordinal < next_ + 64; });
    if (cancelled_) return;
    waiting_.emplace(ordinal, std::move(partial));
    while (!committing_) {
      auto next = waiting_.extract(next_);
      if (next.empty()) return;
      committing_ = true;
      lock.unlock();
      try {
        commit(next.mapped());
      } catch (...) {
        cancel();
        throw;
      }
      lock.lock();
      committing_ = false;
      free_.push_back(std::move(next.mapped()));
      ++next_;
      turn_.notify_all();
    }
  }

  /// Ends all waiting, because a wave will not come.
  void cancel() {
    {
      const std::lock_guard lock(mutex_);
      cancelled_ = true;
    }
    turn_.notify_all();
  }

  /// Throws std::logic_error unless every partial result was committed.
  void check_complete() const {
    if (cancelled_ || next_ != waves_) {
      throw std::logic_error("reduction finished before all waves were added");
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable turn_;
  std::size_t next_ = 0, waves_ = 0;
  bool cancelled_ = false, committing_ = false;
  std::vector<Partial> free_;
  std::map<std::size_t, Partial> waiting_;
};

}  // namespace kshot::backend
