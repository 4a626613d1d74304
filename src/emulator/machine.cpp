// The emulator's multiprocessor. This is one file although it is long: threads, barriers, warp
// operations and their diagnostics are one state machine.
#include "emulator/machine.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <link.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <string_view>
#include <utility>
#include <vector>

#include "emulator/fiber.h"
#include "emulator/simt.h"
#include "emulator/tensor_core.h"

namespace kshot::simt {
namespace {

using api::dim3;
using api::uint3;

constexpr unsigned warp_size = 32;
constexpr unsigned max_threads = 1024;
constexpr std::size_t max_shared_bytes = 227 << 10;

// What a thread of the block does: it has not begun, can run, waits, or has left the kernel.
enum class State { fresh, ready, at_barrier, at_warp, done };

// A thread of the current block.
struct Thread {
  State state = State::fresh;
  uint3 index{};
  unsigned number = 0;  // linear index in the block
  Fiber* fiber = nullptr;
  // The place where it waits, and the operation.
  Location location;
  BarrierKind barrier{};
  int predicate = 0;
  WarpOp op{};
  std::uint32_t mask = 0;
  std::uint64_t value = 0;  // operand, then result
  int argument = 0, width = 0;

  unsigned warp() const { return number / warp_size; }
  unsigned lane() const { return number % warp_size; }
};

// The lanes that wait, and what each lane knows of the others (vector clocks).
struct Warp {
  std::uint32_t waiting = 0;  // lanes that wait at a warp primitive
  // clock[a][b] is the time of lane b up to which lane a knows what b did. clock[a][a] is the time
  // of a itself.
  std::array<std::array<std::uint32_t, warp_size>, warp_size> clock{};
};

std::string site(const Location& location) {
  const std::string_view file = location.file_name();
  const auto slash = file.rfind('/');
  return fmt::format("{}:{}", slash == std::string_view::npos ? file : file.substr(slash + 1),
                     location.line());
}

bool same_site(const Location& a, const Location& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         std::strcmp(a.file_name(), b.file_name()) == 0;
}

std::string text(const uint3& i) {
  return fmt::format("({},{},{})", i.x, i.y, i.z);
}

const char* name_of(WarpOp op) {
  switch (op) {
    case WarpOp::index:
      return "__shfl_sync";
    case WarpOp::up:
      return "__shfl_up_sync";
    case WarpOp::down:
      return "__shfl_down_sync";
    case WarpOp::exclusive_or:
      return "__shfl_xor_sync";
    case WarpOp::ballot:
      return "__ballot_sync";
    case WarpOp::all:
      return "__all_sync";
    case WarpOp::any:
      return "__any_sync";
    case WarpOp::add:
      return "__reduce_add_sync";
    case WarpOp::multiply:
      return "mma.sync";
    case WarpOp::barrier:
      break;
  }
  return "__syncwarp";
}

const char* name_of(BarrierKind kind) {
  switch (kind) {
    case BarrierKind::all:
      return "__syncthreads_and";
    case BarrierKind::any:
      return "__syncthreads_or";
    case BarrierKind::count:
      return "__syncthreads_count";
    case BarrierKind::plain:
      break;
  }
  return "__syncthreads";
}

// Returns " (file:line)" of a code address if the tool addr2line is installed, else nothing.
std::string source_line(const void* code) {
  Dl_info info;
  if (!code || !dladdr(code, &info) || !info.dli_fname) return {};
  char executable[4096];
  const auto length = std::min<std::size_t>(sizeof executable - 1, std::strlen(info.dli_fname));
  std::memcpy(executable, info.dli_fname, length);
  executable[length] = '\0';
  const auto offset = static_cast<const char*>(code) - static_cast<const char*>(info.dli_fbase) - 1;
  const std::string command =
      fmt::format("addr2line -e '{}' {:#x} 2>/dev/null", executable, offset);
  FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) return {};
  char line[1024] = {};
  const bool got = std::fgets(line, sizeof line, pipe) != nullptr;
  pclose(pipe);
  std::string_view found = got ? line : "";
  found = found.substr(0, found.find_first_of(" \n"));
  if (found.empty() || found.starts_with("??")) return {};
  if (const auto slash = found.rfind('/'); slash != std::string_view::npos) {
    found.remove_prefix(slash + 1);
  }
  return fmt::format(" ({})", found);
}

// Code and static data of the program and its libraries. Constants lie there.
struct Range {
  std::uintptr_t begin, end;
};
const std::vector<Range>& modules() {
  static const std::vector<Range> ranges = [] {
    std::vector<Range> found;
    dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t, void* to) {
          for (int i = 0; i < info->dlpi_phnum; ++i) {
            const auto& segment = info->dlpi_phdr[i];
            if (segment.p_type != PT_LOAD) continue;
            const auto begin = static_cast<std::uintptr_t>(info->dlpi_addr + segment.p_vaddr);
            static_cast<std::vector<Range>*>(to)->push_back({begin, begin + segment.p_memsz});
          }
          return 0;
        },
        &found);
    return found;
  }();
  return ranges;
}

