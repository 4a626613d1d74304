// A memory-mapped file. The process survives when the file is cut short while it is mapped, by an
// editor, a copy over it or a failing disk.
//
// Reading a page that the file no longer has raises SIGBUS. A handler puts a page of zeros in its
// place and records the damage. The reader calls check() afterwards, and discards the data that it
// read if check() throws. The handler acts only on pages of these mappings: every other fault goes
// to the handler that was installed before.
//
// Two changes raise no signal. In the page that holds the file's new end, the bytes after the end
// read as zeros. A file that is written over reads as its new contents. state() detects both
// changes.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>

namespace kshot::io {

class MappedFile {
 public:
  enum class Access { read, write };

  MappedFile() = default;
  /// Maps the first `size` > 0 bytes of an open file, which may be closed afterwards. The mapping
  /// is private for reading and shared for writing. `path` and `what` ("data file") are used in
  /// messages. Throws Error where the system refuses.
  MappedFile(int descriptor, std::size_t size, Access access, std::filesystem::path path,
             const char* what);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }

  /// Current size of the file in bytes, and time of its last change in nanoseconds. It takes one
  /// system call.
  struct FileState {
    std::uint64_t size = 0;
    std::int64_t changed = 0;
    bool operator==(const FileState&) const = default;
  };
  FileState state() const;

  /// Throws Error where a page that was read or written so far was no longer in the file. Without
  /// damage, it costs one relaxed load.
  void check() const {
    if (damaged_ != nullptr && damaged_->load(std::memory_order_relaxed)) fail();
  }
  /// Throws the Error of check() unconditionally.
  [[noreturn]] void fail() const;

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  int descriptor_ = -1;
  std::filesystem::path path_;
  const char* what_ = "file";
  void* place_ = nullptr;  ///< entry in the handler's table
  const std::atomic<bool>* damaged_ = nullptr;
};

}  // namespace kshot::io
