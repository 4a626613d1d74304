#include "io/npy.h"

#include <fmt/format.h>
#include <zip.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "base/memory.h"
#include "io/atomic_file.h"
#include "io/input_file.h"
#include "io/output_file.h"
#include "kshot/error.h"

namespace kshot::io {
namespace {

using DType = Tensor::DType;

constexpr std::string_view kMagic = "\x93NUMPY";
/// Longest header in bytes that is read. NumPy itself refuses more than 10,000 by default.
constexpr std::size_t longest_npy_header = std::size_t{1} << 20;
/// NumPy 2 allows 64 dimensions.
constexpr std::size_t kMostDimensions = 64;

struct Header {
  DType dtype = DType::f64;
  bool big_endian = false;
  bool fortran_order = false;
  std::vector<std::size_t> shape;
};

/// Parses the header, a Python dictionary of three known keys.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const std::string& origin) : text_(text), origin_(origin) {}

  Header parse() {
    Header header;
    bool seen_descr = false, seen_order = false, seen_shape = false;
    expect('{');
    while (!accept('}')) {
      const std::string key = string();
      expect(':');
      if (key == "descr" && !std::exchange(seen_descr, true)) {
        header.dtype = dtype(&header.big_endian);
      } else if (key == "fortran_order" && !std::exchange(seen_order, true)) {
        header.fortran_order = boolean();
      } else if (key == "shape" && !std::exchange(seen_shape, true)) {
        header.shape = shape();
      } else {
        damaged();
      }
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_space();
    if (at_ != text_.size() || !seen_descr || !seen_order || !seen_shape) damaged();
    return header;
  }

 private:
  [[noreturn]] void damaged() const { throw Error(origin_ + ": the .npy header is damaged"); }

  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  bool accept(char c) {
    skip_space();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) damaged();
  }
  bool accept_word(std::string_view word) {
    skip_space();
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  std::string string() {
    skip_space();
    if (at_ == text_.size() || (text_[at_] != '\'' && text_[at_] != '"')) damaged();
    const char quote = text_[at_];
    const std::size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) damaged();
    std::string value(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    return value;
  }

  bool boolean() {
    if (accept_word("True")) return true;
    if (accept_word("False")) return false;
    damaged();
  }

  std::vector<std::size_t> shape() {
    std::vector<std::size_t> extents;
    expect('(');
    while (!accept(')')) {
      skip_space();
      std::size_t extent = 0;
      const char* begin = text_.data() + at_;
      const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), extent);
      if (error != std::errc{} || extents.size() == kMostDimensions) damaged();
      at_ += static_cast<std::size_t>(end - begin);
      accept('L');  // Python 2 wrote its long integers with an L
      extents.push_back(extent);
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return extents;
  }

  DType dtype(bool* big_endian) {
    if (accept('[')) {
      throw Error(origin_ + ": structured arrays are not supported: expected an array of numbers");
    }
    const std::string descr = string();
    const auto reject = [&](const char* why) {
      throw Error(fmt::format("{}: dtype '{}' is not supported: {}", origin_, descr, why));
    };
    static constexpr std::array<std::pair<std::string_view, DType>, 12> kKnown{{
        {"f2", DType::f16},
        {"f4", DType::f32},
        {"f8", DType::f64},
        {"i1", DType::i8},
        {"u1", DType::u8},
        {"i2", DType::i16},
        {"i4", DType::i32},
        {"i8", DType::i64},
        {"u2", DType::u16},
        {"u4", DType::u32},
        {"u8", DType::u64},
        {"b1", DType::boolean},
    }};
    if (descr.size() < 2) reject("expected numbers or booleans");
    const std::string_view kind = std::string_view(descr).substr(1);
    const auto known = std::find_if(kKnown.begin(), kKnown.end(),
                                    [&](const auto& entry) { return entry.first == kind; });
    if (known == kKnown.end()) {
      const bool text = kind[0] == 'U' || kind[0] == 'S' || kind[0] == 'a';
      reject(kind[0] == 'O'   ? "Python objects; expected numbers or booleans"
             : text           ? "text; expected numbers or booleans"
             : kind[0] == 'c' ? "complex numbers; expected real numbers or booleans"
                              : "expected numbers of up to 64 bits or booleans");
    }
    if (std::string_view("<|=>").find(descr[0]) == std::string_view::npos) damaged();
    *big_endian = descr[0] == '>';
    return known->second;
  }

