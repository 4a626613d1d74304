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
};

/// True for a name that ends in .png, .jpg or .jpeg, in any case.
bool is_image_name(std::string_view name);

/// Decodes a PNG or JPEG file (told apart by its first bytes) to 1 (grey) or 3 (RGB) channels;
/// transparent parts are laid on white. Throws Error that begins with `name` for anything that is
/// not a whole image.
Image decode_image(std::string_view bytes, int channels, const std::string& name);
Image read_image(const std::filesystem::path& file, int channels);

/// Area average where both sides shrink, Catmull-Rom or Mitchell else. Aspect ratio is not kept.
Image resize_image(const Image& image, int height, int width);

/// Centre part of the largest size with the aspect ratio height : width.
Image crop_image(const Image& image, int height, int width);

/// Counter-clockwise by 90 degrees, `quarters` times; lossless.
Image rotate_image(const Image& image, int quarters);

}  // namespace kshot::io