// Runs a kernel: schedules the threads of a block, resolves barriers and warp operations, and
// checks accesses.
class Machine {
 public:
  void run(const Kernel& kernel);

  int block_barrier(Thread& thread, BarrierKind kind, int predicate, Location location);
  std::uint64_t warp_exchange(Thread& thread, WarpOp op, std::uint32_t mask, std::uint64_t value,
                              int argument, int width, Location location);
  void access(Thread& thread, std::uintptr_t address, std::size_t bytes, Access kind,
              const void* code, const void* value);
  /// Ends the kernel with this report. The thread's code is never resumed.
  [[noreturn]] void fail(const std::string& what);

  // The thread whose code runs. Null in the emulator's own code, and in other threads of the host.
  static inline thread_local Thread* active = nullptr;
  const Kernel* kernel = nullptr;
  uint3 block{};

 private:
  void run_block();
  void arrange(std::vector<std::uint32_t>& order);
  void release_barrier(Thread& last);
  void try_release_warp(Thread& last);
  void exchange(Thread& last);
  std::string deadlock() const;
  std::string describe_position(const Thread& thread) const;
  [[noreturn]] void report(const std::string& what);
  Fiber* take_fiber();

  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<std::uint32_t> order_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> free_fibers_;
  unsigned done_ = 0, at_barrier_ = 0, block_number_ = 0;
  std::uint64_t random_ = 1;
  std::string failure_;
};

Machine& machine() {
  static Machine instance;
  return instance;
}

// Thrown by fail() through the emulator's own frames on a fiber, never through the frames of the
// kernel.
struct Stop {};

// Enters the emulator from kernel code: calls act(thread). The accesses of act are not checked as
// the kernel's. After fail() no frame of the emulator is left on the fiber, and the kernel is not
// resumed.
template <class Act>
auto enter(Act act) -> decltype(act(std::declval<Thread&>())) {
  Thread& thread = *std::exchange(Machine::active, nullptr);
  struct Back {
    Thread& thread;
    ~Back() { Machine::active = &thread; }
  };
  try {
    const Back back{thread};
    return act(thread);
  } catch (const Stop&) {
  }
  Machine::active = nullptr;
  thread.fiber->leave(true);
  std::abort();  // not reached: the fiber is not resumed
}

}  // namespace

Counters& mutable_counters() {
  static Counters instance;
  return instance;
}
const Counters& counters() {
  return mutable_counters();
}

Settings& settings() {
  static Settings instance;
  return instance;
}

std::size_t live_allocations() {
  return memory().live();
}
std::size_t allocated_bytes() {
  return memory().used();
}

