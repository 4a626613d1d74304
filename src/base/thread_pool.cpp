#include "base/thread_pool.h"

#include <fmt/format.h>

#include <chrono>
#include <system_error>

#include "kshot/error.h"

namespace kshot {
namespace {

/// Waits actively until done() is true, for at most 300 microseconds. This is long beside the time
/// to wake a thread and short beside a step whose duration a user notices. Returns false if done()
/// is still false then.
template <class Done>
bool spin_until(const Done& done) {
  using Clock = std::chrono::steady_clock;
  constexpr auto patience = std::chrono::microseconds(300);
  constexpr int looks = 64;  // a check costs less than reading the clock
  const auto end = Clock::now() + patience;
  do {
    for (int i = 0; i < looks; ++i) {
      if (done()) return true;
    }
    std::this_thread::yield();
  } while (Clock::now() < end);
  return false;
}

}  // namespace

ThreadPool::ThreadPool(int workers) {
  try {
    for (int i = 1; i < workers; ++i) {
      threads_.emplace_back([this, i] { loop(static_cast<std::size_t>(i)); });
    }
  } catch (const std::system_error& error) {
    end();  // the destructor of an object whose constructor throws never runs
    throw Error(fmt::format("cannot start thread {} of {}: {}", threads_.size() + 1, workers,
                            error.code().message()));
  }
}

ThreadPool::~ThreadPool() {
  end();
}

void ThreadPool::end() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  start_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::run(std::size_t items, const std::function<void(std::size_t, std::size_t)>& body) {
  {
    const std::lock_guard lock(mutex_);
    body_ = &body;
    items_ = items;
    next_ = 0;
    error_ = nullptr;
    active_ = threads_.size();
    ++generation_;
  }
  start_.notify_all();
  drain(0);
  const auto done = [this] { return active_ == 0; };
  if (!spin_until(done)) {
    std::unique_lock lock(mutex_);
    done_.wait(lock, done);
  }
  body_ = nullptr;
  if (error_) std::rethrow_exception(error_);
}

void ThreadPool::loop(std::size_t worker) {
  std::size_t seen = 0;
  for (;;) {
    const auto called = [&] { return stop_ || generation_ != seen; };
    if (!spin_until(called)) {
      std::unique_lock lock(mutex_);
      start_.wait(lock, called);
    }
    if (stop_) return;
    seen = generation_;
    drain(worker);
    if (--active_ > 0) continue;
    // By now the caller sleeps, or has seen that active_ is 0.
    { const std::lock_guard lock(mutex_); }
    done_.notify_one();
  }
}

void ThreadPool::drain(std::size_t worker) {
  for (std::size_t item = next_++; item < items_; item = next_++) {
    try {
      (*body_)(worker, item);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!error_ || item < error_item_) {
        error_ = std::current_exception();
        error_item_ = item;
      }
      next_ = items_;  // the other workers stop after their current item
    }
  }
}

}  // namespace kshot
