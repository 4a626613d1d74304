#include "io/file_tree.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <zip.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <optional>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <utility>

#include "base/text.h"
#include "io/atomic_file.h"
#include "io/system_error.h"
#include "kshot/error.h"

namespace kshot::io {
namespace {

/// Returns true for hidden files and for names that copying and viewing programs leave behind:
/// ".DS_Store", "__MACOSX", "@eaDir".
bool is_hidden(std::string_view name) {
  return name.starts_with('.') || name == "__MACOSX" || name == "@eaDir";
}

/// Limit on the size of a file in bytes, because files are read into memory as a whole.
constexpr std::uintmax_t largest_file = std::uintmax_t{1} << 30;

std::string too_large(std::uintmax_t size) {
  return fmt::format("{} bytes; expected at most {}", size, largest_file);
}

class FolderTree final : public FileTree {
 public:
  explicit FolderTree(std::filesystem::path root) : root_(std::move(root)) {
    std::vector<Identity> above;
    std::error_code error;  // `walk` reports a missing root
    const std::filesystem::path whole = std::filesystem::canonical(root_, error);
    for (auto folder = whole; folder.has_relative_path();) {
      folder = folder.parent_path();
      struct stat info {};
      if (::stat(folder.c_str(), &info) == 0) above.emplace_back(info.st_dev, info.st_ino);
    }
    walk(root_, "", &above);
    // Links are walked last, so that a folder keeps its own name even if a link leads to it as
    // well.
    for (std::size_t i = 0; i < links_.size(); ++i) {
      Link link = std::move(links_[i]);
      walk(link.path, link.prefix, &link.above);
    }
    std::ranges::sort(files_);
  }
  std::string read(const std::string& file) const override {
    std::error_code error;  // read_file reports a missing file
    const std::uintmax_t size = std::filesystem::file_size(root_ / file, error);
    if (!error && size > largest_file) {
      throw Error(fmt::format("{}: cannot be read ({})", name(file), too_large(size)));
    }
    return read_file(root_ / file);
  }
  std::string name(const std::string& file) const override {
    return printable((root_ / file).string());
  }

 private:
  /// Device and inode number of a folder. They tell whether a link leads to a folder above it.
  using Identity = std::pair<dev_t, ino_t>;

  void walk(const std::filesystem::path& folder, const std::string& prefix,
            std::vector<Identity>* above) {
    struct stat info {};
    if (::stat(folder.c_str(), &info) != 0) throw_system_error("cannot list", folder, errno);
    const Identity identity{info.st_dev, info.st_ino};
    if (std::ranges::find(*above, identity) != above->end()) {
      left_out_.push_back(prefix.substr(0, prefix.size() - 1) + " (a link to a folder above it)");
      return;
    }
    if (const auto [known, fresh] = seen_.emplace(identity, prefix); !fresh) {
      left_out_.push_back(fmt::format(
          "{} (a link to {}, which is there already)", prefix.substr(0, prefix.size() - 1),
          known->second.empty() ? "." : known->second.substr(0, known->second.size() - 1)));
      return;
    }
    above->push_back(identity);
    std::error_code error;
    std::filesystem::directory_iterator it(folder, error);
    for (; !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
      const std::string name = it->path().filename().string();
      if (!is_hidden(name)) visit(it->path(), prefix + name, above);
    }
    if (error) {
      throw Error(fmt::format("cannot list {}: {}", folder.string(), error.message()));
    }
    above->pop_back();
  }

  void visit(const std::filesystem::path& path, const std::string& file,
             std::vector<Identity>* above) {
    std::error_code error;
    switch (std::filesystem::status(path, error).type()) {
      case std::filesystem::file_type::regular:
        files_.push_back(file);
        break;
      case std::filesystem::file_type::directory:
        if (std::filesystem::is_symlink(path, error)) {
          links_.push_back({path, file + "/", *above});
        } else {
          walk(path, file + "/", above);
        }
        break;
      case std::filesystem::file_type::not_found:
        left_out_.push_back(file + " (a link to nothing)");
        break;
      case std::filesystem::file_type::none:
        left_out_.push_back(fmt::format("{} ({})", file, error.message()));
        break;
      default:
        left_out_.push_back(file + " (not a file)");
    }
  }

  /// A link to a folder that was not walked yet.
  struct Link {
    std::filesystem::path path;
    std::string prefix;
    std::vector<Identity> above;
  };

