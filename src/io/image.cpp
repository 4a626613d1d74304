#include "io/image.h"

#include <fmt/format.h>
#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstdio>  // jpeglib.h needs it
#include <cstring>
#include <utility>

#include <jerror.h>
#include <jpeglib.h>

#include "io/atomic_file.h"
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

/// Larger ones are damage or an attack on memory rather than examples.
constexpr std::size_t largest_side = 32768;

Image planar(const std::vector<std::uint8_t>& interleaved, int channels, int height, int width) {
  Image out{channels, height, width, {}};
  out.pixels.resize(interleaved.size());
  const std::size_t area = static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
  const auto depth = static_cast<std::size_t>(channels);
  for (std::size_t c = 0; c < depth; ++c) {
    for (std::size_t p = 0; p < area; ++p) out.pixels[c * area + p] = interleaved[p * depth + c];
  }
  return out;
}

void check_sides(std::size_t height, std::size_t width, const std::string& name) {
  if (height == 0 || width == 0 || height > largest_side || width > largest_side) {
    throw Error(fmt::format("{}: image of {} x {} pixels; expected sides of 1 to {}", name, width,
                            height, largest_side));
  }
}

Image decode_png(std::string_view bytes, int channels, const std::string& name) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  const auto fail = [&] {
    std::string why = png.message;
    png_image_free(&png);
    return Error(fmt::format("{}: cannot read the PNG image ({})", name, why));
  };
  if (png_image_begin_read_from_memory(&png, bytes.data(), bytes.size()) == 0) throw fail();
  png.format = channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  try {
    check_sides(png.height, png.width, name);
    std::vector<std::uint8_t> pixels(PNG_IMAGE_SIZE(png));
    const png_color white{255, 255, 255};
    if (png_image_finish_read(&png, &white, pixels.data(), 0, nullptr) == 0) throw fail();
    return planar(pixels, channels, static_cast<int>(png.height), static_cast<int>(png.width));
  } catch (...) {
    png_image_free(&png);
    throw;
  }
}

struct JpegErrors {
  jpeg_error_mgr base;
  std::jmp_buf back;
  char message[JMSG_LENGTH_MAX];
};

[[noreturn]] void jpeg_stop(j_common_ptr info) {
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  info->err->format_message(info, errors->message);
  std::longjmp(errors->back, 1);
}

/// Warnings that mean missing data are errors here; others (stray bytes) are common and harmless.
void jpeg_note(j_common_ptr info, int level) {
  if (level >= 0) return;
  const int code = info->err->msg_code;
  if (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER) jpeg_stop(info);
}

/// No object with a destructor lives across the longjmp: pixels belong to the caller.
bool jpeg_to(std::string_view bytes, int channels, JpegErrors* errors, bool* too_large,
             std::vector<std::uint8_t>* pixels, int* height, int* width) {
  jpeg_decompress_struct info;
  info.err = jpeg_std_error(&errors->base);
  errors->base.error_exit = jpeg_stop;
  errors->base.emit_message = jpeg_note;
  if (setjmp(errors->back) != 0) {
    jpeg_destroy_decompress(&info);
    return false;
  }
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  jpeg_read_header(&info, TRUE);
  *height = static_cast<int>(info.image_height);
  *width = static_cast<int>(info.image_width);
  if (info.image_height > largest_side || info.image_width > largest_side) {
    *too_large = true;
    jpeg_destroy_decompress(&info);
    return false;
  }
  info.out_color_space = channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_start_decompress(&info);
  const std::size_t stride = static_cast<std::size_t>(info.output_width) *
                             static_cast<std::size_t>(info.output_components);
  pixels->resize(stride * info.output_height);
  while (info.output_scanline < info.output_height) {
    JSAMPROW row = pixels->data() + stride * info.output_scanline;
    jpeg_read_scanlines(&info, &row, 1);
  }
  jpeg_finish_decompress(&info);
  jpeg_destroy_decompress(&info);
  return true;
}

Image decode_jpeg(std::string_view bytes, int channels, const std::string& name) {
  JpegErrors errors{};
  bool too_large = false;
  std::vector<std::uint8_t> pixels;
  int height = 0;
  int width = 0;
  if (!jpeg_to(bytes, channels, &errors, &too_large, &pixels, &height, &width)) {
    if (too_large) {
      check_sides(static_cast<std::size_t>(height), static_cast<std::size_t>(width), name);
    }
    throw Error(fmt::format("{}: cannot read the JPEG image ({})", name, errors.message));
  }
  return planar(pixels, channels, height, width);
}

}  // namespace

bool is_image_name(std::string_view name) {
  const auto dot = name.rfind('.');
  if (dot == std::string_view::npos) return false;
  std::string suffix(name.substr(dot + 1));
  std::ranges::transform(suffix, suffix.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return suffix == "png" || suffix == "jpg" || suffix == "jpeg";
}

Image decode_image(std::string_view bytes, int channels, const std::string& name) {
  if (bytes.starts_with("\x89PNG")) return decode_png(bytes, channels, name);
  if (bytes.starts_with("\xff\xd8")) return decode_jpeg(bytes, channels, name);
  throw Error(fmt::format("{}: expected a PNG or JPEG image", name));
}

Image read_image(const std::filesystem::path& file, int channels) {
  return decode_image(read_file(file), channels, file.string());
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
  // Largest h x w inside with h : w = height : width.
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
