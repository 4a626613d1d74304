// Signals on which a long command stops and completes its files.
#pragma once

#include <csignal>
#include <cstddef>
#include <iterator>

namespace kshot::cli {

/// The last signal that came while a SignalScope existed; 0: none.
int caught_signal();

/// Notes SIGINT, SIGTERM, SIGHUP and SIGUSR1 (which Slurm can send before the time limit) while it
/// exists. A second signal of the same kind ends the process immediately. Where SIGHUP is ignored
/// (nohup), it stays ignored.
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