  std::filesystem::path root_;
  std::vector<Link> links_;
  std::map<Identity, std::string> seen_;  ///< walked folders with their prefixes
};

/// Returns the path of an entry with "/" between folders (Windows programs write "\\"), without "."
/// and empty parts. Returns nothing for a folder, a hidden file, and a file in a hidden folder.
std::optional<std::string> entry_path(std::string name, const std::string& archive) {
  std::ranges::replace(name, '\\', '/');
  const bool folder = name.empty() || name.back() == '/';
  const bool absolute =
      name.starts_with('/') || (name.size() > 2 && name[1] == ':' && name[2] == '/');
  std::string out;
  bool hidden = folder;
  for (std::size_t begin = 0; begin < name.size();) {
    const std::size_t end = std::min(name.find('/', begin), name.size());
    const std::string part = name.substr(begin, end - begin);
    begin = end + 1;
    if (part.empty() || part == ".") continue;
    if (part == ".." || absolute) {
      throw Error(
          fmt::format("{}: the entry '{}' leads outside of the archive; expected names "
                      "relative to it",
                      archive, printable(name)));
    }
    hidden = hidden || is_hidden(part);
    out += (out.empty() ? "" : "/") + part;
  }
  if (hidden || out.empty()) return {};
  return out;
}

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
    const auto entries = static_cast<zip_uint64_t>(zip_get_num_entries(archive_.get(), 0));
    for (zip_uint64_t i = 0; i < entries; ++i) add_entry(i);
    if (repeated_ > 0) {
      left_out_.push_back(fmt::format("repeated entries of the archive ({})", repeated_));
    }
    std::ranges::sort(files_);
  }

  std::string read(const std::string& file) const override {
    const zip_uint64_t index = index_.at(file);
    zip_stat_t stat;
    if (zip_stat_index(archive_.get(), index, 0, &stat) != 0 || (stat.valid & ZIP_STAT_SIZE) == 0) {
      fail(file, zip_strerror(archive_.get()));
    }
    if (stat.size > largest_file) fail(file, too_large(stat.size));
    // Pictures are compressed already, so that an archive hardly makes them smaller.
    constexpr zip_uint64_t small = zip_uint64_t{1} << 24;
    constexpr zip_uint64_t largest_ratio = 200;
    if (stat.size > small && (stat.valid & ZIP_STAT_COMP_SIZE) != 0 &&
        stat.size / largest_ratio > stat.comp_size) {
      fail(file, fmt::format("{} bytes would become {}; expected a picture, which compresses less",
                             stat.comp_size, stat.size));
    }
    const std::unique_ptr<zip_file_t, decltype(&zip_fclose)> entry(
        zip_fopen_index(archive_.get(), index, 0), &zip_fclose);
    if (entry == nullptr) fail(file, zip_strerror(archive_.get()));
    // The entry is read in pieces, because the size in the archive's directory may be wrong.
    std::string out;
    while (true) {
      const std::size_t have = out.size();
      constexpr std::size_t piece = std::size_t{1} << 16;
      out.resize(have + piece);
      const zip_int64_t got = zip_fread(entry.get(), out.data() + have, piece);
      if (got < 0) fail(file, zip_file_strerror(entry.get()));
      out.resize(have + static_cast<std::size_t>(got));
      if (got == 0 || out.size() > stat.size) break;
    }
    if (out.size() != stat.size) fail(file, "its size is not that of the archive's list");
    return out;
  }

  std::string name(const std::string& file) const override {
    return fmt::format("{}: {}", path_.string(), printable(file));
  }

 private:
  void add_entry(zip_uint64_t i) {
    const char* entry = zip_get_name(archive_.get(), i, 0);
    if (entry == nullptr) return;
    const auto file = entry_path(entry, path_.string());
    if (!file) return;
    zip_stat_t stat;
    if (zip_stat_index(archive_.get(), i, 0, &stat) != 0) fail(*file, zip_strerror(archive_.get()));
    if ((stat.valid & ZIP_STAT_ENCRYPTION_METHOD) != 0 && stat.encryption_method != ZIP_EM_NONE) {
      throw Error(
          fmt::format("{} is encrypted; expected an archive without a password", name(*file)));
    }
    const auto [first, fresh] = index_.emplace(*file, i);
    if (fresh) {
      files_.push_back(*file);
      return;
    }
    zip_stat_t before;
    if (zip_stat_index(archive_.get(), first->second, 0, &before) != 0 ||
        before.size != stat.size || before.crc != stat.crc) {
      throw Error(fmt::format(
          "{}: the archive has two entries with this name and different contents; expected one",
          name(*file)));
    }
    ++repeated_;
  }

  [[noreturn]] void fail(const std::string& file, const std::string& why) const {
    throw Error(fmt::format("{}: cannot be read ({})", name(file), why));
  }

  struct Close {
    void operator()(zip_t* archive) const { zip_discard(archive); }
  };
  std::filesystem::path path_;
  std::unique_ptr<zip_t, Close> archive_;
  std::unordered_map<std::string, zip_uint64_t> index_;
  std::size_t repeated_ = 0;
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
