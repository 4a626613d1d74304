#include <cstdint>

#include "io/image_codec.h"

namespace kshot::io {
namespace {

/// Reads numbers of a TIFF block in its byte order. Numbers outside of the block read as 0.
class TiffReader {
 public:
  TiffReader(std::string_view bytes, bool little_endian)
      : bytes_(bytes), little_endian_(little_endian) {}
  std::uint32_t u16(std::size_t offset) const { return number(offset, 2); }
  std::uint32_t u32(std::size_t offset) const { return number(offset, 4); }

 private:
  std::uint32_t number(std::size_t offset, std::size_t size) const {
    if (offset > bytes_.size() || size > bytes_.size() - offset) return 0;
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < size; ++i) {
      const std::size_t byte = offset + (little_endian_ ? size - 1 - i : i);
      value = value << 8 | static_cast<unsigned char>(bytes_[byte]);
    }
    return value;
  }

  std::string_view bytes_;
  bool little_endian_;
};

}  // namespace

int exif_orientation(std::string_view tiff) {
  const bool little_endian = tiff.starts_with("II");
  if (!little_endian && !tiff.starts_with("MM")) return 1;
  const TiffReader reader(tiff, little_endian);
  if (reader.u16(2) != 42) return 1;
  const std::size_t directory = reader.u32(4);
  const std::size_t entries = reader.u16(directory);
  constexpr std::size_t entry_bytes = 12;
  for (std::size_t i = 0; i < entries; ++i) {
    const std::size_t entry = directory + 2 + i * entry_bytes;
    if (reader.u16(entry) != 0x0112) continue;
    constexpr std::uint32_t type_short = 3;
    constexpr std::uint32_t type_long = 4;
    const std::uint32_t type = reader.u16(entry + 2);
    const std::uint32_t value = type == type_short  ? reader.u16(entry + 8)
                                : type == type_long ? reader.u32(entry + 8)
                                                    : 0;
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

}  // namespace kshot::io