  std::string_view text_;
  const std::string& origin_;
  std::size_t at_ = 0;
};

[[noreturn]] void cut_short(const std::string& origin, std::size_t expected, std::size_t found) {
  throw Error(fmt::format("{} is cut short: expected {} bytes, found {}", origin, expected, found));
}

/// Copies the column-major `source` to the row-major `target`.
void transpose(const std::vector<std::size_t>& shape, std::size_t item,
               const std::vector<std::byte>& source, std::vector<std::byte>* target) {
  target->resize(source.size());
  std::vector<std::size_t> stride(shape.size());  // strides of the source in bytes
  std::size_t step = item;
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    stride[axis] = step;
    step *= shape[axis];
  }
  std::vector<std::size_t> index(shape.size(), 0);
  std::size_t from = 0;
  for (std::size_t to = 0; to < target->size(); to += item) {
    std::memcpy(target->data() + to, source.data() + from, item);
    for (std::size_t axis = shape.size(); axis-- > 0;) {
      from += stride[axis];
      if (++index[axis] < shape[axis]) break;
      from -= stride[axis] * shape[axis];
      index[axis] = 0;
    }
  }
}

/// Reverses the bytes of every item.
void swap_bytes(std::size_t item, std::vector<std::byte>* bytes) {
  for (auto at = bytes->begin(); at != bytes->end(); at += static_cast<std::ptrdiff_t>(item)) {
    std::reverse(at, at + static_cast<std::ptrdiff_t>(item));
  }
}

/// Reads `size` bytes. The buffer grows as they arrive, because a damaged header may state any
/// size.
std::vector<std::byte> read_bytes(ByteSource& source, std::size_t size, const std::string& origin,
                                  std::size_t done_before) {
  constexpr std::size_t kStep = std::size_t{16} << 20;
  std::vector<std::byte> bytes;
  while (bytes.size() < size) {
    const std::size_t done = bytes.size();
    const std::size_t step = std::min(size - done, kStep);
    bytes.resize(done + step);
    const std::size_t got = source.read(bytes.data() + done, step);
    if (got < step) cut_short(origin, done_before + size, done_before + done + got);
  }
  return bytes;
}

