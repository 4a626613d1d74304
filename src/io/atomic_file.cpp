#include "io/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <memory>
#include <utility>
#include <vector>

#include "io/input_file.h"
#include "io/system_error.h"

namespace kshot::io {
namespace {

constexpr std::size_t kBufferSize = std::size_t{1} << 20;

/// The common prefix of the names of all temporary files of `path`.
std::string temporary_prefix(const std::filesystem::path& path) {
  return "." + path.filename().string() + ".tmp-";
}

/// Returns a name in the same folder (rename does not cross file systems) that no other writer
/// uses.
std::filesystem::path temporary_name(const std::filesystem::path& path) {
  static std::atomic<unsigned> counter{0};
  return path.parent_path() /
         (temporary_prefix(path) + std::to_string(::getpid()) + "-" + std::to_string(counter++));
}

/// Paths of the existing temporary files, for a signal handler: it may take no lock and allocate no
/// memory. If all places are taken, a further temporary is not removed on a signal.
struct Place {
  std::atomic<bool> taken{false};
  std::atomic<bool> live{false};
  std::array<char, PATH_MAX> path{};
};
std::array<Place, 32> places;

Place* register_temporary(const std::filesystem::path& path) {
  if (path.native().size() >= PATH_MAX) return nullptr;
  for (Place& place : places) {
    if (place.taken.exchange(true)) continue;
    std::ranges::copy(path.native(), place.path.begin());
    place.path[path.native().size()] = '\0';
    place.live = true;
    return &place;
  }
  return nullptr;
}

/// Makes the rename durable. Some file systems cannot sync folders, which is not a failure of the
/// write.
void sync_folder(const std::filesystem::path& path) {
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;  // the folder may be written but not listed
  const int failure = ::fsync(descriptor) != 0 ? errno : 0;
  ::close(descriptor);
  if (failure != 0 && failure != EINVAL && failure != ENOTSUP) {
    throw_system_error("cannot sync the folder of", path, failure);
  }
}

}  // namespace

void remove_temporaries() noexcept {
  for (Place& place : places) {
    if (place.live) ::unlink(place.path.data());
  }
}

AtomicFile::Registration::Registration(const std::filesystem::path& path)
    : place_(register_temporary(path)) {}

AtomicFile::Registration::~Registration() {
  auto* place = static_cast<Place*>(place_);
  if (place == nullptr) return;
  place->live = false;
  place->taken = false;
}

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  if (!path_.has_filename()) throw Error("cannot write " + path_.string() + ": not a file name");
  // A link is followed to its target, because the rename would replace the link itself.
  std::error_code ignored;
  if (std::filesystem::is_symlink(path_, ignored)) {
    path_ = std::filesystem::weakly_canonical(path_, ignored);
  }
  struct stat existing {};
  const bool exists = ::stat(path_.c_str(), &existing) == 0;
  if (exists && S_ISDIR(existing.st_mode)) throw_system_error("cannot write", path_, EISDIR);
  if (exists && !S_ISREG(existing.st_mode)) {
    // Renaming over a device or a pipe would replace it.
    throw Error("cannot write " + path_.string() + ": exists and is not a regular file");
  }
  do {
    // The name may belong to a leftover of a killed process with the same id. Then the next name is
    // tried.
    temporary_ = temporary_name(path_);
    // The path is registered before the file is created, so that a signal right after that finds
    // it.
    registration_ = std::make_unique<Registration>(temporary_);
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (descriptor_ < 0 && errno == EEXIST);
  if (descriptor_ < 0) throw_system_error("cannot write", path_, errno);
  if (exists) (void)!::fchmod(descriptor_, existing.st_mode & 07777);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::fail() const {
  throw_system_error("cannot write", path_, errno);
}

void AtomicFile::write(std::span<const std::byte> data) {
  write(std::string_view(reinterpret_cast<const char*>(data.data()), data.size()));
}

void AtomicFile::write(std::string_view data) {
  if (buffer_.size() + data.size() > kBufferSize) flush();
  if (data.size() >= kBufferSize) {
    write_through(data.data(), data.size());
  } else {
    buffer_.append(data);
  }
}

void AtomicFile::flush() {
  write_through(buffer_.data(), buffer_.size());
  buffer_.clear();
}

void AtomicFile::write_through(const char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t written =
        ::write(descriptor_, data, std::min<std::size_t>(size, std::size_t{1} << 30));
    if (written < 0) {
      if (errno == EINTR) continue;
      fail();
    }
    data += written;
    size -= static_cast<std::size_t>(written);
  }
}

void AtomicFile::commit() {
  flush();
  if (::fsync(descriptor_) != 0) fail();
  // Network file systems report a full disk only here.
  if (::close(std::exchange(descriptor_, -1)) != 0) fail();
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail();
  temporary_.clear();
  registration_.reset();
  sync_folder(path_);
}

void remove_leftovers(const std::filesystem::path& path) {
  const std::string prefix = temporary_prefix(path);
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  std::error_code error;  // a folder that cannot be listed keeps its leftovers
  std::filesystem::directory_iterator it(folder, error);
  std::vector<std::filesystem::path> found;
  for (; !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
    if (it->path().filename().string().starts_with(prefix)) found.push_back(it->path());
  }
  for (const std::filesystem::path& file : found) std::filesystem::remove(file, error);
}

void write_file_atomic(const std::filesystem::path& path, std::string_view data) {
  AtomicFile file(path);
  file.write(data);
  file.commit();
}

std::string read_file(const std::filesystem::path& path) {
  InputFile file(path);
  std::string data;
  // The buffer is one byte larger than the file, so that one call reads a regular file to its end.
  std::size_t step = static_cast<std::size_t>(file.size().value_or(0)) + 1;
  for (;;) {
    const std::size_t old_size = data.size();
    data.resize(old_size + step);
    const std::size_t got = file.read(data.data() + old_size, step);
    data.resize(old_size + got);
    if (got < step) return data;
    step = std::size_t{1} << 16;
  }
}

}  // namespace kshot::io