namespace {

void start_thread() {
  Machine& m = machine();
  Thread* thread = std::exchange(Machine::active, nullptr);
  thread->fiber->entered();
  Machine::active = thread;
  m.kernel->body(m.kernel->arguments);
  Machine::active = nullptr;
  thread->state = State::done;
  thread->fiber->leave(true);
}

Fiber* Machine::take_fiber() {
  if (free_fibers_.empty()) {
    fibers_.push_back(std::make_unique<Fiber>());
    free_fibers_.push_back(fibers_.back().get());
  }
  Fiber* fiber = free_fibers_.back();
  free_fibers_.pop_back();
  return fiber;
}

void Machine::arrange(std::vector<std::uint32_t>& order) {
  switch (settings().order) {
    case Order::ascending:
      break;
    case Order::descending:
      std::ranges::reverse(order);
      break;
    case Order::random:
      for (std::size_t i = order.size(); i > 1; --i) {
        random_ ^= random_ << 13;  // xorshift64, Marsaglia 2003
        random_ ^= random_ >> 7;
        random_ ^= random_ << 17;
        std::swap(order[i - 1], order[random_ % i]);
      }
      break;
  }
}

void Machine::run(const Kernel& k) {
  kernel = &k;
  block = {};
  failure_.clear();
  const auto count = [](const dim3& d) { return std::size_t{d.x} * d.y * d.z; };
  const std::size_t threads = count(k.block), blocks = count(k.grid);
  if (threads == 0 || threads > max_threads || k.block.z > 64 || blocks == 0 || k.grid.y > 65535 ||
      k.grid.z > 65535 || k.grid.x > 0x7fffffffu) {
    throw Failure(
        fmt::format("kernel {}: a grid of {}x{}x{} blocks of {}x{}x{} threads is not "
                    "possible (at most 1024 threads, grid y and z at most 65535)",
                    k.name, k.grid.x, k.grid.y, k.grid.z, k.block.x, k.block.y, k.block.z));
  }
  if (k.shared_bytes > max_shared_bytes) {
    throw Failure(fmt::format("kernel {}: {} bytes of dynamic shared memory; {} are the limit",
                              k.name, k.shared_bytes, max_shared_bytes));
  }
  ++mutable_counters().kernels;
  random_ = settings().seed * 0x9e3779b97f4a7c15ull + 1;
  memory().begin_launch(k.shared_bytes);
  std::vector<std::uint32_t> order(blocks);
  std::iota(order.begin(), order.end(), 0u);
  arrange(order);
  for (const std::uint32_t number : order) {
    block_number_ = number;
    block = {number % k.grid.x, number / k.grid.x % k.grid.y, number / k.grid.x / k.grid.y};
    run_block();
  }
  kernel = nullptr;
}

void Machine::run_block() {
  const dim3& size = kernel->block;
  const unsigned count = size.x * size.y * size.z;
  threads_.assign(count, Thread{});
  for (unsigned i = 0; i < count; ++i) {
    threads_[i].number = i;
    threads_[i].index = {i % size.x, i / size.x % size.y, i / size.x / size.y};
  }
  warps_.assign((count + warp_size - 1) / warp_size, Warp{});
  for (Warp& warp : warps_) {
    for (unsigned lane = 0; lane < warp_size; ++lane) warp.clock[lane][lane] = 1;
  }
  done_ = at_barrier_ = 0;
  memory().begin_block();
  order_.resize(count);
  std::iota(order_.begin(), order_.end(), 0u);
  if (settings().order == Order::descending) arrange(order_);
  while (done_ < count) {
    if (settings().order == Order::random) arrange(order_);
    bool moved = false;
    for (const std::uint32_t number : order_) {
      Thread& thread = threads_[number];
      if (thread.state == State::fresh) {
        thread.fiber = take_fiber();
        thread.fiber->prepare(start_thread);
      } else if (thread.state != State::ready) {
        continue;
      }
      thread.state = State::ready;
      moved = true;
      active = &thread;
      thread.fiber->resume();
      active = nullptr;
      if (!failure_.empty()) report(failure_);
      if (thread.state == State::done) {
        ++done_;
        free_fibers_.push_back(thread.fiber);
        thread.fiber = nullptr;
      }
    }
    if (!moved) report(deadlock());
  }
}

void Machine::report(const std::string& what) {
  const std::string message =
      fmt::format("kernel {}, block {}: {}", kernel->name, text(block), what);
  for (Thread& thread : threads_) {
    if (thread.fiber) {
      thread.fiber->abandon();
      free_fibers_.push_back(std::exchange(thread.fiber, nullptr));
    }
  }
  kernel = nullptr;
  throw Failure(message);
}

void Machine::fail(const std::string& what) {
  failure_ = what;
  throw Stop();
}

// ---- barriers ----

int Machine::block_barrier(Thread& thread, BarrierKind kind, int predicate, Location location) {
  thread.state = State::at_barrier;
  thread.barrier = kind;
  thread.predicate = predicate;
  thread.location = location;
  if (++at_barrier_ == threads_.size()) release_barrier(thread);
  thread.fiber->leave(false);
  return thread.predicate;
}

void Machine::release_barrier(Thread& last) {
  int count = 0;
  for (const Thread& thread : threads_) {
    if (!same_site(thread.location, last.location) || thread.barrier != last.barrier) {
      fail(fmt::format("divergent barrier: {}, {}", describe_position(last),
                       describe_position(thread)));
    }
    count += thread.predicate != 0 ? 1 : 0;
  }
  const int all = static_cast<int>(threads_.size());
  const int result = last.barrier == BarrierKind::count ? count
                     : last.barrier == BarrierKind::all ? count == all
                                                        : count > 0;
  for (Thread& thread : threads_) {
    thread.predicate = result;
    thread.state = State::ready;
  }
  at_barrier_ = 0;
  memory().next_epoch();
}

std::string Machine::describe_position(const Thread& thread) const {
  const std::string who = fmt::format("thread {}", text(thread.index));
  switch (thread.state) {
    case State::done:
      return who + " has left the kernel";
    case State::at_barrier:
      return fmt::format("{} waits at {} ({})", who, name_of(thread.barrier),
                         site(thread.location));
    case State::at_warp:
      return fmt::format("{} waits at {} with mask {:#010x} ({})", who, name_of(thread.op),
                         thread.mask, site(thread.location));
    case State::fresh:
    case State::ready:
      break;
  }
  return who + " runs";
}

// No thread can go on. Says what the first waiting thread waits for, and what prevents it.
std::string Machine::deadlock() const {
  for (const Thread& thread : threads_) {
    if (thread.state != State::at_warp) continue;
    for (std::uint32_t mask = thread.mask; mask; mask &= mask - 1) {
      const auto lane = static_cast<unsigned>(std::countr_zero(mask));
      const unsigned number = thread.warp() * warp_size + lane;
      const std::string waits = fmt::format("{} for lane {}", describe_position(thread), lane);
      if (number >= threads_.size()) {
        return fmt::format("wrong mask: {}, which the block does not have", waits);
      }
      const Thread& other = threads_[number];
      if (other.state == State::at_warp && other.mask == thread.mask) continue;
      return fmt::format("wrong mask: {}, but {}", waits, describe_position(other));
    }
  }
  const auto waiting = std::ranges::find(threads_, State::at_barrier, &Thread::state);
  const auto missing = std::ranges::find_if(
      threads_, [](const Thread& thread) { return thread.state != State::at_barrier; });
  if (waiting == threads_.end() || missing == threads_.end()) return "no thread can go on";
  return fmt::format("divergent barrier: {} of {} threads wait; {}, {}", at_barrier_,
                     threads_.size(), describe_position(*waiting), describe_position(*missing));
}

// ---- warps ----

std::uint64_t Machine::warp_exchange(Thread& thread, WarpOp op, std::uint32_t mask,
                                     std::uint64_t value, int argument, int width,
                                     Location location) {
  thread.op = op;
  thread.mask = mask;
  thread.location = location;
  thread.value = value;
  thread.argument = argument;
  thread.width = width;
  if (!(mask >> thread.lane() & 1)) {
    fail(
        fmt::format("wrong mask: thread {} (lane {}) calls {} with mask {:#010x}, which "
                    "does not name it ({})",
                    text(thread.index), thread.lane(), name_of(op), mask, site(location)));
  }
  if (width < 1 || width > 32 || !std::has_single_bit(static_cast<unsigned>(width))) {
    fail(
        fmt::format("thread {} calls {} with width {}; a power of two up to 32 is "
                    "expected ({})",
                    text(thread.index), name_of(op), width, site(location)));
  }
  thread.state = State::at_warp;
  warps_[thread.warp()].waiting |= 1u << thread.lane();
  try_release_warp(thread);
  thread.fiber->leave(false);
  return thread.value;
}

void Machine::try_release_warp(Thread& last) {
  Warp& warp = warps_[last.warp()];
  if ((warp.waiting & last.mask) != last.mask) return;
  const Thread* lanes = &threads_[last.warp() * std::size_t{warp_size}];
  for (std::uint32_t mask = last.mask; mask; mask &= mask - 1) {
    // The lane waits with another mask. It may have to meet other lanes first.
    if (lanes[std::countr_zero(mask)].mask != last.mask) return;
  }
  for (std::uint32_t mask = last.mask; mask; mask &= mask - 1) {
    const Thread& other = lanes[std::countr_zero(mask)];
    if (other.op != last.op || !same_site(other.location, last.location)) {
      fail(
          fmt::format("divergent warp: {}, {}", describe_position(last), describe_position(other)));
    }
  }
  exchange(last);
}

// All lanes of the mask are here. Gives each lane its result.
void Machine::exchange(Thread& last) {
  Warp& warp = warps_[last.warp()];
  Thread* lanes = &threads_[last.warp() * std::size_t{warp_size}];
  const std::uint32_t mask = last.mask;
  std::array<std::uint64_t, warp_size> in{};
  std::uint32_t votes = 0, sum = 0;
  const auto each = [&](const auto& act) {
    for (std::uint32_t rest = mask; rest; rest &= rest - 1) {
      act(static_cast<unsigned>(std::countr_zero(rest)));
    }
  };
  each([&](unsigned lane) {
    in[lane] = lanes[lane].value;
    if (in[lane]) votes |= 1u << lane;
    sum += static_cast<std::uint32_t>(in[lane]);
  });
  each([&](unsigned lane) {
    Thread& thread = lanes[lane];
    const int own = static_cast<int>(lane), n = thread.width, first = own & ~(n - 1);
    int source = own;
    switch (thread.op) {
      case WarpOp::index:
        source = first + (thread.argument & (n - 1));
        break;
      case WarpOp::up:
        if (own - thread.argument >= first) source = own - thread.argument;
        break;
      case WarpOp::down:
        if (own + thread.argument < first + n) source = own + thread.argument;
        break;
      case WarpOp::exclusive_or:
        if ((own ^ thread.argument) < first + n) source = own ^ thread.argument;
        break;
      case WarpOp::ballot:
        thread.value = votes;
        return;
      case WarpOp::all:
        thread.value = votes == mask ? 1 : 0;
        return;
      case WarpOp::any:
        thread.value = votes != 0 ? 1 : 0;
        return;
      case WarpOp::add:
        thread.value = sum;
        return;
      case WarpOp::barrier:
      case WarpOp::multiply:
        return;
    }
    if (source < 0 || !(mask >> source & 1)) {
      fail(fmt::format(
          "wrong mask: thread {} (lane {}) reads lane {} by {} with mask "
          "{:#010x}, which does not name that lane ({})",
          text(thread.index), lane, source, name_of(thread.op), mask, site(thread.location)));
    }
    thread.value = in[static_cast<std::size_t>(source)];
  });
  if (last.op == WarpOp::multiply) {
    std::array<TensorFragments*, warp_size> fragments{};
    each([&](unsigned lane) { fragments[lane] = reinterpret_cast<TensorFragments*>(in[lane]); });
    multiply(fragments);
  }
  if (last.op == WarpOp::barrier) {
    // What each lane did before is ordered before what all lanes do next. The other primitives
    // exchange values and order no memory (Programming Guide, "Warp Shuffle Functions").
    std::array<std::uint32_t, warp_size> joined{};
    each([&](unsigned lane) {
      for (unsigned i = 0; i < warp_size; ++i) {
        joined[i] = std::max(joined[i], warp.clock[lane][i]);
      }
    });
    each([&](unsigned lane) {
      warp.clock[lane] = joined;
      ++warp.clock[lane][lane];
    });
  }
  each([&](unsigned lane) { lanes[lane].state = State::ready; });
  warp.waiting &= ~mask;
}

// ---- accesses ----

void Machine::access(Thread& thread, std::uintptr_t address, std::size_t bytes, Access kind,
                     const void* code, const void* value) {
  const auto within = [&](std::uintptr_t begin, std::size_t length) {
    return address >= begin && address + bytes <= begin + length;
  };
  std::string wrong;
  if (memory().owns(address)) {
    ++mutable_counters().accesses;
    const auto& clock = warps_[thread.warp()].clock[thread.lane()];
    wrong =
        memory().access(address, bytes, kind,
                        {thread.number, block_number_, clock[thread.lane()], clock.data()}, value);
    if (wrong.empty()) return;
  } else if (thread.fiber->holds(reinterpret_cast<const void*>(address))) {
    return;
  } else if (within(reinterpret_cast<std::uintptr_t>(kernel->arguments), kernel->argument_bytes)) {
    if (kind == Access::read) return;
    wrong = "the kernel's arguments";
  } else if (std::ranges::any_of(modules(), [&](const Range& range) {
               return within(range.begin, range.end - range.begin);
             })) {
    if (kind == Access::read) return;
    wrong = "a variable of the host";
  } else if (std::ranges::any_of(fibers_, [&](const auto& fiber) {
               return fiber->holds(reinterpret_cast<const void*>(address));
             })) {
    wrong = "a local variable of another thread";
  } else {
    wrong = fmt::format("not device memory: {:#x}", address);
  }
  fail(fmt::format("thread {} {} {} bytes, {}{}", text(thread.index),
                   kind == Access::read ? "reads" : "writes", bytes, wrong, source_line(code)));
}

}  // namespace

