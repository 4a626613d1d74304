// Rows of one size in a memory-mapped file, for what a run changes a little at every step and what
// may be larger than memory.
//
// A row has room for two states, each with the step after which it holds. commit(step) says that a
// checkpoint of that step is on the disk: from then on a row's newest state up to that step is
// never overwritten, the other slot takes what comes. So whatever a crash leaves behind, every row
// as of the last checkpoint is there, and nothing is written twice.
//
// File: a page of header (magic, format version, checksum, sizes, committed step, identity), the
// steps of all states [rows][2], from the next page on the states [rows][2][stride].
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
  /// A new file, its space reserved; it appears complete under its name. `identity` (at most 3 KiB)
  /// says whose it is. Throws Error where it cannot be written, or the disk has no room.
  static std::unique_ptr<RowStore> create(const std::filesystem::path& path, std::uint64_t rows,
                                          std::size_t row_bytes, const std::string& identity);
  /// The file of a run that goes on from its checkpoint of `step`: states of later steps are
  /// forgotten. Throws Error where it is missing, no such file, damaged, of another identity or
  /// size, or already ahead of the checkpoint.
  static std::unique_ptr<RowStore> open(const std::filesystem::path& path, std::uint64_t rows,
                                        std::size_t row_bytes, const std::string& identity,
                                        std::uint64_t step);
  /// Without a file.
  static std::unique_ptr<RowStore> in_memory(std::uint64_t rows, std::size_t row_bytes);
  ~RowStore();
  RowStore(const RowStore&) = delete;
  RowStore& operator=(const RowStore&) = delete;

  std::uint64_t rows() const { return rows_; }
  /// Bytes that such a store takes, on the disk or in memory.
  static std::uint64_t bytes(std::uint64_t rows, std::size_t row_bytes);

  // Different rows may be read and written by different threads at once.
  /// The newest state of a row and the step after which it holds; 0 and empty where none was
  /// written.
  struct State {
    std::uint64_t step = 0;
    std::span<const std::byte> data;
  };
  State newest(std::uint64_t row) const;
  /// Throws Error where something that was read or written so far was not in the file any more. To
  /// be called once a State's data was read; write and sync do it themselves.
  void check() const;
  /// `step` >= 1, not before the row's newest.
  void write(std::uint64_t row, std::uint64_t step, std::span<const std::byte> data);

  /// Everything written so far to the disk: before the checkpoint is written.
  void sync();
  /// The checkpoint of `step` is written.
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
  MappedFile mapping_;  ///< of file_
};

}  // namespace kshot::io
