// One thread that does jobs in the order they are given, beside the thread that gives them.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace kshot {

class Background {
 public:
  Background() = default;
  /// Finishes what was given; an error of it is lost.
  ~Background();
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  /// Waits while two jobs are at hand, so that a slow disk does not fill the memory. Throws what a
  /// job before threw, once; this one is then not taken.
  void submit(std::function<void()> job);
  /// Until all are done. Throws as submit does.
  void wait();
  /// The same, throwing nothing: the error stays for the next call.
  void finish() noexcept;

 private:
  void loop();
  void rethrow();

  std::thread thread_;  ///< begun with the first job
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;  ///< the first is at work
  std::exception_ptr error_;
  bool stop_ = false;
};

}  // namespace kshot
