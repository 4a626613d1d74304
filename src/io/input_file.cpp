#include "io/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "io/system_error.h"

namespace kshot::io {

InputFile::InputFile(const std::filesystem::path& path) : path_(path) {
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor_ < 0) throw_system_error("cannot read", path_, errno);
  struct stat info {};
  int failure = ::fstat(descriptor_, &info) != 0 ? errno : 0;
  if (failure == 0 && S_ISDIR(info.st_mode)) failure = EISDIR;
  if (failure != 0) {
    ::close(descriptor_);  // the destructor of an object whose constructor throws never runs
    throw_system_error("cannot read", path_, failure);
  }
  if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode)) {
    ::close(descriptor_);
    throw Error("cannot read " + path_.string() + ": it is a device; expected a file");
  }
  if (S_ISREG(info.st_mode)) size_ = static_cast<std::uint64_t>(info.st_size);
}

InputFile::~InputFile() {
  ::close(descriptor_);
}

std::size_t InputFile::read(void* data, std::size_t size) {
  std::size_t done = 0;
  while (done < size) {
    // One call moves at most 2 GiB on Linux. Larger reads are done in a loop.
    const std::size_t step = std::min<std::size_t>(size - done, std::size_t{1} << 30);
    const ssize_t got = ::read(descriptor_, static_cast<char*>(data) + done, step);
    if (got < 0) {
      if (errno == EINTR) continue;
      throw_system_error("cannot read", path_, errno);
    }
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return done;
}

}  // namespace kshot::io
