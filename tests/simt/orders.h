// Settings for one test, and the three orders that every kernel's test runs in.
#pragma once

#include <array>

#include "simt/simt.h"

namespace kshot::simt {

/// Puts the settings back when it goes.
class With {
 public:
  explicit With(const Settings& wanted) : before_(settings()) { settings() = wanted; }
  ~With() { settings() = before_; }
  With(const With&) = delete;
  With& operator=(const With&) = delete;

 private:
  Settings before_;
};

/// Ascending, descending, and random from three seeds.
inline std::array<Settings, 5> all_orders() {
  return {Settings{.order = Order::ascending}, Settings{.order = Order::descending},
          Settings{.order = Order::random, .seed = 1}, Settings{.order = Order::random, .seed = 2},
          Settings{.order = Order::random, .seed = 3}};
}

}  // namespace kshot::simt
