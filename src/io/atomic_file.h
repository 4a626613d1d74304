// Reads whole files, and replaces files so that no reader and no crash ever sees an incomplete one.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace kshot::io {

/// A file that appears under its name complete or not at all. The data go to a temporary file in
/// the same folder. commit() syncs the temporary, renames it and syncs the folder. Without
/// commit(), the destructor removes the temporary, and an earlier file under the name stays. Every
/// failure (unwritable folder, full disk) is an Error with the path and the system's reason.
class AtomicFile {
 public:
  /// Creates the temporary file. The folder must exist. The name must be free or belong to a
  /// regular file, whose permissions are kept.
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> data);
  void write(std::string_view data);
  /// Puts the file in place. May be called once; nothing can be written afterwards.
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
  /// Lists the temporary file for remove_temporaries() while it exists.
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

/// Removes the temporary files of `path` that killed processes have left beside it. No other
/// process may be writing `path` meanwhile.
void remove_leftovers(const std::filesystem::path& path);
/// Removes the temporary files of all AtomicFiles of this process. A signal handler that ends the
/// process calls it: it takes no lock and allocates no memory.
void remove_temporaries() noexcept;

/// Replaces the file with `data` through an AtomicFile.
void write_file_atomic(const std::filesystem::path& path, std::string_view data);

/// Reads a whole file or pipe. Throws Error for a missing, unreadable or non-file path.
std::string read_file(const std::filesystem::path& path);

}  // namespace kshot::io
