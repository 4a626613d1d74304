// A fixed set of threads for parallel loops. The calling thread works too, as worker 0.
//
// Idle threads poll for a short time, yielding the core between polls, before they sleep. The
// reason is loops that follow each other closely, such as the steps of a training: it takes tens of
// microseconds to wake a thread, and a step may take only two or three thousand microseconds.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace kshot {

class ThreadPool {
 public:
  /// Throws Error where the system cannot start that many threads.
  explicit ThreadPool(int workers);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int workers() const { return static_cast<int>(threads_.size()) + 1; }
  /// Calls body(worker, item) for the items 0..items-1. Free workers take the items in ascending
  /// order. After all workers have stopped, the exception of the lowest item is rethrown, if there
  /// was one.
  void run(std::size_t items,
           const std::function<void(std::size_t worker, std::size_t item)>& body);

 private:
  void loop(std::size_t worker);
  void drain(std::size_t worker);
  /// Stops the threads and waits for them.
  void end();

  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable start_, done_;
  const std::function<void(std::size_t, std::size_t)>* body_ = nullptr;
  std::size_t items_ = 0;
  std::atomic<std::size_t> generation_{0}, active_{0}, next_{0};
  std::exception_ptr error_;
  std::size_t error_item_ = 0;
  std::atomic<bool> stop_{false};
};

}  // namespace kshot
