#include "emulator/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

#include "base/sanitizers.h"

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(KSHOT_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__x86_64__)
// Saves on the current stack what a call must preserve, stores the stack pointer in *from, and
// continues on the stack `to`.
extern "C" void kshot_simt_switch(void** from, void* to);
asm(R"(
.text
.globl kshot_simt_switch
.hidden kshot_simt_switch
.type kshot_simt_switch, @function
kshot_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size kshot_simt_switch, .-kshot_simt_switch
)");
#endif

namespace kshot::simt {

// The saved states of the fiber and of the host.
struct Fiber::Context {
#if defined(__x86_64__)
  void* fiber = nullptr;
  void* host = nullptr;
#else
  ucontext_t fiber{};
  ucontext_t host{};
#endif
  const void* host_stack = nullptr;  // for the address sanitizer
  std::size_t host_bytes = 0;
  void* host_fake = nullptr;
  void* fiber_fake = nullptr;
};

Fiber::Fiber() : context_(std::make_unique<Context>()) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  void* at = mmap(nullptr, bytes + page, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (at == MAP_FAILED) throw std::bad_alloc();
  // a stack that is too deep faults here instead of overwriting its neighbour
  mprotect(at, page, PROT_NONE);
  begin_ = static_cast<char*>(at) + page;
}

Fiber::~Fiber() {
  abandon();
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  munmap(begin_ - page, bytes + page);
}

void Fiber::abandon() {
#if defined(KSHOT_ADDRESS_SANITIZER)
  __asan_unpoison_memory_region(begin_, bytes);
  context_->fiber_fake = nullptr;
#endif
}

void Fiber::prepare(void (*entry)()) {
#if defined(__x86_64__)
  // Lays the stack out as if kshot_simt_switch had been called, with the alignment of a function's
  // entry.
  auto* top = reinterpret_cast<void**>(begin_ + bytes) - 1;
  *top = nullptr;                           // entry has no return address
  *--top = reinterpret_cast<void*>(entry);  // the target of `ret`
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  context_->fiber = top;
#else
  getcontext(&context_->fiber);
  context_->fiber.uc_stack.ss_sp = begin_;
  context_->fiber.uc_stack.ss_size = bytes;
  context_->fiber.uc_link = nullptr;
  makecontext(&context_->fiber, entry, 0);
#endif
}

void Fiber::resume() {
#if defined(KSHOT_ADDRESS_SANITIZER)
  __sanitizer_start_switch_fiber(&context_->host_fake, begin_, bytes);
#endif
#if defined(__x86_64__)
  kshot_simt_switch(&context_->host, context_->fiber);
#else
  swapcontext(&context_->host, &context_->fiber);
#endif
#if defined(KSHOT_ADDRESS_SANITIZER)
  __sanitizer_finish_switch_fiber(context_->host_fake, nullptr, nullptr);
#endif
}

void Fiber::entered() {
#if defined(KSHOT_ADDRESS_SANITIZER)
  __sanitizer_finish_switch_fiber(context_->fiber_fake, &context_->host_stack,
                                  &context_->host_bytes);
#endif
}

void Fiber::leave(bool last) {
#if defined(KSHOT_ADDRESS_SANITIZER)
  __sanitizer_start_switch_fiber(last ? nullptr : &context_->fiber_fake, context_->host_stack,
                                 context_->host_bytes);
#else
  (void)last;
#endif
#if defined(__x86_64__)
  kshot_simt_switch(&context_->fiber, context_->host);
#else
  swapcontext(&context_->fiber, &context_->host);
#endif
  entered();
}

}  // namespace kshot::simt
