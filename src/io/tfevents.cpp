#include "io/tfevents.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <system_error>

#include "io/crc32c.h"
#include "io/system_error.h"
#include "kshot/error.h"

namespace kshot::io {
namespace {

constexpr std::size_t kBufferSize = std::size_t{1} << 16;

double seconds_now() {
  const auto since_1970 = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration<double>(since_1970).count();
}

// ---- protocol buffers: the wire format of the few fields that are used ----
//  Field numbers are those of tensorflow/core/util/event.proto and framework/summary.proto.

enum class Wire { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

template <typename Unsigned>
void put_fixed(std::string* out, Unsigned value) {
  for (std::size_t i = 0; i < sizeof(value); ++i)
    *out += static_cast<char>(value >> (8 * i) & 0xff);
}

void put_varint(std::string* out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) *out += static_cast<char>((value & 0x7f) | 0x80);
  *out += static_cast<char>(value);
}

void put_key(std::string* out, unsigned field, Wire wire) {
  put_varint(out, field << 3 | static_cast<unsigned>(wire));
}

void put_bytes(std::string* out, unsigned field, std::string_view value) {
  put_key(out, field, Wire::bytes);
  put_varint(out, value.size());
  out->append(value);
}

/// Encodes Event{wall_time = 1: double, step = 2: int64}. The caller appends the contents.
std::string event(double wall_time, std::int64_t step) {
  std::string out;
  put_key(&out, 1, Wire::fixed64);
  put_fixed(&out, std::bit_cast<std::uint64_t>(wall_time));
  put_key(&out, 2, Wire::varint);
  put_varint(&out, static_cast<std::uint64_t>(step));
  return out;
}

// ---- TFRecord ----

/// Masks a checksum, because a checksum of data that contain checksums is weak.
std::uint32_t masked_crc(std::string_view data) {
  return std::rotr(crc32c(data), 15) + 0xa282ead8u;
}

// ---- file names ----

constexpr std::string_view kPrefix = "events.out.tfevents.";

/// Returns the largest number after the prefix among the folder's files, or -1. TensorBoard reads
/// files in the order of their names. A new file therefore needs a larger number, whatever the
/// clock says.
std::int64_t newest_file(const std::filesystem::path& folder) {
  std::int64_t newest = -1;
  std::error_code ignored;
  for (const auto& file : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string name = file.path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    std::int64_t second = -1;
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), second);
    newest = std::max(newest, second);
  }
  return newest;
}

}  // namespace

EventWriter::EventWriter(const std::filesystem::path& folder, std::int64_t first_step) {
  std::error_code failure;
  std::filesystem::create_directories(folder, failure);
  if (failure) throw_system_error("cannot create the folder", folder, failure.value());

  const double now = seconds_now();
  char host[256] = "";
  if (::gethostname(host, sizeof(host) - 1) != 0 || host[0] == '\0') host[0] = '-';
  auto second = std::max(static_cast<std::int64_t>(now), newest_file(folder) + 1);
  do {
    path_ = folder / fmt::format("{}{:010}.{}.{}", kPrefix, second++, host, ::getpid());
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
  } while (descriptor_ < 0 && errno == EEXIST);
  if (descriptor_ < 0) throw_system_error("cannot write", path_, errno);

  std::string version = event(now, 0);
  put_bytes(&version, 3, "brain.Event:2");
  add_record(version);
  // SessionLog{status = 1: START}. TensorBoard ignores the first one of a run. Each later one
  // discards the points from its step on.
  std::string session;
  put_key(&session, 1, Wire::varint);
  put_varint(&session, 1);
  std::string start = event(now, first_step);
  put_bytes(&start, 7, session);
  add_record(start);
  try {
    flush();
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

EventWriter::~EventWriter() {
  try {
    flush();
  } catch (const Error&) {
    // A caller that must know of a failure calls flush() itself.
  }
  ::close(descriptor_);
}

void EventWriter::scalar(std::string_view tag, std::int64_t step, double value,
                         std::optional<double> wall_time) {
  std::string point;  // Summary.Value{tag = 1, simple_value = 2: float}
  put_bytes(&point, 1, tag);
  put_key(&point, 2, Wire::fixed32);
  put_fixed(&point, std::bit_cast<std::uint32_t>(static_cast<float>(value)));
  std::string summary;  // Summary{value = 1}
  put_bytes(&summary, 1, point);
  std::string record = event(wall_time.value_or(seconds_now()), step);
  put_bytes(&record, 5, summary);
  add_record(record);
}

void EventWriter::add_record(std::string_view data) {
  std::string length;
  put_fixed(&length, static_cast<std::uint64_t>(data.size()));
  buffer_ += length;
  put_fixed(&buffer_, masked_crc(length));
  buffer_ += data;
  put_fixed(&buffer_, masked_crc(data));
  if (buffer_.size() >= kBufferSize) flush();
}

void EventWriter::flush() {
  std::size_t done = 0;
  while (done < buffer_.size()) {
    const ssize_t written = ::write(descriptor_, buffer_.data() + done, buffer_.size() - done);
    if (written < 0) {
      if (errno == EINTR) continue;
      const int failure = errno;
      buffer_.erase(0, done);  // bytes that were written are not written again
      throw_system_error("cannot write", path_, failure);
    }
    done += static_cast<std::size_t>(written);
  }
  buffer_.clear();
}

}  // namespace kshot::io
