// Reads the files of a folder or of a zip archive through one interface.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace kshot::io {

class FileTree {
 public:
  /// Throws Error for a path that is neither a folder nor a zip archive, and for an archive that is
  /// encrypted, whose entries lead outside of it ("../a"), or that has two different files of one
  /// name. Hidden files and leftovers of copying programs are skipped. Links are followed.
  static std::unique_ptr<FileTree> open(const std::filesystem::path& path);
  virtual ~FileTree() = default;

  /// Files (not folders) below the root, "a/b/c.png", sorted, each once.
  const std::vector<std::string>& files() const { return files_; }
  /// Entries that exist but cannot be read, each with the reason: "a/b (a link to nothing)".
  const std::vector<std::string>& left_out() const { return left_out_; }
  virtual std::string read(const std::string& file) const = 0;
  /// Name of a file for messages: "ARCHIVE.zip: a/b/c.png".
  virtual std::string name(const std::string& file) const = 0;

 protected:
  std::vector<std::string> files_;
  std::vector<std::string> left_out_;
};

}  // namespace kshot::io
