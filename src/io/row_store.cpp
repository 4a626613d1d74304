#include "io/row_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <limits>
#include <string_view>

#include "io/crc32c.h"
#include "io/system_error.h"

namespace kshot::io {
namespace {

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t line = 64;
constexpr char magic[8] = {'k', 's', 'h', 'o', 't', 'r', 'o', 'w'};
constexpr std::uint32_t format_version = 1;

std::uint64_t round_up(std::uint64_t n, std::uint64_t to) {
  return (n + to - 1) / to * to;
}

std::uint64_t data_begin(std::uint64_t rows) {
  return page + round_up(rows * 2 * sizeof(std::uint64_t), page);
}

/// Closes a descriptor.
struct Descriptor {
  int value = -1;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

}  // namespace

struct RowStore::Header {
  char magic[8];
  std::uint32_t format;
  std::uint32_t checksum;  ///< of the fields after this one, without `committed`
  std::uint64_t rows, row_bytes;
  std::uint32_t identity_size;
  std::uint32_t reserved;
  char identity[3072];
  std::uint64_t committed;

  std::uint32_t sum() const {
    const auto* begin = reinterpret_cast<const char*>(&rows);
    return crc32c({begin, offsetof(Header, committed) - offsetof(Header, rows)});
  }
};

RowStore::RowStore(std::uint64_t rows, std::size_t row_bytes)
    : rows_(rows), row_bytes_(row_bytes), size_(bytes(rows, row_bytes)) {}

RowStore::~RowStore() {
  if (mapped_ != nullptr && !file_) ::munmap(mapped_, size_);
}

std::uint64_t RowStore::bytes(std::uint64_t rows, std::size_t row_bytes) {
  return data_begin(rows) + rows * 2 * round_up(row_bytes, line);
}

void RowStore::map(int descriptor) {
  if (descriptor >= 0) {
    mapping_ = MappedFile(descriptor, size_, MappedFile::Access::write, path_, "task store");
    mapped_ = mapping_.data();
    file_ = true;
    return;
  }
  constexpr int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* mapped = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (mapped == MAP_FAILED)
    throw Error(fmt::format("cannot allocate {} bytes of memory for the per-task state", size_));
  mapped_ = static_cast<std::byte*>(mapped);
}

std::unique_ptr<RowStore> RowStore::in_memory(std::uint64_t rows, std::size_t row_bytes) {
  std::unique_ptr<RowStore> store(new RowStore(rows, row_bytes));
  store->map(-1);
  return store;
}

std::unique_ptr<RowStore> RowStore::create(const std::filesystem::path& path, std::uint64_t rows,
                                           std::size_t row_bytes, const std::string& identity) {
  std::unique_ptr<RowStore> store(new RowStore(rows, row_bytes));
  store->path_ = path;
  const std::filesystem::path temporary =
      path.parent_path() / fmt::format(".{}.tmp-{}", path.filename().string(), ::getpid());
  const auto fail = [&](int code) {
    ::unlink(temporary.c_str());
    throw_system_error(fmt::format("cannot reserve {} bytes for", store->size_), path, code);
  };
  const Descriptor file{::open(temporary.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)};
  if (file.value < 0) throw_system_error("cannot write", path, errno);
  // The whole space is reserved now, because a write through the mapping to a full disk would end
  // the process.
  const auto size = static_cast<off_t>(store->size_);
  if (::fallocate(file.value, 0, 0, size) != 0) {
    if (errno != EOPNOTSUPP && errno != ENOSYS) fail(errno);
    if (::ftruncate(file.value, size) != 0) fail(errno);
  }
  try {
    store->map(file.value);
    Header& h = store->header();
    std::memcpy(h.magic, magic, sizeof magic);
    h.format = format_version;
    h.rows = rows;
    h.row_bytes = row_bytes;
    if (identity.size() > sizeof h.identity) throw Error("row store: identity too long");
    h.identity_size = static_cast<std::uint32_t>(identity.size());
    std::memcpy(h.identity, identity.data(), identity.size());
    h.checksum = h.sum();
    store->sync();
    if (::fsync(file.value) != 0 || ::rename(temporary.c_str(), path.c_str()) != 0) {
      throw_system_error("cannot write", path, errno);
    }
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  return store;
}

std::unique_ptr<RowStore> RowStore::open(const std::filesystem::path& path, std::uint64_t rows,
                                         std::size_t row_bytes, const std::string& identity,
                                         std::uint64_t step) {
  const Descriptor file{::open(path.c_str(), O_RDWR | O_CLOEXEC)};
  if (file.value < 0) throw_system_error("cannot open the task store", path, errno);
  struct stat status {};
  if (::fstat(file.value, &status) != 0) throw_system_error("cannot open", path, errno);
  const auto file_size = static_cast<std::uint64_t>(status.st_size);
  std::unique_ptr<RowStore> store(new RowStore(rows, row_bytes));
  store->path_ = path;
  const auto refuse = [&](const std::string& why) {
    throw Error(fmt::format("{}: {}", path.string(), why));
  };
  Header h{};
  if (!S_ISREG(status.st_mode) || file_size < page ||
      ::pread(file.value, &h, sizeof h, 0) != static_cast<ssize_t>(sizeof h) ||
      std::memcmp(h.magic, magic, sizeof magic) != 0) {
    refuse("not a task store of kshot");
  }
  if (h.format != format_version) {
    refuse(fmt::format("task store of format version {}, expected {}", h.format, format_version));
  }
  if (h.checksum != h.sum() || h.identity_size > sizeof h.identity) {
    refuse("the header of this task store is damaged");
  }
  const std::string_view found(h.identity, h.identity_size);
  if (found != identity || h.rows != rows || h.row_bytes != row_bytes) {
    refuse(fmt::format("task store of another run: it is of {} ({} tasks), expected {} ({} tasks)",
                       found, h.rows, identity, rows));
  }
  if (file_size < store->size_) {
    refuse(fmt::format("task store cut short: {} bytes, expected {}", file_size, store->size_));
  }
  if (h.committed > step) {
    refuse(
        fmt::format("task store of step {}, ahead of the checkpoint's step {}", h.committed, step));
  }
  store->map(file.value);
  for (std::uint64_t row = 0; row < rows; ++row) {
    std::uint64_t* const s = store->steps(row);
    for (int slot = 0; slot < 2; ++slot) {
      if (s[slot] > step) s[slot] = 0;
    }
  }
  store->committed_ = step;
  return store;
}

RowStore::Header& RowStore::header() const {
  return *reinterpret_cast<Header*>(mapped_);
}
std::uint64_t* RowStore::steps(std::uint64_t row) const {
  return reinterpret_cast<std::uint64_t*>(mapped_ + page) + 2 * row;
}
std::byte* RowStore::data(std::uint64_t row, int slot) const {
  return mapped_ + data_begin(rows_) +
         (2 * row + static_cast<std::uint64_t>(slot)) * round_up(row_bytes_, line);
}

RowStore::State RowStore::newest(std::uint64_t row) const {
  const std::uint64_t* s = steps(row);
  const int slot = s[1] > s[0] ? 1 : 0;
  const bool none = s[slot] == 0;
  mapping_.check();  // otherwise a lost row would look like one that was never written
  if (none) return {};
  return {s[slot], {data(row, slot), row_bytes_}};
}

void RowStore::write(std::uint64_t row, std::uint64_t step, std::span<const std::byte> bytes) {
  std::uint64_t* s = steps(row);
  // The newest state up to the last checkpoint is kept.
  int keep = -1;
  for (int slot = 0; slot < 2; ++slot) {
    if (s[slot] == 0 || s[slot] > committed_) continue;
    if (keep < 0 || s[slot] > s[keep]) keep = slot;
  }
  const int slot = keep < 0 ? (s[1] > s[0] ? 1 : 0) : 1 - keep;
  std::memcpy(data(row, slot), bytes.data(), row_bytes_);
  s[slot] = step;
  mapping_.check();
}

void RowStore::check() const {
  mapping_.check();
}

void RowStore::sync() {
  mapping_.check();
  // A file whose end moved within a page raises no signal, so that the size is compared as well.
  if (file_ && mapping_.state().size < size_) mapping_.fail();
  if (file_ && ::msync(mapped_, size_, MS_SYNC) != 0) {
    throw_system_error("cannot write", path_, errno);
  }
}

void RowStore::commit(std::uint64_t step) {
  committed_ = step;
  if (file_) header().committed = step;
}

}  // namespace kshot::io
