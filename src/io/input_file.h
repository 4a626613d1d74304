// Reads files piece by piece. Errors name the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>

namespace kshot::io {

/// A source of bytes: a file, or an entry of an archive.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  /// Reads up to `size` bytes and returns their number, which is smaller only at the end. Throws
  /// Error where the medium fails.
  virtual std::size_t read(void* data, std::size_t size) = 0;
};

/// A file opened for reading.
class InputFile final : public ByteSource {
 public:
  /// Throws Error for a missing or unreadable file and for a folder.
  explicit InputFile(const std::filesystem::path& path);
  ~InputFile() override;
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  std::size_t read(void* data, std::size_t size) override;
  /// Size of a regular file in bytes; empty for a pipe.
  std::optional<std::uint64_t> size() const { return size_; }

 private:
  std::filesystem::path path_;
  std::optional<std::uint64_t> size_;
  int descriptor_ = -1;
};

}  // namespace kshot::io
