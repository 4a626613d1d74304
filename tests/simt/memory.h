// The emulated device's memory: where allocations and shared variables lie, which of their bytes
// have been written, and who touched them last (the shadow by which races are found).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace kshot::simt {

enum class Access : std::uint8_t { read, write, atomic, uniform };

/// Who accesses, and what is ordered before it.
struct Accessor {
  std::uint32_t thread = 0;             ///< linear in its block
  std::uint32_t block = 0;              ///< linear in the grid
  std::uint32_t time = 0;               ///< of its own clock
  const std::uint32_t* seen = nullptr;  ///< [32]: times of its warp's lanes that are before it
};

/// What four bytes remember. Epochs count barriers and blocks since the program began, so that one
/// number says whether an access was in this interval between barriers, this block, this launch.
struct Cell {
  std::uint32_t write_epoch, write_time, write_block;
  std::uint32_t read_epoch, read_time, read_lanes, read_block;  ///< latest readers, of one warp
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
  std::uint64_t place = 0;          ///< arena granule (allocations), dynamic offset (shared)
  const void* key = nullptr;        ///< of a shared variable
  std::uint8_t* written = nullptr;  ///< per cell: which of its four bytes have been written
  Cell* cells = nullptr;
  std::size_t cell_count() const { return (bytes + 3) / 4; }
};

class Memory {
 public:
  Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  // ---- device memory ----
  /// Null where the emulated device is full. `host`: pinned, which both sides may touch.
  void* allocate(std::size_t bytes, bool host);
  /// False where the pointer is not the begin of a live allocation.
  bool release(void* pointer, bool host);
  std::size_t used() const { return used_; }
  std::size_t live() const { return live_; }
  bool is_device(const void* address) const;
  /// The live allocation that holds all of [address, address + bytes), else null and why.
  Object* find(const void* address, std::size_t bytes, std::string& why);
  static void mark_written(Object& object, std::uintptr_t address, std::size_t bytes);
  /// First byte of the range that was never written, or `bytes`.
  static std::size_t first_unwritten(const Object& object, std::uintptr_t address,
                                     std::size_t bytes);

  // ---- shared memory of the block at hand ----
  void begin_launch(std::size_t dynamic_bytes);
  void begin_block();
  void* shared_variable(const void* key, const char* name, std::size_t bytes, std::size_t alignment,
                        std::string& why);
  void* dynamic_shared(std::size_t offset, std::size_t bytes, std::string& why);

  void next_epoch();

  // ---- what a kernel does ----
  bool owns(std::uintptr_t address) const {
    return address - shared_ < shared_capacity || address - device_ < device_capacity_;
  }
  /// Empty, or what is wrong with it.
  std::string access(std::uintptr_t address, std::size_t bytes, Access kind,
                     const Accessor& accessor, const void* value);

 private:
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
  std::vector<std::uint16_t> shared_object_;  ///< per cell: 1 + index into variables_
  std::size_t shared_end_ = 0, static_bytes_ = 0, dynamic_bytes_ = 0;

  std::uint32_t epoch_ = 0, block_epoch_ = 0, launch_epoch_ = 0;
};

Memory& memory();

// Device memory is poisoned for the host where the address sanitizer is on; these may touch it.
void raw_copy(void* to, const void* from, std::size_t bytes);
void raw_fill(void* to, unsigned char value, std::size_t bytes);
bool raw_equal(const void* a, const void* b, std::size_t bytes);

}  // namespace kshot::simt
