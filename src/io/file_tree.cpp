#include "io/file_tree.h"

#include <fmt/format.h>
#include <zip.h>

#include <algorithm>
#include <unordered_map>

#include "io/atomic_file.h"
#include "kshot/error.h"

namespace kshot::io {
namespace {

/// What copying programs leave behind ("__MACOSX/", ".DS_Store", "Thumbs.db" is no image).
bool is_hidden(const std::string& file) {
  return file.starts_with('.') || file.find("/.") != std::string::npos ||
         file.starts_with("__MACOSX/");
}

class FolderTree final : public FileTree {
 public:
  explicit FolderTree(std::filesystem::path root) : root_(std::move(root)) {
    std::error_code error;
    using Options = std::filesystem::directory_options;
    std::filesystem::recursive_directory_iterator it(root_, Options::follow_directory_symlink,
                                                     error);
    while (!error && it != std::filesystem::recursive_directory_iterator()) {
      if (it->is_regular_file()) {
        std::string file = it->path().lexically_relative(root_).generic_string();
        if (!is_hidden(file)) files_.push_back(std::move(file));
      }
      it.increment(error);
    }
    if (error) {
      throw Error(fmt::format("cannot list {}: {}", root_.string(), error.message()));
    }
    std::ranges::sort(files_);
  }
  std::string read(const std::string& file) const override { return read_file(root_ / file); }
  std::string name(const std::string& file) const override { return (root_ / file).string(); }

 private:
  std::filesystem::path root_;
};

class ZipTree final : public FileTree {
 public:
  explicit ZipTree(std::filesystem::path path) : path_(std::move(path)) {
    int code = 0;
    archive_.reset(zip_open(path_.c_str(), ZIP_RDONLY, &code));
    if (archive_ == nullptr) {
      zip_error_t error;
      zip_error_init_with_code(&error, code);
      const std::string why = zip_error_strerror(&error);
      zip_error_fini(&error);
      throw Error(fmt::format("{}: expected a folder or a zip archive ({})", path_.string(), why));
    }
    const zip_int64_t entries = zip_get_num_entries(archive_.get(), 0);
    for (zip_int64_t i = 0; i < entries; ++i) {
      const char* entry = zip_get_name(archive_.get(), static_cast<zip_uint64_t>(i), 0);
      if (entry == nullptr) continue;
      const std::string file = entry;
      if (file.empty() || file.back() == '/' || is_hidden(file)) continue;
      index_[file] = static_cast<zip_uint64_t>(i);
      files_.push_back(file);
    }
    std::ranges::sort(files_);
  }

  std::string read(const std::string& file) const override {
    const zip_uint64_t index = index_.at(file);
    zip_stat_t stat;
    if (zip_stat_index(archive_.get(), index, 0, &stat) != 0 || (stat.valid & ZIP_STAT_SIZE) == 0) {
      fail(file, zip_strerror(archive_.get()));
    }
    const std::unique_ptr<zip_file_t, decltype(&zip_fclose)> entry(
        zip_fopen_index(archive_.get(), index, 0), &zip_fclose);
    if (entry == nullptr) fail(file, zip_strerror(archive_.get()));
    // In pieces: the size in the directory may be a lie.
    std::string out;
    while (true) {
      const std::size_t have = out.size();
      constexpr std::size_t piece = std::size_t{1} << 16;
      out.resize(have + piece);
      const zip_int64_t got = zip_fread(entry.get(), out.data() + have, piece);
      if (got < 0) fail(file, zip_file_strerror(entry.get()));
      out.resize(have + static_cast<std::size_t>(got));
      if (got == 0) break;
    }
    if (out.size() != stat.size) fail(file, "it is cut short");
    return out;
  }

  std::string name(const std::string& file) const override {
    return fmt::format("{}: {}", path_.string(), file);
  }

 private:
  [[noreturn]] void fail(const std::string& file, const std::string& why) const {
    throw Error(fmt::format("{}: cannot be read ({})", name(file), why));
  }

  struct Close {
    void operator()(zip_t* archive) const { zip_discard(archive); }
  };
  std::filesystem::path path_;
  std::unique_ptr<zip_t, Close> archive_;
  std::unordered_map<std::string, zip_uint64_t> index_;
};

}  // namespace

std::unique_ptr<FileTree> FileTree::open(const std::filesystem::path& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::not_found) {
    throw Error(fmt::format("{}: no such file or folder; expected a folder or a zip archive",
                            path.string()));
  }
  if (status.type() == std::filesystem::file_type::directory) {
    return std::make_unique<FolderTree>(path);
  }
  return std::make_unique<ZipTree>(path);
}

}  // namespace kshot::io
