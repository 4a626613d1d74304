// Turns values into bytes for another rank of the same program, and back.
//
// A structure lists its members in one function, which packing and unpacking share:
//   template <class Archive> void fields(Archive& a, Point& p) { a(p.x, p.y); }
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace kshot {

/// Appends values to bytes.
class Pack {
 public:
  template <class... T>
  void operator()(T&... values) {
    (put(values), ...);
  }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  void append(const void* data, std::size_t size) {
    const auto* const from = static_cast<const std::byte*>(data);
    bytes_.insert(bytes_.end(), from, from + size);
  }
  template <class T>
  void put(T& value) {
    if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>) {
      append(&value, sizeof value);
    } else {
      fields(*this, value);
    }
  }
  void put(std::string& text) {
    std::uint64_t size = text.size();
    put(size);
    append(text.data(), text.size());
  }
  template <class T>
  void put(std::vector<T>& values) {
    std::uint64_t size = values.size();
    put(size);
    if constexpr (std::is_arithmetic_v<T>) {
      if (size > 0) append(values.data(), values.size() * sizeof(T));
    } else {
      for (T& value : values) put(value);
    }
  }

  std::vector<std::byte> bytes_;
};

/// Reads values back from the bytes of a Pack of the same program. Throws std::logic_error where
/// the bytes end too early.
class Unpack {
 public:
  explicit Unpack(std::span<const std::byte> bytes) : bytes_(bytes) {}
  template <class... T>
  void operator()(T&... values) {
    (get(values), ...);
  }
  bool done() const { return bytes_.empty(); }

 private:
  void read(void* data, std::size_t size) {
    if (bytes_.size() < size) throw std::logic_error("an archive ends too early");
    if (size > 0) std::memcpy(data, bytes_.data(), size);
    bytes_ = bytes_.subspan(size);
  }
  std::size_t count(std::size_t least_bytes) {
    std::uint64_t size = 0;
    get(size);
    if (size > bytes_.size() / least_bytes) throw std::logic_error("an archive ends too early");
    return size;
  }
  template <class T>
  void get(T& value) {
    if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>) {
      read(&value, sizeof value);
    } else {
      fields(*this, value);
    }
  }
  void get(std::string& text) {
    text.resize(count(1));
    read(text.data(), text.size());
  }
  template <class T>
  void get(std::vector<T>& values) {
    if constexpr (std::is_arithmetic_v<T>) {
      values.resize(count(sizeof(T)));
      read(values.data(), values.size() * sizeof(T));
    } else {
      values.resize(count(1));
      for (T& value : values) get(value);
    }
  }

  std::span<const std::byte> bytes_;
};

}  // namespace kshot
