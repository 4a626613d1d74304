// Rows of equal size in a memory-mapped file, for data that every step of a run changes a little
// and that may be larger than the memory.
//
// A row has room for two states, each with the step after which it holds. commit(step) says that a
// checkpoint of that step is on the disk. From then on, a row's newest state up to that step is
// never overwritten: new states go to the other slot. Whatever a crash leaves behind, every row as
// of the last checkpoint is therefore there, and no row is written twice.
//
// The file has one page of header (magic, format version, checksum, sizes, committed step,
// identity), the steps of all states [rows][2], and from the next page on the states
// [rows][2][stride].
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "io/mapped_file.h"

namespace kshot::io {

class RowStore {
 public:
  /// Creates a new file with its space reserved. The file appears complete under its name.
  /// `identity` (at most 3 KiB) names its owner. Throws Error where the file cannot be written, or
  /// the disk has no room.
  static std::unique_ptr<RowStore> create(const std::filesystem::path& path, std::uint64_t rows,
                                          std::size_t row_bytes, const std::string& identity);
  /// Opens the file of a run that continues from its checkpoint of `step`. States of later steps
  /// are discarded. Throws Error where the file is missing, not a row store, damaged, of another
  /// identity or size, or already ahead of the checkpoint.
  static std::unique_ptr<RowStore> open(const std::filesystem::path& path, std::uint64_t rows,
                                        std::size_t row_bytes, const std::string& identity,
                                        std::uint64_t step);
  /// Creates a store in memory, without a file.
  static std::unique_ptr<RowStore> in_memory(std::uint64_t rows, std::size_t row_bytes);
  ~RowStore();
  RowStore(const RowStore&) = delete;
  RowStore& operator=(const RowStore&) = delete;

  std::uint64_t rows() const { return rows_; }
  /// Size of a store in bytes, on the disk or in memory.
  static std::uint64_t bytes(std::uint64_t rows, std::size_t row_bytes);

  // Different threads may read and write different rows at the same time.
  /// The newest state of a row and the step after which it holds. The step is 0 and the data are
  /// empty if no state was written.
  struct State {
    std::uint64_t step = 0;
    std::span<const std::byte> data;
  };
  State newest(std::uint64_t row) const;
  /// Throws Error where data that were read or written so far were no longer in the file. Call it
  /// after reading a State's data; newest, write and sync call it themselves.
  void check() const;
  /// Writes a state of a row. `step` is at least 1 and not before the row's newest step.
  void write(std::uint64_t row, std::uint64_t step, std::span<const std::byte> data);

  /// Syncs all writes to the disk. Call it before the checkpoint is written.
  void sync();
  /// Records that the checkpoint of `step` is on the disk.
  void commit(std::uint64_t step);

 private:
  struct Header;
  RowStore(std::uint64_t rows, std::size_t row_bytes);
  void map(int descriptor);
  Header& header() const;
  std::uint64_t* steps(std::uint64_t row) const;
  std::byte* data(std::uint64_t row, int slot) const;

  std::filesystem::path path_;
  std::uint64_t rows_ = 0;
  std::size_t row_bytes_ = 0;
  std::uint64_t size_ = 0;
  std::uint64_t committed_ = 0;
  std::byte* mapped_ = nullptr;
  bool file_ = false;
  MappedFile mapping_;  ///< of the file, if there is one
};

}  // namespace kshot::io
