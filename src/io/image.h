// Images: PNG and JPEG through libpng and libjpeg, resizing through stb_image_resize.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace kshot::io {

/// 8-bit pixels, [channels, height, width].
struct Image {
  int channels = 0, height = 0, width = 0;
  std::vector<std::uint8_t> pixels;
  bool transparent = false;  ///< some pixel of the file was not opaque
};

/// What lies behind transparent pixels.
enum class Background {
  stored,  ///< nothing: alpha is dropped and the stored colour counts, as in Pillow's convert()
  white,
  black
};

/// True for a name that ends in .png, .jpg, .jpeg, .jpe or .jfif, in any case.
bool is_image_name(std::string_view name);

/// Decodes a PNG or JPEG file (told apart by its first bytes) to 1 (grey) or 3 (RGB) channels. The
/// stored values count: no gamma and no colour profile is applied. 16-bit values are divided by
/// 257; the grey level of a colour is (19595 R + 38470 G + 7471 B) / 65536 (ITU-R 601-2), rounded
/// as Pillow's convert("L") rounds. The EXIF orientation is applied. Throws Error that begins with
/// `name` for anything that is not a whole image.
Image decode_image(std::string_view bytes, int channels, const std::string& name,
                   Background background = Background::stored);
Image read_image(const std::filesystem::path& file, int channels,
                 Background background = Background::stored);

/// Area average where both sides shrink, Catmull-Rom or Mitchell else. Aspect ratio is not kept.
Image resize_image(const Image& image, int height, int width);

/// Centre part of the largest size with the aspect ratio height : width.
Image crop_image(const Image& image, int height, int width);

/// Counter-clockwise by 90 degrees, `quarters` times; lossless.
Image rotate_image(const Image& image, int quarters);

}  // namespace kshot::io
