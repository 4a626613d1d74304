// Partial results of waves, committed in the order of the waves' ordinals whoever is first.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <map>
#include <mutex>
#include <stdexcept>
#include <utility>
#include <vector>

namespace kshot::backend {

/// Several workers bring partial results; each is committed by the worker that closes the gap
/// before it, one at a time, while the others go on.
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

  /// One to fill: its memory is that of one committed before, where there is one.
  Partial take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return {};
    Partial partial = std::move(free_.back());
    free_.pop_back();
    return partial;
  }

  /// commit(Partial&) is called, never by two workers at once, for this and all that waited for
  /// it. A worker far ahead of the slowest waits here, so that memory does not grow with the
  /// meta-batch. Does nothing once cancelled.
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

  /// A wave will never come: nobody waits for it any more.
  void cancel() {
    {
      const std::lock_guard lock(mutex_);
      cancelled_ = true;
    }
    turn_.notify_all();
  }

  /// std::logic_error unless every partial result was committed.
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
