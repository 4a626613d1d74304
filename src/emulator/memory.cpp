#include "emulator/memory.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "base/sanitizers.h"
#include "emulator/simt.h"

#if defined(KSHOT_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>
#define KSHOT_POISON(address, bytes) ASAN_POISON_MEMORY_REGION(address, bytes)
#define KSHOT_UNPOISON(address, bytes) ASAN_UNPOISON_MEMORY_REGION(address, bytes)
#else
#define KSHOT_POISON(address, bytes) ((void)(address), (void)(bytes))
#define KSHOT_UNPOISON(address, bytes) ((void)(address), (void)(bytes))
#endif

namespace kshot::simt {
namespace {

// Reserves address space. Pages are allocated when they are first touched.
std::uintptr_t reserve(std::size_t bytes) {
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return at == MAP_FAILED ? 0 : reinterpret_cast<std::uintptr_t>(at);
}

template <class T>
T* zeros(std::size_t count) {
  void* at = std::calloc(std::max<std::size_t>(count, 1), sizeof(T));
  if (!at) throw std::bad_alloc();
  return static_cast<T*>(at);
}

// Returns a mask of the bytes of cell `cell` (of four bytes) that [offset, offset + bytes) covers.
unsigned cell_bytes(std::size_t cell, std::size_t offset, std::size_t bytes) {
  const std::size_t begin = std::max(offset, 4 * cell) - 4 * cell;
  const std::size_t end = std::min(offset + bytes, 4 * cell + 4) - 4 * cell;
  return ((1u << end) - 1u) & ~((1u << begin) - 1u);
}

std::string place(const Object& object, std::uintptr_t address) {
  const auto offset = static_cast<std::ptrdiff_t>(address - object.begin);
  return fmt::format("byte {} of {} ({} bytes)", offset, object.name, object.bytes);
}

}  // namespace

// The compiler must keep these loops: the library's own functions would find device memory
// poisoned.
#define KSHOT_RAW \
  [[gnu::noinline, gnu::no_sanitize("address"), gnu::optimize("no-tree-loop-distribute-patterns")]]

KSHOT_RAW void raw_copy(void* to, const void* from, std::size_t bytes) {
  auto* out = static_cast<unsigned char*>(to);
  const auto* in = static_cast<const unsigned char*>(from);
  std::size_t i = 0;
  for (; i + 8 <= bytes; i += 8) {
    std::uint64_t word;
    __builtin_memcpy(&word, in + i, 8);
    __builtin_memcpy(out + i, &word, 8);
  }
  for (; i < bytes; ++i) out[i] = in[i];
}

KSHOT_RAW void raw_fill(void* to, unsigned char value, std::size_t bytes) {
  auto* out = static_cast<unsigned char*>(to);
  for (std::size_t i = 0; i < bytes; ++i) out[i] = value;
}

KSHOT_RAW bool raw_equal(const void* a, const void* b, std::size_t bytes) {
  const auto* left = static_cast<const unsigned char*>(a);
  const auto* right = static_cast<const unsigned char*>(b);
  for (std::size_t i = 0; i < bytes; ++i) {
    if (left[i] != right[i]) return false;
  }
  return true;
}

Memory& memory() {
  static Memory instance;
  return instance;
}

Memory::Memory()
    : shared_(reserve(shared_capacity)),
      shared_written_(shared_capacity / 4),
      shared_cells_(shared_capacity / 4),
      shared_object_(shared_capacity / 4) {
  for (device_capacity_ = std::size_t{64} << 30; device_capacity_ > granule;
       device_capacity_ /= 2) {
    device_ = reserve(device_capacity_);
    if (device_) break;
  }
  if (!device_ || !shared_) throw std::runtime_error("emulator: no address space");
  granules_.resize(device_capacity_ / granule);
}

// ---- device memory ----

void* Memory::allocate(std::size_t bytes, bool host) {
  if (!host && bytes > settings().memory - std::min(used_, settings().memory)) return nullptr;
  // There is a guard on either side. Guards are never touched, so they cost only address space.
  const std::size_t count = (bytes + 2 * guard + granule - 1) / granule;
  // Next fit: freed memory is reused as late as possible, so that accesses after the release are
  // detected.
  std::size_t found = 0, run = 0, tried = 0, at = next_granule_;
  while (run < count && tried < granules_.size() + count) {
    if (at == granules_.size()) at = run = 0;
    run = granules_[at] && granules_[at]->live ? 0 : run + 1;
    ++at;
    ++tried;
    found = at - run;
  }
  if (run < count) return nullptr;
  next_granule_ = at;
  auto object = std::make_unique<Object>();
  object->begin = device_ + found * granule + guard;
  object->bytes = bytes;
  object->host = host;
  object->place = found;
  object->name = fmt::format("{} allocation {}", host ? "pinned host" : "device", ++serial_);
  object->written = zeros<std::uint8_t>(object->cell_count());
  object->cells = zeros<Cell>(object->cell_count());
  if (host) {
    mark_written(*object, object->begin, bytes);  // writes of the host are not observed
    KSHOT_UNPOISON(reinterpret_cast<void*>(device_ + found * granule), count * granule);
  } else {
    used_ += bytes;
    KSHOT_POISON(reinterpret_cast<void*>(device_ + found * granule), count * granule);
  }
  ++live_;
  for (std::size_t i = 0; i < count; ++i) granules_[found + i] = object.get();
  allocations_.push_back(std::move(object));
  return reinterpret_cast<void*>(allocations_.back()->begin);
}

bool Memory::release(void* pointer, bool host) {
  std::string why;
  Object* object = find(pointer, 0, why);
  if (!object || object->begin != reinterpret_cast<std::uintptr_t>(pointer) ||
      object->host != host) {
    return false;
  }
  object->live = false;
  std::free(object->written);
  std::free(object->cells);
  object->written = nullptr;
  object->cells = nullptr;
  --live_;
  if (!host) used_ -= object->bytes;
  const std::uintptr_t page = object->begin - guard;
  madvise(reinterpret_cast<void*>(page), object->bytes + guard, MADV_DONTNEED);
  return true;
}

bool Memory::is_device(const void* address) const {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  if (at - device_ >= device_capacity_) return false;
  const Object* object = granules_[(at - device_) / granule];
  return object && !object->host;
}

Object* Memory::find(const void* address, std::size_t bytes, std::string& why) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  Object* object = at - device_ < device_capacity_ ? granules_[(at - device_) / granule] : nullptr;
  if (!object) {
    why = "not device memory";
  } else if (at < object->begin || at + bytes > object->begin + object->bytes) {
    why = "out of bounds: " + place(*object, at);
  } else if (!object->live) {
    why = "freed memory: " + place(*object, at);
  } else {
    return object;
  }
  return nullptr;
}