// ---- functions that kernels call ----

uint3 thread_index() {
  return Machine::active->index;
}
uint3 block_index() {
  return machine().block;
}
uint3 block_size() {
  const dim3& size = machine().kernel->block;
  return {size.x, size.y, size.z};
}
uint3 grid_size() {
  const dim3& size = machine().kernel->grid;
  return {size.x, size.y, size.z};
}

int block_barrier(BarrierKind kind, int predicate, Location location) {
  return enter(
      [&](Thread& thread) { return machine().block_barrier(thread, kind, predicate, location); });
}

std::uint64_t warp_exchange(WarpOp op, std::uint32_t mask, std::uint64_t value, int argument,
                            int width, Location location) {
  return enter([&](Thread& thread) {
    return machine().warp_exchange(thread, op, mask, value, argument, width, location);
  });
}

void multiply_tf32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                   const float (&c)[4], Location location) {
  TensorFragments own;
  std::ranges::copy(a, own.a);
  std::ranges::copy(b, own.b);
  std::ranges::copy(c, own.c);
  warp_exchange(WarpOp::multiply, 0xffffffffu, reinterpret_cast<std::uintptr_t>(&own), 0, warp_size,
                location);
  std::ranges::copy(own.d, d);
}

void* shared_variable(const void* key, const char* name, std::size_t bytes, std::size_t alignment) {
  return enter([&](Thread&) {
    std::string why;
    void* at = memory().shared_variable(key, name, bytes, alignment, why);
    if (!at) machine().fail(why);
    return at;
  });
}

