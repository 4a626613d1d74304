// Fibers: stacks that take turns on one operating-system thread.
#pragma once

#include <cstddef>
#include <memory>

namespace kshot::simt {

/// A stack and where its code was left.
class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Sets it to call entry() when it is next resumed; entry must call entered(), and end by
  /// leave(true).
  void prepare(void (*entry)());
  /// From the host's stack: runs the fiber until it leaves.
  void resume();
  /// First thing that entry() calls.
  void entered();
  /// From the fiber's own stack: back to resume(). `last`: it will not be resumed as it is.
  void leave(bool last);
  /// Forgets the code that was left on it.
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