void Memory::mark_written(Object& object, std::uintptr_t address, std::size_t bytes) {
  const std::size_t offset = address - object.begin;
  for (std::size_t cell = offset / 4; 4 * cell < offset + bytes; ++cell) {
    object.written[cell] =
        static_cast<std::uint8_t>(object.written[cell] | cell_bytes(cell, offset, bytes));
  }
}

std::size_t Memory::first_unwritten(const Object& object, std::uintptr_t address,
                                    std::size_t bytes) {
  const std::size_t offset = address - object.begin;
  for (std::size_t i = 0; i < bytes; ++i) {
    if (!(object.written[(offset + i) / 4] >> ((offset + i) % 4) & 1)) return i;
  }
  return bytes;
}

// ---- shared memory ----

void Memory::begin_launch(std::size_t dynamic_bytes) {
  variables_.clear();
  std::ranges::fill(shared_object_, std::uint16_t{0});
  shared_end_ = 0;
  static_bytes_ = 0;
  dynamic_bytes_ = dynamic_bytes;
  launch_epoch_ = epoch_ + 1;
}

void Memory::begin_block() {
  next_epoch();
  block_epoch_ = epoch_;
  std::fill_n(shared_written_.begin(), shared_end_ / 4, std::uint8_t{0});
  // All bits set is NaN in every floating-point type, so that a read of unwritten memory has a
  // visible effect.
  std::memset(reinterpret_cast<void*>(shared_), 0xff, shared_end_);
}

