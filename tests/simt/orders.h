// Settings for one test, and the orders of threads in which every kernel's test runs.
#pragma once

#include <array>

#include "emulator/simt.h"

namespace kshot::simt {

/// Applies settings, and restores the previous ones in its destructor.
class With {
 public:
  explicit With(const Settings& temporary) : before_(settings()) { settings() = temporary; }
  ~With() { settings() = before_; }
  With(const With&) = delete;
  With& operator=(const With&) = delete;

 private:
  Settings before_;
};

/// Returns ascending, descending, and random orders from three seeds.
inline std::array<Settings, 5> all_orders() {
  return {Settings{.order = Order::ascending}, Settings{.order = Order::descending},
          Settings{.order = Order::random, .seed = 1}, Settings{.order = Order::random, .seed = 2},
          Settings{.order = Order::random, .seed = 3}};
}

}  // namespace kshot::simt
