#include "io/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <mutex>
#include <utility>

#include "io/system_error.h"
#include "kshot/error.h"

namespace kshot::io {
namespace {

/// A mapping as the signal handler sees it. The handler may run at any moment, on any thread.
/// Ranges are therefore reused and never freed.
struct MappedRange {
  std::atomic<std::uintptr_t> begin{0}, end{0};  ///< begin == 0: nothing is mapped
  std::atomic<bool> writable{false}, damaged{false};
  MappedRange* next = nullptr;
};
static_assert(std::atomic<std::uintptr_t>::is_always_lock_free);

std::atomic<MappedRange*> first_range{nullptr};
std::mutex ranges_mutex;  ///< held while a range is taken or given back
struct sigaction before;

/// Replaces a page of a mapping by zeros. Calls only what is allowed in a signal handler; mmap is a
/// plain system call on Linux.
bool replace_page(std::uintptr_t address) {
  for (MappedRange* range = first_range.load(); range != nullptr; range = range->next) {
    const std::uintptr_t begin = range->begin.load(), end = range->end.load();
    if (begin == 0 || address < begin || address >= end) continue;
    const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    void* const at = reinterpret_cast<void*>(address / page * page);
    const int access = range->writable.load() ? PROT_READ | PROT_WRITE : PROT_READ;
    range->damaged.store(true);
    return ::mmap(at, page, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
  }
  return false;
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
  const int saved = errno;
  const bool replaced = replace_page(reinterpret_cast<std::uintptr_t>(info->si_addr));
  errno = saved;
  if (replaced) return;
  if ((before.sa_flags & SA_SIGINFO) != 0 && before.sa_sigaction != nullptr) {
    return before.sa_sigaction(signal, info, context);
  }
  if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
    return before.sa_handler(signal);
  // With the default action restored, the fault occurs again after the return and ends the process.
  ::signal(SIGBUS, SIG_DFL);
}

void install_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    ::sigemptyset(&action.sa_mask);
    ::sigaction(SIGBUS, &action, &before);
  });
}

MappedRange* take_range(std::byte* data, std::size_t size, bool writable) {
  const std::lock_guard lock(ranges_mutex);
  MappedRange* range = first_range.load();
  while (range != nullptr && range->begin.load() != 0) range = range->next;
  const bool made = range == nullptr;
  if (made) {
    range = new MappedRange;
    range->next = first_range.load();
  }
  range->damaged.store(false);
  range->writable.store(writable);
  range->end.store(reinterpret_cast<std::uintptr_t>(data) + size);
  range->begin.store(reinterpret_cast<std::uintptr_t>(data));
  if (made) first_range.store(range);
  return range;
}

}  // namespace

MappedFile::MappedFile(int descriptor, std::size_t size, Access access, std::filesystem::path path,
                       const char* what)
    : size_(size), path_(std::move(path)), what_(what) {
  install_handler();
  const bool writable = access == Access::write;
  void* const mapped = ::mmap(nullptr, size, writable ? PROT_READ | PROT_WRITE : PROT_READ,
                              writable ? MAP_SHARED : MAP_PRIVATE, descriptor, 0);
  const int failure = errno;
  if (mapped != MAP_FAILED) descriptor_ = ::fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
  if (mapped == MAP_FAILED || descriptor_ < 0) {
    const int code = mapped == MAP_FAILED ? failure : errno;
    if (mapped != MAP_FAILED) ::munmap(mapped, size);
    throw_system_error(fmt::format("cannot map {}", what), path_, code);
  }
  data_ = static_cast<std::byte*>(mapped);
  MappedRange* const range = take_range(data_, size, writable);
  place_ = range;
  damaged_ = &range->damaged;
}

MappedFile::~MappedFile() {
  if (data_ == nullptr) return;
  const std::lock_guard lock(ranges_mutex);
  ::munmap(data_, size_);
  ::close(descriptor_);
  static_cast<MappedRange*>(place_)->begin.store(0);
}

MappedFile::MappedFile(MappedFile&& other) noexcept {
  *this = std::move(other);
}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(path_, other.path_);
  std::swap(what_, other.what_);
  std::swap(place_, other.place_);
  std::swap(damaged_, other.damaged_);
  return *this;
}

MappedFile::FileState MappedFile::state() const {
  struct stat status {};
  if (descriptor_ < 0) return {};
  if (::fstat(descriptor_, &status) != 0) throw_system_error("cannot read", path_, errno);
  return {static_cast<std::uint64_t>(status.st_size),
          std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec};
}

void MappedFile::fail() const {
  throw Error(fmt::format(
      "{}: the {} was cut short, or could not be read, while it was in use; what was read of it is "
      "not used",
      path_.string(), what_));
}

}  // namespace kshot::io
