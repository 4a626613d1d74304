// Reads PNG and JPEG images (libpng, libjpeg), and resizes (stb_image_resize), crops and rotates
// them.
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
  bool transparent = false;  ///< some pixel of the file is not opaque
};

/// The colour that is put behind transparent pixels.
enum class Background {
  stored,  ///< none: alpha is dropped and the stored colour is used, as in Pillow's convert()
  white,
  black
};

/// Returns true for a name that ends in .png, .jpg, .jpeg, .jpe or .jfif, in any case.
bool is_image_name(std::string_view name);

/// Decodes a PNG or JPEG file (recognised by its first bytes) to 1 (grey) or 3 (RGB) channels. The
/// stored values are used: no gamma and no colour profile is applied. 16-bit values are divided by
/// 257. The grey level of a colour is (19595 R + 38470 G + 7471 B) / 65536 (ITU-R 601-2), rounded
/// as Pillow's convert("L") rounds. The EXIF orientation is applied. Throws Error that begins with
/// `name` for anything that is not a complete image.
Image decode_image(std::string_view bytes, int channels, const std::string& name,
                   Background background = Background::stored);
Image read_image(const std::filesystem::path& file, int channels,
                 Background background = Background::stored);

/// Resizes by area averages where both sides shrink, otherwise with Catmull-Rom or Mitchell
/// filters. The aspect ratio is not kept.
Image resize_image(const Image& image, int height, int width);

/// Cuts out the largest centre part with the aspect ratio height : width.
Image crop_image(const Image& image, int height, int width);

/// Rotates counter-clockwise by `quarters` times 90 degrees, without loss.
Image rotate_image(const Image& image, int quarters);

}  // namespace kshot::io