void* dynamic_shared(std::size_t offset, std::size_t bytes) {
  return enter([&](Thread& thread) {
    std::string why;
    void* at = memory().dynamic_shared(offset, bytes, why);
    if (!at) machine().fail(fmt::format("thread {} {}", text(thread.index), why));
    return at;
  });
}

namespace {

template <class T>
T next_value(AtomicOp op, T old, T value, T compare) {
  switch (op) {
    case AtomicOp::add:
      return static_cast<T>(static_cast<std::uint64_t>(old) + static_cast<std::uint64_t>(value));
    case AtomicOp::exchange:
      return value;
    case AtomicOp::minimum:
      return std::min(old, value);
    case AtomicOp::maximum:
      return std::max(old, value);
    case AtomicOp::bit_and:
      return old & value;
    case AtomicOp::bit_or:
      return old | value;
    case AtomicOp::compare_exchange:
      break;
  }
  return old == compare ? value : old;
}

template <class T>
std::uint64_t act_atomically(AtomicOp op, void* address, std::uint64_t value,
                             std::uint64_t compare) {
  T old;
  raw_copy(&old, address, sizeof old);
  const T next = next_value(op, old, static_cast<T>(value), static_cast<T>(compare));
  raw_copy(address, &next, sizeof next);
  return static_cast<std::uint64_t>(old);
}

}  // namespace

