// Decodes PNG and JPEG files to the 8-bit values that they store. Only image.cpp uses it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kshot::io {

/// Pixels as the file stores them, [height, width, channels]. No gamma and no colour profile is
/// applied. 16-bit samples are divided by 257 and rounded, palettes are looked up, and CMYK is
/// converted to RGB.
struct StoredImage {
  int channels = 0;  ///< 1: grey, 2: grey and alpha, 3: RGB, 4: RGB and alpha
  int height = 0, width = 0;
  int orientation = 1;  ///< EXIF orientation, 1 to 8
  std::vector<std::uint8_t> pixels;
};

/// Both functions throw Error that begins with `name` for anything that is not a complete image.
StoredImage decode_png(std::string_view bytes, const std::string& name);
StoredImage decode_jpeg(std::string_view bytes, const std::string& name);

/// Throws Error unless each side is 1 to 32768 pixels and the image has at most 2^28 pixels.
void check_image_size(std::size_t height, std::size_t width, const std::string& name);

/// Returns the orientation (tag 0x0112) of a TIFF block, which is the format of EXIF data. Returns
/// 1 where the block is damaged or has no orientation.
int exif_orientation(std::string_view tiff);

}  // namespace kshot::io
