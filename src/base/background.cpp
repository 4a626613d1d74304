#include "base/background.h"

#include <utility>

namespace kshot {

Background::~Background() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Background::rethrow() {
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void Background::submit(std::function<void()> job) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return jobs_.size() < 2; });
  rethrow();
  if (!thread_.joinable()) thread_ = std::thread([this] { loop(); });
  jobs_.push_back(std::move(job));
  changed_.notify_all();
}

void Background::wait() {
  finish();
  const std::lock_guard lock(mutex_);
  rethrow();
}

void Background::finish() noexcept {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return jobs_.empty(); });
}

void Background::loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stop_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    const std::function<void()> job = std::move(jobs_.front());
    // After a failure, the remaining jobs are dropped until the caller has received the exception.
    if (!error_) {
      lock.unlock();
      std::exception_ptr error;
      try {
        job();
      } catch (...) {
        error = std::current_exception();
      }
      lock.lock();
      error_ = error;
    }
    jobs_.pop_front();
    changed_.notify_all();
  }
}

}  // namespace kshot
