// Signals that end a long command in good order.
#pragma once

#include <csignal>
#include <cstddef>
#include <iterator>

namespace kshot::cli {

/// The signal that came while a SignalScope lived; 0: none.
int caught_signal();

/// Notes SIGINT, SIGTERM, SIGHUP and SIGUSR1 (which Slurm can send before the time is up) while it
/// lives; a second one of a kind ends the process at once. Where SIGHUP is ignored (nohup), it
/// stays so.
class SignalScope {
 public:
  SignalScope();
  ~SignalScope();
  SignalScope(const SignalScope&) = delete;
  SignalScope& operator=(const SignalScope&) = delete;

 private:
  static constexpr int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1};
  static constexpr std::size_t count = std::size(signals);
  struct sigaction before_[count];
};

}  // namespace kshot::cli
