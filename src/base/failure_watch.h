// What a transport between ranks can do for those that wait outside of its exchanges.
#pragma once

#include <functional>
#include <utility>

namespace kshot {

/// A rank that fails tells the others with their next exchange (Communicator::fail). A rank that
/// waits for a device's sums, in which the failed one takes no part, comes to no exchange. It looks
/// here instead. A Communicator that can do this derives from this class too.
class FailureWatch {
 public:
  virtual ~FailureWatch() = default;
  /// Whether another rank has failed and waits in Communicator::fail for this one's next exchange.
  virtual bool failure_announced() = 0;
  /// Lets failure_announced of the other ranks return true, without waiting for them.
  virtual void announce_failure() = 0;
  /// `act` runs once, at the beginning of this rank's Communicator::fail. It ends what would keep
  /// other ranks from their next exchange. It must not throw. Empty: nothing.
  void on_failure(std::function<void()> act) { on_failure_ = std::move(act); }

  /// For Communicator::fail.
  void fail() {
    announce_failure();
    if (on_failure_) on_failure_();
  }

 private:
  std::function<void()> on_failure_;
};

}  // namespace kshot