void Memory::next_epoch() {
  if (++epoch_ == 0) throw std::runtime_error("emulator: out of epochs");
}

Object* Memory::place_shared(std::size_t position, std::size_t bytes, std::string name) {
  if (position + bytes + shared_guard > shared_capacity || variables_.size() >= 0xfffe) {
    return nullptr;
  }
  auto object = std::make_unique<Object>();
  object->name = std::move(name);
  object->begin = shared_ + position;
  object->bytes = bytes;
  object->written = shared_written_.data() + position / 4;
  object->cells = shared_cells_.data() + position / 4;
  variables_.push_back(std::move(object));
  std::fill_n(shared_object_.begin() + static_cast<std::ptrdiff_t>(position / 4),
              variables_.back()->cell_count(), static_cast<std::uint16_t>(variables_.size()));
  const std::size_t end = position + bytes + shared_guard;
  std::fill(shared_written_.begin() + static_cast<std::ptrdiff_t>(shared_end_ / 4),
            shared_written_.begin() + static_cast<std::ptrdiff_t>(end / 4), std::uint8_t{0});
  std::memset(reinterpret_cast<void*>(shared_ + shared_end_), 0xff, end - shared_end_);
  shared_end_ = end;
  return variables_.back().get();
}

void* Memory::shared_variable(const void* key, const char* name, std::size_t bytes,
                              std::size_t alignment, std::string& why) {
  for (const auto& variable : variables_) {
    if (variable->key == key) return reinterpret_cast<void*>(variable->begin);
  }
  static_bytes_ += bytes;
  if (static_bytes_ > (48 << 10)) {
    why = fmt::format("static shared memory of {} bytes; 49152 are the limit", static_bytes_);
    return nullptr;
  }
  const std::size_t step = std::max<std::size_t>(alignment, shared_guard);
  const std::size_t position = (shared_end_ + shared_guard + step - 1) / step * step;
  Object* object = place_shared(position, bytes, fmt::format("shared variable '{}'", name));
  if (!object) {
    why = "too many shared variables";
    return nullptr;
  }
  object->key = key;
  return reinterpret_cast<void*>(object->begin);
}

void* Memory::dynamic_shared(std::size_t offset, std::size_t bytes, std::string& why) {
  if (offset + bytes > dynamic_bytes_) {
    why = fmt::format("takes dynamic shared memory up to byte {}; the launch gave {} bytes",
                      offset + bytes, dynamic_bytes_);
    return nullptr;
  }
  for (const auto& variable : variables_) {
    if (variable->key) continue;
    if (variable->place == offset && variable->bytes == bytes) {
      return reinterpret_cast<void*>(variable->begin);
    }
    if (offset < variable->place + variable->bytes && variable->place < offset + bytes) {
      why = fmt::format("takes dynamic shared memory [{}, {}), another thread [{}, {})", offset,
                        offset + bytes, variable->place, variable->place + variable->bytes);
      return nullptr;
    }
  }
  // Parts lie apart. Each is aligned as on the device, whose base is aligned to 16 bytes, and no
  // better.
  const std::size_t position =
      (shared_end_ + 2 * shared_guard - 1) / shared_guard * shared_guard + offset % 16;
  Object* object =
      place_shared(position / 4 * 4, bytes, fmt::format("dynamic shared memory at {}", offset));
  if (!object) {
    why = "too many parts of dynamic shared memory";
    return nullptr;
  }
  object->place = offset;
  return reinterpret_cast<void*>(object->begin);
}

// ---- accesses ----

