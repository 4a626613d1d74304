// One background thread that does jobs in the order in which they are submitted.
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
  /// Finishes the submitted jobs. An exception of a job is lost.
  ~Background();
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  /// Waits while two jobs are queued, so that a slow disk does not fill the memory. If an earlier
  /// job has thrown, throws that exception once and does not accept `job`.
  void submit(std::function<void()> job);
  /// Waits until all jobs are done. Throws as submit does.
  void wait();
  /// Waits until all jobs are done and throws nothing. An exception is kept for the next call.
  void finish() noexcept;

 private:
  void loop();
  void rethrow();

  std::thread thread_;  ///< starts with the first job
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;  ///< the first one is running
  std::exception_ptr error_;
  bool stop_ = false;
};

}  // namespace kshot
