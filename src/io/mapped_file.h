// A file mapped into memory that can be cut short while it is mapped, by an editor, a copy over it
// or a failing disk, without ending the process.
//
// Reading a page that the file no longer has raises SIGBUS. A handler puts zeros in its place and
// notes the damage; whoever read asks check() afterwards and throws away what was read. The handler
// acts on pages of these mappings alone: every other fault goes to the handler that was there
// before. A page that holds the file's new end raises nothing: its rest reads as zeros. A file that
// is written over reads as its new contents. state() tells both.
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
  /// Maps the first `size` > 0 bytes of an open file, which may be closed afterwards: to be read
  /// (privately), or to be written (shared). `path` and `what` ("data file") are for messages.
  /// Throws Error where the system refuses.
  MappedFile(int descriptor, std::size_t size, Access access, std::filesystem::path path,
             const char* what);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }

  /// Size in bytes and time of the last change, in nanoseconds, of the file as it is now: a system
  /// call.
  struct FileState {
    std::uint64_t size = 0;
    std::int64_t changed = 0;
    bool operator==(const FileState&) const = default;
  };
  FileState state() const;

  /// Throws Error where a page that was read or written so far was no longer in the file. A relaxed
  /// load where all is well.
  void check() const {
    if (damaged_ != nullptr && damaged_->load(std::memory_order_relaxed)) fail();
  }
  /// Throws the same.
  [[noreturn]] void fail() const;

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  int descriptor_ = -1;
  std::filesystem::path path_;
  const char* what_ = "file";
  void* place_ = nullptr;  ///< in the handler's table
  const std::atomic<bool>* damaged_ = nullptr;
};

}  // namespace kshot::io