std::string Memory::access(std::uintptr_t address, std::size_t bytes, Access kind,
                           const Accessor& accessor, const void* value) {
  if (address - shared_ < shared_capacity) {
    const std::uint16_t index = shared_object_[(address - shared_) / 4];
    if (index) {
      Object& object = *variables_[index - 1u];
      if (address + bytes <= object.begin + object.bytes) {
        return check(object, true, address, bytes, kind, accessor, value);
      }
    }
    // Names the variable that was probably meant: the one that ends or begins nearest.
    const Object* nearest = nullptr;
    std::size_t distance = 0;
    for (const auto& variable : variables_) {
      const std::uintptr_t end = variable->begin + variable->bytes;
      const std::size_t away = address >= end              ? address - end
                               : address < variable->begin ? variable->begin - address
                                                           : 0;
      if (!nearest || away < distance) {
        nearest = variable.get();
        distance = away;
      }
    }
    return "out of bounds: " + (nearest ? place(*nearest, address) : "no shared variable");
  }
  std::string why;
  Object* object = find(reinterpret_cast<const void*>(address), bytes, why);
  return object ? check(*object, false, address, bytes, kind, accessor, value) : why;
}

/// The check of one access to one object, cell by cell. Each step returns false if it found an
/// error, which `error` then has.
class Memory::AccessCheck {
 public:
  AccessCheck(const Memory& memory, Object& object, bool shared, std::uintptr_t address,
              std::size_t bytes, Access kind, const Accessor& accessor, const void* value)
      : memory_(memory),
        object_(object),
        accessor_(accessor),
        value_(value),
        address_(address),
        bytes_(bytes),
        first_epoch_(shared ? memory.block_epoch_ : memory.launch_epoch_),
        warp_(accessor.thread / 32),
        lane_(accessor.thread % 32),
        kind_(kind) {}

  std::string run() {
    if (bytes_ <= 16 && address_ % bytes_ != 0) return "misaligned: " + place(object_, address_);
    const std::size_t offset = address_ - object_.begin;
    for (std::size_t index = offset / 4; 4 * index < offset + bytes_; ++index) {
      const auto mask = static_cast<std::uint8_t>(cell_bytes(index, offset, bytes_));
      Cell& cell = object_.cells[index];
      std::uint8_t& written = object_.written[index];
      const bool reads = kind_ == Access::read;
      const bool good = follows_write(cell, mask) &&
                        (!(reads || kind_ == Access::atomic) || is_written(written, mask)) &&
                        (reads || follows_reads(cell, mask));
      if (!good) return std::move(error_);
      if (reads) {
        note_read(cell, mask);
      } else {
        note_write(cell, mask);
        written = static_cast<std::uint8_t>(written | mask);
      }
    }
    return {};
  }

 private:
  enum class Since { before, unordered, other_block };

  /// The relation of an access in `epoch` to this access. Accesses of the same interval are
  /// compared by the caller.
  Since relation(std::uint32_t epoch) const {
    if (epoch < first_epoch_ || (epoch >= memory_.block_epoch_ && epoch < memory_.epoch_)) {
      return Since::before;
    }
    return epoch == memory_.epoch_ ? Since::unordered : Since::other_block;
  }
  bool seen(std::uint32_t thread, std::uint32_t time) const {
    return thread == accessor_.thread ||
           (thread / 32 == warp_ && time <= accessor_.seen[thread % 32]);
  }
  bool race(const char* what, std::uint32_t thread, std::uint32_t block, bool other_block) {
    error_ = fmt::format("race with {} by thread number {}{}: {}", what, thread,
                         other_block ? fmt::format(" of block number {} in the same launch", block)
                                     : ", nothing orders them",
                         place(object_, address_));
    return false;
  }

