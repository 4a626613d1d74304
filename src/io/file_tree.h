// The files of a folder or of a zip archive, read the same way.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace kshot::io {

class FileTree {
 public:
  /// Throws Error for a path that is neither a folder nor a zip archive, naming what it is for.
  static std::unique_ptr<FileTree> open(const std::filesystem::path& path);
  virtual ~FileTree() = default;

  /// Files (not folders) below the root, "a/b/c.png", sorted.
  const std::vector<std::string>& files() const { return files_; }
  virtual std::string read(const std::string& file) const = 0;
  /// For messages: "ARCHIVE.zip: a/b/c.png".
  virtual std::string name(const std::string& file) const = 0;

 protected:
  std::vector<std::string> files_;
};

}  // namespace kshot::io
