// An optional part of a transport between ranks, for ranks that wait outside of its exchanges.
#pragma once

#include <functional>
#include <utility>

namespace kshot {

/// A rank that fails tells the others in their next exchange (Communicator::fail). A rank that
/// waits for a device's sums makes no exchange meanwhile, and the failed rank takes no part in
/// these sums. Such a waiting rank asks this class instead. A Communicator that supports this
/// derives from this class too.
class FailureWatch {
 public:
  virtual ~FailureWatch() = default;
  /// Returns true if another rank has failed and waits in Communicator::fail for this rank's next
  /// exchange.
  virtual bool failure_announced() = 0;
  /// Makes failure_announced of the other ranks return true, without waiting for them.
  virtual void announce_failure() = 0;
  /// Sets the function that runs once, at the beginning of this rank's Communicator::fail. It ends
  /// whatever keeps other ranks from their next exchange. It must not throw. An empty function does
  /// nothing.
  void on_failure(std::function<void()> act) { on_failure_ = std::move(act); }

  /// Communicator::fail calls this.
  void fail() {
    announce_failure();
    if (on_failure_) on_failure_();
  }

 private:
  std::function<void()> on_failure_;
};

}  // namespace kshot