  /// Whether the latest write of these bytes comes before this access. Two atomic writes need no
  /// order, nor do two stores of the same value where the kernel allows them.
  bool follows_write(const Cell& cell, std::uint8_t mask) {
    if (!(cell.write_bytes & mask)) return true;
    const Since write = relation(cell.write_epoch);
    if (write == Since::before ||
        (write == Since::unordered && seen(cell.writer, cell.write_time))) {
      return true;
    }
    const bool both_uniform = kind_ == Access::uniform && cell.write_kind == Access::uniform;
    const bool allowed =
        (kind_ == Access::atomic && cell.write_kind == Access::atomic) ||
        (both_uniform && raw_equal(reinterpret_cast<const void*>(address_), value_, bytes_));
    return allowed || race(both_uniform ? "the store of another value" : "the write", cell.writer,
                           cell.write_block, write == Since::other_block);
  }
  bool is_written(std::uint8_t written, std::uint8_t mask) {
    if ((written & mask) == mask) return true;
    error_ = "never written: " + place(object_, address_);
    return false;
  }
  /// Whether the latest reads of these bytes come before this write.
  bool follows_reads(const Cell& cell, std::uint8_t mask) {
    if (cell.read_bytes & mask) {
      const Since read = relation(cell.read_epoch);
      const std::uint32_t base = 32u * cell.read_warp;
      if (read == Since::other_block) {
        return race("the read", base + static_cast<unsigned>(std::countr_zero(cell.read_lanes)),
                    cell.read_block, true);
      }
      for (std::uint32_t lanes = read == Since::unordered ? cell.read_lanes : 0; lanes;
           lanes &= lanes - 1) {
        const auto reader = base + static_cast<unsigned>(std::countr_zero(lanes));
        if (!seen(reader, cell.read_time)) return race("the read", reader, cell.read_block, false);
      }
    }
    if (!(cell.other_bytes & mask)) return true;
    const Since read = relation(cell.other_epoch);
    if (read == Since::other_block ||
        (read == Since::unordered && cell.other_thread / 32 != warp_)) {
      return race("the read", cell.other_thread, cell.other_block, read == Since::other_block);
    }
    return true;
  }

  /// A cell remembers the latest readers of one warp, and one reader of another warp.
  void note_read(Cell& cell, std::uint8_t mask) {
    if (cell.read_epoch == memory_.epoch_ && cell.read_warp == warp_) {
      if (accessor_.time == cell.read_time && cell.read_bytes == mask) {
        cell.read_lanes |= 1u << lane_;
        return;
      }
      if (accessor_.time < cell.read_time) return;
    } else if (relation(cell.read_epoch) != Since::before &&
               relation(cell.other_epoch) != Since::other_block) {
      cell.other_epoch = cell.read_epoch;
      cell.other_block = cell.read_block;
      cell.other_bytes = cell.read_bytes;
      cell.other_thread =
          static_cast<std::uint16_t>(32u * cell.read_warp + std::countr_zero(cell.read_lanes));
    }
    cell.read_epoch = memory_.epoch_;
    cell.read_time = accessor_.time;
    cell.read_lanes = 1u << lane_;
    cell.read_block = accessor_.block;
    cell.read_warp = static_cast<std::uint16_t>(warp_);
    cell.read_bytes = mask;
  }
  void note_write(Cell& cell, std::uint8_t mask) {
    cell.write_epoch = memory_.epoch_;
    cell.write_time = accessor_.time;
    cell.write_block = accessor_.block;
    cell.writer = static_cast<std::uint16_t>(accessor_.thread);
    cell.write_bytes = mask;
    cell.write_kind = kind_;
  }

  const Memory& memory_;
  Object& object_;
  const Accessor& accessor_;
  const void* value_;
  std::uintptr_t address_;
  std::size_t bytes_;
  std::uint32_t first_epoch_, warp_, lane_;
  Access kind_;
  std::string error_;
};

std::string Memory::check(Object& object, bool shared, std::uintptr_t address, std::size_t bytes,
                          Access kind, const Accessor& accessor, const void* value) {
  return AccessCheck(*this, object, shared, address, bytes, kind, accessor, value).run();
}

}  // namespace kshot::simt
