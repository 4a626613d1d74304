#include "io/image.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/text.h"
#include "io/atomic_file.h"
#include "io/image_codec.h"
#include "kshot/error.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wsign-compare"
#define STB_IMAGE_RESIZE_STATIC
#define STB_IMAGE_RESIZE_IMPLEMENTATION
#include <stb/stb_image_resize.h>
#pragma GCC diagnostic pop

namespace kshot::io {
namespace {

constexpr std::size_t largest_side = 32768;
constexpr std::size_t largest_area = std::size_t{1} << 28;

/// Blends a pixel of `channels` samples, the last of them alpha, with a grey background `level`.
void blend_alpha(std::uint8_t* pixel, std::size_t channels, unsigned level) {
  const unsigned alpha = pixel[channels - 1];
  for (std::size_t c = 0; c + 1 < channels; ++c) {
    pixel[c] = static_cast<std::uint8_t>((pixel[c] * alpha + level * (255u - alpha) + 127u) / 255u);
  }
}

/// Luma of ITU-R 601-2 in 16-bit arithmetic, with Pillow's rounding.
std::uint8_t grey_level(const std::uint8_t* rgb) {
  return static_cast<std::uint8_t>((rgb[0] * 19595u + rgb[1] * 38470u + rgb[2] * 7471u + 0x8000u) >>
                                   16);
}

/// Converts to planes with the requested channels, and applies alpha. The orientation is not
/// applied.
Image planar(StoredImage* stored, int channels, Background background) {
  Image out{channels, stored->height, stored->width, {}};
  const auto depth = static_cast<std::size_t>(stored->channels);
  const std::size_t area = stored->pixels.size() / depth;
  const auto out_channels = static_cast<std::size_t>(channels);
  out.pixels.resize(area * out_channels);
  const bool alpha = depth == 2 || depth == 4;
  const bool colour = depth >= 3;
  for (std::size_t p = 0; p < area; ++p) {
    std::uint8_t* pixel = stored->pixels.data() + p * depth;
    if (alpha && pixel[depth - 1] != 255) {
      out.transparent = true;
      if (background != Background::stored) {
        blend_alpha(pixel, depth, background == Background::white ? 255 : 0);
      }
    }
    if (out_channels == 1) {
      out.pixels[p] = colour ? grey_level(pixel) : pixel[0];
    } else {
      for (std::size_t c = 0; c < out_channels; ++c)
        out.pixels[c * area + p] = pixel[colour ? c : 0];
    }
  }
  return out;
}

/// Rotates or mirrors an image by its EXIF orientation, so that it stands upright.
Image apply_orientation(Image image, int orientation) {
  if (orientation <= 1) return image;
  const bool swapped = orientation >= 5;
  const auto h = static_cast<std::size_t>(image.height);
  const auto w = static_cast<std::size_t>(image.width);
  Image out = image;
  if (swapped) std::swap(out.height, out.width);
  // Each new pixel is looked up among the stored ones. Orientations 5 to 8 exchange rows and
  // columns.
  const bool flip_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const bool flip_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const auto height = static_cast<std::size_t>(out.height);
  const auto width = static_cast<std::size_t>(out.width);
  for (std::size_t c = 0; c < static_cast<std::size_t>(image.channels); ++c) {
    for (std::size_t y = 0; y < height; ++y) {
      for (std::size_t x = 0; x < width; ++x) {
        std::size_t from_y = swapped ? x : y;
        std::size_t from_x = swapped ? y : x;
        if (flip_y) from_y = h - 1 - from_y;
        if (flip_x) from_x = w - 1 - from_x;
        out.pixels[(c * height + y) * width + x] = image.pixels[(c * h + from_y) * w + from_x];
      }
    }
  }
  return out;
}

}  // namespace

void check_image_size(std::size_t height, std::size_t width, const std::string& name) {
  if (height == 0 || width == 0 || height > largest_side || width > largest_side ||
      height * width > largest_area) {
    throw Error(
        fmt::format("{}: image of {} x {} pixels; expected sides of 1 to {} and at most {} "
                    "pixels",
                    name, width, height, largest_side, largest_area));
  }
}

bool is_image_name(std::string_view name) {
  const auto dot = name.rfind('.');
  if (dot == std::string_view::npos) return false;
  const std::string suffix = lower_case(name.substr(dot + 1));
  return suffix == "png" || suffix == "jpg" || suffix == "jpeg" || suffix == "jpe" ||
         suffix == "jfif";
}

Image decode_image(std::string_view bytes, int channels, const std::string& name,
                   Background background) {
  const bool png = bytes.starts_with("\x89PNG");
  if (!png && !bytes.starts_with("\xff\xd8")) {
    throw Error(fmt::format("{}: expected a PNG or JPEG image", name));
  }
  StoredImage stored = png ? decode_png(bytes, name) : decode_jpeg(bytes, name);
  return apply_orientation(planar(&stored, channels, background), stored.orientation);
}

Image read_image(const std::filesystem::path& file, int channels, Background background) {
  return decode_image(read_file(file), channels, file.string(), background);
}

Image resize_image(const Image& image, int height, int width) {
  if (image.height == height && image.width == width) return image;
  Image out{image.channels, height, width, {}};
  const auto plane = [](int h, int w) {
    return static_cast<std::size_t>(h) * static_cast<std::size_t>(w);
  };
  const std::size_t from = plane(image.height, image.width);
  const std::size_t to = plane(height, width);
  out.pixels.resize(to * static_cast<std::size_t>(image.channels));
  const bool shrinks = height <= image.height && width <= image.width;
  for (std::size_t c = 0; c < static_cast<std::size_t>(image.channels); ++c) {
    const int ok = stbir_resize_uint8_generic(
        image.pixels.data() + c * from, image.width, image.height, 0, out.pixels.data() + c * to,
        width, height, 0, 1, STBIR_ALPHA_CHANNEL_NONE, 0, STBIR_EDGE_CLAMP,
        shrinks ? STBIR_FILTER_BOX : STBIR_FILTER_DEFAULT, STBIR_COLORSPACE_LINEAR, nullptr);
    if (ok == 0) throw Error("not enough memory to resize an image");
  }
  return out;
}

Image crop_image(const Image& image, int height, int width) {
  // Largest h x w inside the image with h : w = height : width.
  const std::int64_t fit = static_cast<std::int64_t>(image.width) * height;
  const std::int64_t have = static_cast<std::int64_t>(image.height) * width;
  const int h = fit < have ? std::max(1, static_cast<int>(fit / width)) : image.height;
  const int w = fit < have ? image.width : std::max(1, static_cast<int>(have / height));
  if (h == image.height && w == image.width) return image;
  const int top = (image.height - h) / 2;
  const int left = (image.width - w) / 2;
  Image out{image.channels, h, w, {}};
  out.pixels.reserve(static_cast<std::size_t>(image.channels) * static_cast<std::size_t>(h) *
                     static_cast<std::size_t>(w));
  for (int c = 0; c < image.channels; ++c) {
    for (int y = 0; y < h; ++y) {
      const auto row =
          image.pixels.begin() +
          ((static_cast<std::ptrdiff_t>(c) * image.height + top + y) * image.width + left);
      out.pixels.insert(out.pixels.end(), row, row + w);
    }
  }
  return out;
}

Image rotate_image(const Image& image, int quarters) {
  Image out = image;
  for (int turn = 0; turn < (quarters % 4 + 4) % 4; ++turn) {
    Image next{out.channels, out.width, out.height, {}};
    next.pixels.resize(out.pixels.size());
    const auto h = static_cast<std::size_t>(out.height);
    const auto w = static_cast<std::size_t>(out.width);
    for (std::size_t c = 0; c < static_cast<std::size_t>(out.channels); ++c) {
      for (std::size_t y = 0; y < h; ++y) {
        for (std::size_t x = 0; x < w; ++x) {
          next.pixels[c * h * w + (w - 1 - x) * h + y] = out.pixels[(c * h + y) * w + x];
        }
      }
    }
    out = std::move(next);
  }
  return out;
}

}  // namespace kshot::io