/// Parses one array from the beginning of `source` to its end. `known_size` is the size of the
/// source in bytes.
NpyArray parse(ByteSource& source, std::optional<std::uint64_t> known_size,
               const std::string& origin) {
  std::array<unsigned char, 12> prefix{};
  const std::size_t got = source.read(prefix.data(), 8);
  const std::string_view magic(reinterpret_cast<const char*>(prefix.data()),
                               std::min(got, kMagic.size()));
  if (got == 0) throw Error(origin + " is empty: expected a .npy array");
  if (magic != kMagic.substr(0, magic.size())) {
    throw Error(origin + ": not a .npy array (it does not begin with \"\\x93NUMPY\")");
  }
  if (got < 8) cut_short(origin, 10, got);
  const int major = prefix[6];
  const int minor = prefix[7];
  if (major < 1 || major > 3 || minor != 0) {
    throw Error(fmt::format("{}: .npy format version {}.{}: expected 1.0, 2.0 or 3.0", origin,
                            major, minor));
  }
  const std::size_t length_size = major == 1 ? 2 : 4;
  const std::size_t prefix_size = 8 + length_size;
  const std::size_t got_length = source.read(prefix.data() + 8, length_size);
  if (got_length < length_size) cut_short(origin, prefix_size, 8 + got_length);
  std::size_t header_size = 0;
  for (std::size_t i = length_size; i-- > 0;) header_size = header_size << 8 | prefix[8 + i];
  if (header_size > longest_npy_header) throw Error(origin + ": the .npy header is damaged");
  std::string text(header_size, '\0');
  const std::size_t got_header = source.read(text.data(), text.size());
  if (got_header < header_size) {
    cut_short(origin, prefix_size + header_size, prefix_size + got_header);
  }

  Header header = HeaderParser(text, origin).parse();
  std::size_t elements = 0;
  std::size_t byte_count = 0;
  if (!checked_size(header.shape, header.dtype, &elements, &byte_count)) {
    throw Error(fmt::format("{}: impossible shape {}", origin, shape_text(header.shape)));
  }
  // Zeros compress to almost nothing, so that a small archive can hold an array of any size.
  const double memory = physical_memory();
  if (memory > 0.0 && static_cast<double>(byte_count) > memory) {
    throw Error(
        fmt::format("{}: shape {} of {} is {:.1f} GiB; expected at most the {:.1f} GiB of "
                    "memory that this machine has",
                    origin, shape_text(header.shape), dtype_name(header.dtype),
                    static_cast<double>(byte_count) / 0x1p30, memory / 0x1p30));
  }
  const std::size_t data_start = prefix_size + header_size;
  if (known_size && *known_size < data_start + byte_count) {
    cut_short(origin, data_start + byte_count, *known_size);
  }

  NpyArray array;
  array.origin = origin;
  array.dtype = header.dtype;
  array.bytes = read_bytes(source, byte_count, origin, data_start);
  // Reading to the end also makes libzip compare the checksum.
  char beyond = 0;
  if (source.read(&beyond, 1) != 0) {
    throw Error(fmt::format("{}: expected {} bytes, found more", origin, data_start + byte_count));
  }
  if (header.big_endian) swap_bytes(item_size(header.dtype), &array.bytes);
  if (header.fortran_order && header.shape.size() > 1) {
    std::vector<std::byte> row_major;
    transpose(header.shape, item_size(header.dtype), array.bytes, &row_major);
    array.bytes = std::move(row_major);
  }
  array.shape = std::move(header.shape);
  return array;
}

const char* descr_of(DType dtype) {
  switch (dtype) {
    case DType::f16:
      return "<f2";
    case DType::f32:
      return "<f4";
    case DType::f64:
      return "<f8";
    case DType::i8:
      return "|i1";
    case DType::u8:
      return "|u1";
    case DType::i16:
      return "<i2";
    case DType::i32:
      return "<i4";
    case DType::i64:
      return "<i8";
    case DType::u16:
      return "<u2";
    case DType::u32:
      return "<u4";
    case DType::u64:
      return "<u8";
    case DType::boolean:
      return "|b1";
  }
  throw std::logic_error("write_npy: no such dtype");
}

/// Returns the header: magic, version 1.0, length and dictionary, padded so that the data begin at
/// a multiple of 64.
std::string header_of(const NpyArray& array) {
  if (array.bytes.size() != array.size() * item_size(array.dtype)) {
    throw std::logic_error("write_npy: bytes do not fit the shape");
  }
  std::string dictionary = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}",
                                       descr_of(array.dtype), shape_text(array.shape));
  constexpr std::size_t kPrefix = 10;
  const std::size_t used = kPrefix + dictionary.size() + 1;
  dictionary.append((64 - used % 64) % 64, ' ');
  dictionary += '\n';
  if (dictionary.size() > 0xffff) throw std::logic_error("write_npy: too many dimensions");
  std::string header(kMagic);
  header += '\x01';
  header += '\x00';
  header += static_cast<char>(dictionary.size() & 0xff);
  header += static_cast<char>(dictionary.size() >> 8);
  return header + dictionary;
}

// ---- zip ----

struct DiscardZip {
  void operator()(zip_t* archive) const { zip_discard(archive); }
};
struct CloseEntry {
  void operator()(zip_file_t* entry) const { zip_fclose(entry); }
};
struct FreeSource {
  void operator()(zip_source_t* source) const { zip_source_free(source); }
};
using Archive = std::unique_ptr<zip_t, DiscardZip>;
using Source = std::unique_ptr<zip_source_t, FreeSource>;

