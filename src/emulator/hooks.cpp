// Receives the calls of the compiler's instrumentation for the emulator.
//
// Kernel files are compiled with -fsanitize=thread,bounds,alignment. These options put a call
// before every access to memory, and where an index leaves an array of known size or an address is
// misaligned. The program is not linked with the thread sanitizer's library; the calls end here. So
// kernels use plain pointers, and the checks cost nothing on a device.
#include <cstddef>
#include <cstdint>

#include "base/sanitizers.h"
#include "emulator/machine.h"

#if defined(KSHOT_THREAD_SANITIZER)
#error "the emulator takes the thread sanitizer's place: build it without"
#endif

using kshot::simt::Access;
using kshot::simt::on_access;

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

#define KSHOT_HOOK(name, bytes, kind)                             \
  void name(void* address) {                                      \
    on_access(address, bytes, kind, __builtin_return_address(0)); \
  }
#define KSHOT_HOOKS(bytes)                                       \
  KSHOT_HOOK(__tsan_read##bytes, bytes, Access::read)            \
  KSHOT_HOOK(__tsan_write##bytes, bytes, Access::write)          \
  KSHOT_HOOK(__tsan_volatile_read##bytes, bytes, Access::read)   \
  KSHOT_HOOK(__tsan_volatile_write##bytes, bytes, Access::write) \
  KSHOT_HOOK(__tsan_unaligned_read##bytes, bytes, Access::read)  \
  KSHOT_HOOK(__tsan_unaligned_write##bytes, bytes, Access::write)
KSHOT_HOOKS(1)
KSHOT_HOOKS(2)
KSHOT_HOOKS(4)
KSHOT_HOOKS(8)
KSHOT_HOOKS(16)
#undef KSHOT_HOOKS
#undef KSHOT_HOOK

void __tsan_read_range(void* address, std::size_t bytes) {
  if (bytes) on_access(address, bytes, Access::read, __builtin_return_address(0));
}
void __tsan_write_range(void* address, std::size_t bytes) {
  if (bytes) on_access(address, bytes, Access::write, __builtin_return_address(0));
}

// std::atomic in the host code of kernel files (for example the count of a shared_ptr).
#define KSHOT_ATOMIC_RMW(bits, name)                                                       \
  std::uint##bits##_t __tsan_atomic##bits##_fetch_##name(volatile std::uint##bits##_t* at, \
                                                         std::uint##bits##_t value, int) { \
    return __atomic_fetch_##name(at, value, __ATOMIC_SEQ_CST);                             \
  }
#define KSHOT_ATOMICS(bits)                                                                     \
  std::uint##bits##_t __tsan_atomic##bits##_load(const volatile std::uint##bits##_t* at, int) { \
    return __atomic_load_n(at, __ATOMIC_SEQ_CST);                                               \
  }                                                                                             \
  void __tsan_atomic##bits##_store(volatile std::uint##bits##_t* at, std::uint##bits##_t value, \
                                   int) {                                                       \
    __atomic_store_n(at, value, __ATOMIC_SEQ_CST);                                              \
  }                                                                                             \
  std::uint##bits##_t __tsan_atomic##bits##_exchange(volatile std::uint##bits##_t* at,          \
                                                     std::uint##bits##_t value, int) {          \
    return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST);                                    \
  }                                                                                             \
  bool __tsan_atomic##bits##_compare_exchange_strong(volatile std::uint##bits##_t* at,          \
                                                     std::uint##bits##_t* expected,             \
                                                     std::uint##bits##_t value, int, int) {     \
    return __atomic_compare_exchange_n(at, expected, value, false, __ATOMIC_SEQ_CST,            \
                                       __ATOMIC_SEQ_CST);                                       \
  }                                                                                             \
  bool __tsan_atomic##bits##_compare_exchange_weak(volatile std::uint##bits##_t* at,            \
                                                   std::uint##bits##_t* expected,               \
                                                   std::uint##bits##_t value, int, int) {       \
    return __atomic_compare_exchange_n(at, expected, value, false, __ATOMIC_SEQ_CST,            \
                                       __ATOMIC_SEQ_CST);                                       \
  }                                                                                             \
  KSHOT_ATOMIC_RMW(bits, add)                                                                   \
  KSHOT_ATOMIC_RMW(bits, sub)                                                                   \
  KSHOT_ATOMIC_RMW(bits, and)                                                                   \
  KSHOT_ATOMIC_RMW(bits, or)                                                                    \
  KSHOT_ATOMIC_RMW(bits, xor)
KSHOT_ATOMICS(8)
KSHOT_ATOMICS(16)
KSHOT_ATOMICS(32)
KSHOT_ATOMICS(64)
void __tsan_atomic_thread_fence(int) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
void __tsan_atomic_signal_fence(int) {
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

// -fsanitize=bounds, in the layout of GCC and Clang (compiler-rt, ubsan_value.h and
// ubsan_handlers.h).
struct UbsanType {
  std::uint16_t kind, info;
  char name[1];
};
struct UbsanLocation {
  const char* file;
  std::uint32_t line, column;
};
struct UbsanOutOfBounds {
  UbsanLocation location;
  const UbsanType* array;
  const UbsanType* index;
};
void __ubsan_handle_out_of_bounds(UbsanOutOfBounds* data, std::uintptr_t index) {
  kshot::simt::on_undefined(data->location.file, data->location.line, "out of bounds: index",
                            static_cast<std::ptrdiff_t>(index), data->array->name);
}
void __ubsan_handle_out_of_bounds_abort(UbsanOutOfBounds* data, std::uintptr_t index) {
  __ubsan_handle_out_of_bounds(data, index);
}

// -fsanitize=alignment (and null, if all of -fsanitize=undefined is on).
struct UbsanTypeMismatch {
  UbsanLocation location;
  const UbsanType* type;
  unsigned char log_alignment;
  unsigned char kind;
};
void __ubsan_handle_type_mismatch_v1(UbsanTypeMismatch* data, std::uintptr_t pointer) {
  const bool aligned = pointer % (std::uintptr_t{1} << data->log_alignment) == 0;
  kshot::simt::on_undefined(data->location.file, data->location.line,
                            pointer == 0 ? "null pointer:"
                            : aligned    ? "out of bounds: address"
                                         : "misaligned address",
                            static_cast<std::ptrdiff_t>(pointer), data->type->name);
}
void __ubsan_handle_type_mismatch_v1_abort(UbsanTypeMismatch* data, std::uintptr_t pointer) {
  __ubsan_handle_type_mismatch_v1(data, pointer);
}

}  // extern "C"
