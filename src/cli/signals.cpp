#include "cli/signals.h"

namespace kshot::cli {
namespace {

volatile std::sig_atomic_t caught = 0;

extern "C" void note_signal(int signal) {
  caught = signal;
}

}  // namespace

int caught_signal() {
  return static_cast<int>(caught);
}

SignalScope::SignalScope() {
  caught = 0;
  for (std::size_t i = 0; i < count; ++i) {
    sigaction(signals[i], nullptr, &before_[i]);
    if (signals[i] == SIGHUP && before_[i].sa_handler == SIG_IGN) continue;
    struct sigaction action {};
    action.sa_handler = note_signal;
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    sigemptyset(&action.sa_mask);
    sigaction(signals[i], &action, nullptr);
  }
}

SignalScope::~SignalScope() {
  for (std::size_t i = 0; i < count; ++i) sigaction(signals[i], &before_[i], nullptr);
}

}  // namespace kshot::cli