class ZipError {
 public:
  ZipError() { zip_error_init(&error_); }
  ~ZipError() { zip_error_fini(&error_); }
  ZipError(const ZipError&) = delete;
  ZipError& operator=(const ZipError&) = delete;
  zip_error_t* get() { return &error_; }
  const char* text() { return zip_error_strerror(&error_); }

 private:
  zip_error_t error_;
};

class ZipEntry final : public ByteSource {
 public:
  ZipEntry(zip_t* archive, zip_uint64_t index, const std::string& origin)
      : entry_(zip_fopen_index(archive, index, 0)), origin_(origin) {
    if (!entry_) throw Error(origin_ + ": cannot read: " + zip_strerror(archive));
  }
  std::size_t read(void* data, std::size_t size) override {
    std::size_t done = 0;
    while (done < size) {
      const zip_int64_t got = zip_fread(entry_.get(), static_cast<char*>(data) + done, size - done);
      if (got < 0) {
        throw Error(origin_ +
                    " is damaged: " + zip_error_strerror(zip_file_get_error(entry_.get())));
      }
      if (got == 0) break;
      done += static_cast<std::size_t>(got);
    }
    return done;
  }

 private:
  std::unique_ptr<zip_file_t, CloseEntry> entry_;
  const std::string& origin_;
};

}  // namespace

NpyArray read_npy(const std::filesystem::path& path) {
  InputFile file(path);
  return parse(file, file.size(), path.string());
}

void write_npy(const std::filesystem::path& path, const NpyArray& array) {
  AtomicFile file(path);
  file.write(header_of(array));
  file.write(std::span(array.bytes));
  file.commit();
}

namespace {

/// An archive that is open for reading, and the names of its arrays.
struct NpzFile {
  explicit NpzFile(const std::filesystem::path& path) : file(path.string()) {
    // libzip's own message is good for a missing file, but not for a folder or a pipe.
    if (!InputFile(path).size()) throw Error("cannot read " + file + ": not a regular file");
    int code = 0;
    archive.reset(zip_open(path.c_str(), ZIP_RDONLY, &code));
    if (!archive) {
      ZipError error;
      zip_error_init_with_code(error.get(), code);
      throw Error(fmt::format("{}: not a whole .npz (zip) archive: {}", file, error.text()));
    }
    const zip_int64_t count = zip_get_num_entries(archive.get(), 0);
    for (zip_int64_t i = 0; i < count; ++i) {
      zip_stat_t info;
      zip_stat_init(&info);
      if (zip_stat_index(archive.get(), static_cast<zip_uint64_t>(i), 0, &info) != 0) {
        throw Error(fmt::format("{}: entry {}: {}", file, i, zip_strerror(archive.get())));
      }
      std::string name = info.name;
      if (name.ends_with(".npy")) name.resize(name.size() - 4);
      if (!index.emplace(name, static_cast<zip_uint64_t>(i)).second) {
        throw Error(file + ": " + name + ": two entries have this name");
      }
    }
  }

  NpyArray read(const std::string& name, zip_uint64_t at) const {
    const std::string origin = file + ": " + name;
    zip_stat_t info;
    zip_stat_init(&info);
    const bool has_size =
        zip_stat_index(archive.get(), at, 0, &info) == 0 && (info.valid & ZIP_STAT_SIZE) != 0;
    ZipEntry entry(archive.get(), at, origin);
    return parse(entry, has_size ? std::optional<std::uint64_t>(info.size) : std::nullopt, origin);
  }

  std::string file;
  Archive archive;
  std::map<std::string, zip_uint64_t> index;
};

}  // namespace

std::map<std::string, NpyArray> read_npz(const std::filesystem::path& path) {
  const NpzFile npz(path);
  std::map<std::string, NpyArray> entries;
  for (const auto& [name, at] : npz.index) entries.emplace(name, npz.read(name, at));
  return entries;
}

std::vector<std::string> npz_names(const std::filesystem::path& path) {
  std::vector<std::string> names;
  for (const auto& [name, at] : NpzFile(path).index) names.push_back(name);
  return names;
}

