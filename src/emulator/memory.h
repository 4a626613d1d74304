// The memory of the emulated device: the places of allocations and shared variables, which of their
// bytes have been written, and the last accesses to them (the shadow memory by which races are
// found).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace kshot::simt {

/// The kind of an access. `uniform` is a write by store_uniform.
enum class Access : std::uint8_t { read, write, atomic, uniform };

/// The thread that makes an access, and what is ordered before the access.
struct Accessor {
  std::uint32_t thread = 0;  ///< linear index in its block
  std::uint32_t block = 0;   ///< linear index in the grid
  std::uint32_t time = 0;    ///< time of its own clock
  /// [32]: times of its warp's lanes that are before this access
  const std::uint32_t* seen = nullptr;
};

/// The state of four bytes. Epochs count barriers and blocks since the start of the program, so
/// that one number says whether an access was in this interval between barriers, in this block, and
/// in this launch.
struct Cell {
  std::uint32_t write_epoch, write_time, write_block;
  std::uint32_t read_epoch, read_time, read_lanes, read_block;  ///< latest readers, all of one warp
  std::uint32_t other_epoch, other_block;                       ///< a reader of another warp
  std::uint16_t writer, read_warp, other_thread;
  std::uint8_t write_bytes, read_bytes, other_bytes;
  Access write_kind;
};

/// Memory with a known extent: a device allocation or a shared variable.
struct Object {
  std::string name;
  std::uintptr_t begin = 0;
  std::size_t bytes = 0;
  bool live = true, host = false;
  std::uint64_t place = 0;          ///< arena granule (allocations), dynamic offset (shared memory)
  const void* key = nullptr;        ///< identifies a shared variable
  std::uint8_t* written = nullptr;  ///< per cell: which of its four bytes have been written
  Cell* cells = nullptr;
  std::size_t cell_count() const { return (bytes + 3) / 4; }
};

/// The memory of the emulated device. It allocates, and checks every access of a kernel.
class Memory {
 public:
  Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  // ---- device memory ----
  /// Returns null if the emulated device is full. `host`: pinned memory, which host and device may
  /// access.
  void* allocate(std::size_t bytes, bool host);
  /// Returns false if the pointer is not the beginning of a live allocation.
  bool release(void* pointer, bool host);
  std::size_t used() const { return used_; }
  std::size_t live() const { return live_; }
  bool is_device(const void* address) const;
  /// Returns the live allocation that holds all of [address, address + bytes), or null, with the
  /// reason in `why`.
  Object* find(const void* address, std::size_t bytes, std::string& why);
  static void mark_written(Object& object, std::uintptr_t address, std::size_t bytes);
  /// Returns the offset of the first byte of the range that was never written, or `bytes`.
  static std::size_t first_unwritten(const Object& object, std::uintptr_t address,
                                     std::size_t bytes);

  // ---- shared memory of the current block ----
  void begin_launch(std::size_t dynamic_bytes);
  void begin_block();
  void* shared_variable(const void* key, const char* name, std::size_t bytes, std::size_t alignment,
                        std::string& why);
  void* dynamic_shared(std::size_t offset, std::size_t bytes, std::string& why);

  void next_epoch();

  // ---- accesses of a kernel ----
  bool owns(std::uintptr_t address) const {
    return address - shared_ < shared_capacity || address - device_ < device_capacity_;
  }
  /// Returns an empty string, or the error of the access.
  std::string access(std::uintptr_t address, std::size_t bytes, Access kind,
                     const Accessor& accessor, const void* value);

 private:
  class AccessCheck;
  static constexpr std::size_t granule = 64 << 10, guard = 4 << 10;
  static constexpr std::size_t shared_capacity = 1 << 20, shared_guard = 128;

  std::string check(Object& object, bool shared, std::uintptr_t address, std::size_t bytes,
                    Access kind, const Accessor& accessor, const void* value);
  Object* place_shared(std::size_t position, std::size_t bytes, std::string name);

  std::uintptr_t device_ = 0, shared_ = 0;
  std::size_t device_capacity_ = 0;
  std::vector<Object*> granules_;
  std::vector<std::unique_ptr<Object>> allocations_;
  std::size_t next_granule_ = 0, used_ = 0, live_ = 0;
  std::uint64_t serial_ = 0;

  std::vector<std::unique_ptr<Object>> variables_;
  std::vector<std::uint8_t> shared_written_;
  std::vector<Cell> shared_cells_;
  std::vector<std::uint16_t> shared_object_;  ///< per cell: 1 + index into variables_; 0: none
  std::size_t shared_end_ = 0, static_bytes_ = 0, dynamic_bytes_ = 0;

  std::uint32_t epoch_ = 0, block_epoch_ = 0, launch_epoch_ = 0;
};

Memory& memory();

// With the address sanitizer, device memory is poisoned for the host. These functions may access
// it.
void raw_copy(void* to, const void* from, std::size_t bytes);
void raw_fill(void* to, unsigned char value, std::size_t bytes);
bool raw_equal(const void* a, const void* b, std::size_t bytes);

}  // namespace kshot::simt
