#include "io/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

#include "base/log.h"
#include "io/atomic_file.h"
#include "io/system_error.h"
#include "kshot/error.h"

namespace kshot::io {
namespace {

namespace fs = std::filesystem;

/// Number of bytes that are examined at each end of a file.
constexpr std::size_t kLookedAt = 4096;

struct Ends {
  std::string first, last;
};

/// Reads the beginning and the end of a regular file. Throws Error for a file that cannot be read.
Ends read_ends(const fs::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) throw_system_error("cannot read", path, errno);
  struct stat info {};
  Ends ends;
  const bool known = ::fstat(descriptor, &info) == 0;
  const auto read_at = [&](off_t offset) {
    std::string bytes(kLookedAt, '\0');
    const ssize_t got = ::pread(descriptor, bytes.data(), bytes.size(), offset);
    bytes.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return bytes;
  };
  if (known) {
    ends.first = read_at(0);
    ends.last = read_at(std::max<off_t>(0, info.st_size - static_cast<off_t>(kLookedAt)));
  }
  ::close(descriptor);
  return ends;
}

bool holds(const std::string& text, std::string_view mark) {
  return text.find(mark) != std::string::npos;
}

/// Returns true if kshot wrote the file. Commands that write a pair of files write the marked one
/// first. The second one, a text file, has no mark: it is kshot's if it has kshot's header and
/// stands beside a marked file.
bool written_by_kshot(const fs::path& path, OutputKind kind) {
  const Ends ends = read_ends(path);
  std::error_code ignored;
  const auto companion = [&](const fs::path& other, OutputKind of) {
    return fs::is_regular_file(other, ignored) && written_by_kshot(other, of);
  };
  switch (kind) {
    case OutputKind::data_file:
      return ends.first.starts_with("KSHOTDAT");
    case OutputKind::evaluation:
      // Version 0.1.0 wrote no mark.
      return ends.first.starts_with("{") && (holds(ends.first, evaluation_mark) ||
                                             (ends.first.starts_with("{\n  \"algorithm\": ") &&
                                              holds(ends.first, "\n  \"checkpoint\": ") &&
                                              holds(ends.first, "\n  \"norm_statistics\": ")));
    case OutputKind::calibration:
      return ends.first.starts_with("{") && holds(ends.first, calibration_mark);
    case OutputKind::bandit:
      return ends.first.starts_with("{") && holds(ends.first, bandit_mark);
    case OutputKind::page:
      // Version 0.1.0 wrote no mark. Its page is recognised by its colours.
      return ends.first.starts_with("<!DOCTYPE html>") &&
             (holds(ends.first, page_mark) ||
              holds(ends.first, "--panel: #f6f7f9; --strong: #eaf1fb;"));
    case OutputKind::arrays:
      return ends.first.starts_with("PK") && ends.last.ends_with(arrays_mark);
    case OutputKind::weights:
      return holds(ends.first, weights_mark);
    case OutputKind::predictions:
      return ends.first.starts_with("row,") &&
             companion(path.parent_path() / "adapted.safetensors", OutputKind::weights);
    case OutputKind::class_table:
      return ends.first.starts_with(class_table_header) &&
             companion(fs::path(path).replace_extension(".npz"), OutputKind::arrays);
    case OutputKind::text:
      return false;
  }
  return false;
}

const char* kind_text(OutputKind kind) {
  switch (kind) {
    case OutputKind::data_file:
      return "a data file that kshot wrote";
    case OutputKind::evaluation:
      return "an evaluation that kshot wrote";
    case OutputKind::calibration:
      return "a calibration that kshot wrote";
    case OutputKind::bandit:
      return "a result of kshot bandit";
    case OutputKind::page:
      return "a report that kshot wrote";
    case OutputKind::arrays:
      return "an archive of arrays that kshot wrote";
    case OutputKind::weights:
      return "a file of adapted weights that kshot wrote";
    case OutputKind::predictions:
      return "a table of predictions that kshot wrote";
    case OutputKind::class_table:
      return "a table of classes that kshot wrote";
    case OutputKind::text:
      break;
  }
  return "";
}

}  // namespace

OutputFile::OutputFile(fs::path file, OutputKind kind, const std::vector<fs::path>& inputs)
    : path_(std::move(file)), kind_(kind), inputs_(inputs) {
  replaces_ = check();
  const fs::path folder = path_.has_parent_path() ? path_.parent_path() : fs::path(".");
  std::error_code error;
  for (fs::path missing = folder; !missing.empty() && !fs::exists(missing, error);
       missing = missing.parent_path()) {
    // A path may end in a separator or a dot. Its parent is then the folder itself.
    if (missing.has_filename() && missing.filename() != ".") created_.push_back(missing);
  }
  std::ranges::reverse(created_);
  fs::create_directories(folder, error);
  if (!error && ::access(folder.c_str(), W_OK | X_OK) != 0)
    error = {errno, std::generic_category()};
  if (error) {
    const std::string reason = error.message();
    while (!created_.empty()) {
      fs::remove(created_.back(), error);
      created_.pop_back();
    }
    throw Error(fmt::format("cannot write {}: {}", path_.string(), reason));
  }
}

OutputFile::~OutputFile() {
  std::error_code ignored;
  // `remove` deletes a folder only if it is empty.
  for (auto folder = created_.rbegin(); folder != created_.rend(); ++folder)
    fs::remove(*folder, ignored);
}

/// Throws Error where the file may not be written. Returns true where an earlier file will be
/// replaced.
bool OutputFile::check() const {
  const std::string name = path_.string();
  if (!path_.has_filename()) throw Error("cannot write " + name + ": not a file name");
  std::error_code error;
  const fs::file_status status = fs::status(path_, error);
  if (status.type() == fs::file_type::not_found) {
    std::error_code ignored;
    if (!fs::is_symlink(path_, ignored)) return false;
    throw Error(
        fmt::format("cannot write {}: it is a link to {}, which is not there; choose another "
                    "name, or remove the link",
                    name, fs::read_symlink(path_, ignored).string()));
  }
  if (!fs::exists(status)) throw Error(fmt::format("cannot write {}: {}", name, error.message()));
  for (const fs::path& input : inputs_) {
    if (fs::equivalent(path_, input, error) && !error) {
      throw Error(
          fmt::format("cannot write {}: it is an input of this command ({}); choose another "
                      "output",
                      name, input.string()));
    }
  }
  if (fs::is_directory(status)) throw_system_error("cannot write", path_, EISDIR);
  if (!fs::is_regular_file(status)) {
    throw Error(fmt::format("cannot write {}: exists and is not a regular file", name));
  }
  if (!written_by_kshot(path_, kind_)) {
    throw Error(kind_ == OutputKind::text
                    ? fmt::format("cannot write {}: the file exists; choose another name", name)
                    : fmt::format("cannot write {}: the file exists and is not {}; choose another "
                                  "name, or move the file away",
                                  name, kind_text(kind_)));
  }
  return true;
}

void OutputFile::write(std::string_view text) {
  replaces_ = check();
  write_file_atomic(path_, text);
  written();
}

void OutputFile::written() {
  created_.clear();
  if (std::exchange(replaces_, false)) log_info(fmt::format("replaced {}", path_.string()));
}

}  // namespace kshot::io