NpyArray read_npz_array(const std::filesystem::path& path, const std::string& name) {
  const NpzFile npz(path);
  const auto found = npz.index.find(name);
  if (found == npz.index.end()) throw Error(fmt::format("{}: no array '{}'", npz.file, name));
  return npz.read(name, found->second);
}

void write_npz(const std::filesystem::path& path, const std::map<std::string, NpyArray>& entries,
               Compression compression) {
  ZipError error;
  const auto fail = [&](const char* reason) {
    throw Error(fmt::format("cannot write {}: {}", path.string(), reason));
  };
  // Opening the output first reports early if the file cannot be written at all.
  AtomicFile file(path);
  if (entries.empty()) {
    // libzip writes no archive without entries. Such an archive is the end record alone.
    std::string record = std::string("PK\x05\x06") + std::string(18, '\0');
    record[record.size() - 2] = static_cast<char>(arrays_mark.size());
    file.write(record.append(arrays_mark));
    file.commit();
    return;
  }

  const Source buffer(zip_source_buffer_create(nullptr, 0, 0, error.get()));
  if (!buffer) fail(error.text());
  zip_source_keep(buffer.get());  // the archive frees one reference, and this function the other
  Archive archive(zip_open_from_source(buffer.get(), ZIP_TRUNCATE, error.get()));
  if (!archive) {
    zip_source_free(buffer.get());
    fail(error.text());
  }
  if (zip_set_archive_comment(archive.get(), arrays_mark.data(),
                              static_cast<zip_uint16_t>(arrays_mark.size())) != 0) {
    fail(zip_strerror(archive.get()));
  }
  std::vector<std::string> headers;  // libzip reads the fragments when it closes the archive
  headers.reserve(entries.size());
  for (const auto& [name, array] : entries) {
    headers.push_back(header_of(array));
    std::array<zip_buffer_fragment_t, 2> fragments{};
    fragments[0] = {reinterpret_cast<zip_uint8_t*>(headers.back().data()), headers.back().size()};
    // libzip only reads the data; its interface lacks const.
    fragments[1] = {reinterpret_cast<zip_uint8_t*>(const_cast<std::byte*>(array.bytes.data())),
                    array.bytes.size()};
    const zip_uint64_t used = array.bytes.empty() ? 1 : 2;
    Source source(zip_source_buffer_fragment_create(fragments.data(), used, 0, error.get()));
    if (!source) fail(error.text());
    const zip_int64_t index =
        zip_file_add(archive.get(), (name + ".npy").c_str(), source.get(), ZIP_FL_ENC_UTF_8);
    if (index < 0) fail(zip_strerror(archive.get()));
    static_cast<void>(source.release());  // the archive owns the source now
    const auto at = static_cast<zip_uint64_t>(index);
    const zip_int32_t method = compression == Compression::stored ? ZIP_CM_STORE : ZIP_CM_DEFLATE;
    // The time is fixed, as in NumPy, so that the bytes do not depend on the clock.
    constexpr zip_uint16_t kFirstOfJanuary1980 = 1 << 5 | 1;
    if (zip_set_file_compression(archive.get(), at, method, 0) != 0 ||
        zip_file_set_dostime(archive.get(), at, 0, kFirstOfJanuary1980, 0) != 0) {
      fail(zip_strerror(archive.get()));
    }
  }
  if (zip_close(archive.get()) != 0) fail(zip_strerror(archive.get()));
  static_cast<void>(archive.release());

  zip_stat_t info;
  zip_stat_init(&info);
  if (zip_source_stat(buffer.get(), &info) != 0 || zip_source_open(buffer.get()) != 0) {
    fail(zip_error_strerror(zip_source_error(buffer.get())));
  }
  std::vector<std::byte> chunk(std::size_t{1} << 20);
  zip_uint64_t left = info.size;
  while (left > 0) {
    const zip_int64_t got = zip_source_read(buffer.get(), chunk.data(), chunk.size());
    if (got <= 0) fail("the archive cannot be read back from memory");
    file.write(std::span(chunk).first(static_cast<std::size_t>(got)));
    left -= static_cast<zip_uint64_t>(got);
  }
  zip_source_close(buffer.get());
  file.commit();
}

}  // namespace kshot::io
