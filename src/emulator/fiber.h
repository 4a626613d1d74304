// Fibers: stacks that run alternately on one operating-system thread.
#pragma once

#include <cstddef>
#include <memory>

namespace kshot::simt {

/// A stack, and the place where its code was left.
class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Prepares the fiber to call entry() when it is next resumed. entry must call entered() first,
  /// and end with leave(true).
  void prepare(void (*entry)());
  /// Called on the host's stack: runs the fiber until it leaves.
  void resume();
  /// The first call of entry().
  void entered();
  /// Called on the fiber's own stack: returns to resume(). `last` says that the fiber will not be
  /// resumed from here.
  void leave(bool last);
  /// Discards the code that was left on the fiber.
  void abandon();

  bool holds(const void* address) const {
    return static_cast<const char*>(address) >= begin_ &&
           static_cast<const char*>(address) < begin_ + bytes;
  }

 private:
  static constexpr std::size_t bytes = 256 << 10;
  struct Context;

  char* begin_ = nullptr;
  std::unique_ptr<Context> context_;
};

}  // namespace kshot::simt
