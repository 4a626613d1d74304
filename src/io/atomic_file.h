// Files as wholes: read one, or replace one so that no reader and no crash ever sees half of it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace kshot::io {

/// A file that appears under its name complete or not at all: written to a temporary in the same
/// folder; commit() syncs it, renames it and syncs the folder. Without commit() the destructor
/// removes the temporary and whatever was under the name before stays. Every failure (unwritable
/// folder, full disk) is an Error with the path and the system's reason.
class AtomicFile {
 public:
  /// Creates the temporary. The folder must exist; the name must be free or a regular file, whose
  /// permissions are kept.
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> data);
  void write(std::string_view data);
  /// At most once; nothing can be written afterwards.
  void commit();

  const std::filesystem::path& path() const { return path_; }

 private:
  void flush();
  void write_through(const char* data, std::size_t size);
  [[noreturn]] void fail() const;

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  std::string buffer_;
  int descriptor_ = -1;
  /// Notes the temporary for remove_temporaries() while it exists.
  class Registration {
   public:
    explicit Registration(const std::filesystem::path& path);
    ~Registration();
    Registration(const Registration&) = delete;
    Registration& operator=(const Registration&) = delete;

   private:
    void* place_;
  };
  std::unique_ptr<Registration> registration_;
};

/// Removes the temporaries of `path` that killed processes have left beside it. To be called where
/// no other process can be writing `path`.
void remove_leftovers(const std::filesystem::path& path);
/// Removes the temporaries of all files that are being written, for a signal handler that ends the
/// process: it takes no lock and no memory.
void remove_temporaries() noexcept;

/// Replaces the file with `data` through an AtomicFile.
void write_file_atomic(const std::filesystem::path& path, std::string_view data);

/// The whole file; also pipes. Throws Error for a missing, unreadable or non-file path.
std::string read_file(const std::filesystem::path& path);

}  // namespace kshot::io