std::uint64_t atomic(AtomicOp op, void* address, std::size_t bytes, bool is_signed,
                     std::uint64_t value, std::uint64_t compare) {
  const void* code = __builtin_return_address(0);
  return enter([&](Thread& thread) {
    machine().access(thread, reinterpret_cast<std::uintptr_t>(address), bytes, Access::atomic, code,
                     nullptr);
    if (bytes == 8) return act_atomically<std::uint64_t>(op, address, value, compare);
    return is_signed ? act_atomically<std::int32_t>(op, address, value, compare)
                     : act_atomically<std::uint32_t>(op, address, value, compare);
  });
}

void store_uniform(void* address, const void* value, std::size_t bytes) {
  const void* code = __builtin_return_address(0);
  enter([&](Thread& thread) {
    machine().access(thread, reinterpret_cast<std::uintptr_t>(address), bytes, Access::uniform,
                     code, value);
    raw_copy(address, value, bytes);
  });
}

// ---- reports of instrumented code ----

void on_access(const void* address, std::size_t bytes, Access kind, const void* code) {
  if (!Machine::active) return;
  enter([&](Thread& thread) {
    machine().access(thread, reinterpret_cast<std::uintptr_t>(address), bytes, kind, code, nullptr);
  });
}

void on_undefined(const char* file, unsigned line, const char* what, std::ptrdiff_t value,
                  const char* type) {
  const char* slash = std::strrchr(file, '/');
  const auto said = [&] {
    return fmt::format("{} {} for {} ({}:{})", what, value, type, slash ? slash + 1 : file, line);
  };
  if (!Machine::active) {  // in host code, act like the sanitizer
    fmt::print(stderr, "undefined behaviour: {}\n", said());
    std::abort();
  }
  enter([&](Thread& thread) {
    machine().fail(fmt::format("thread {}: {}", text(thread.index), said()));
  });
}

void run(const Kernel& kernel) {
  machine().run(kernel);
}

}  // namespace kshot::simt
