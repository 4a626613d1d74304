#include <fmt/format.h>
#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstring>

#include "io/image_codec.h"
#include "kshot/error.h"

namespace kshot::io {
namespace {

/// The state of one decoding. It belongs to decode_png. The functions below hold no object with a
/// destructor, because libpng reports an error by a longjmp, which runs no destructors.
struct PngReading {
  std::string_view bytes;
  std::size_t position = 0;
  png_structp png = nullptr;
  png_infop info = nullptr;
  StoredImage image;
  std::vector<png_bytep> rows;
  std::uint32_t height = 0, width = 0;
  char message[200] = "out of memory";

  ~PngReading() { png_destroy_read_struct(&png, &info, nullptr); }
};

[[noreturn]] void png_stop(png_structp png, png_const_charp why) {
  auto* reading = static_cast<PngReading*>(png_get_error_ptr(png));
  std::strncpy(reading->message, why, sizeof reading->message - 1);
  png_longjmp(png, 1);
}

void png_ignore(png_structp /*png*/, png_const_charp /*why*/) {}

void png_bytes(png_structp png, png_bytep out, png_size_t size) {
  auto* reading = static_cast<PngReading*>(png_get_io_ptr(png));
  if (size > reading->bytes.size() - reading->position) png_error(png, "it is cut short");
  std::memcpy(out, reading->bytes.data() + reading->position, size);
  reading->position += size;
}

/// Requests 8-bit grey or RGB samples, with alpha where the file has transparency. libpng applies
/// gamma only on request.
void set_transforms(png_structp png, png_infop info) {
  const int colour = png_get_color_type(png, info);
  const int depth = png_get_bit_depth(png, info);
  if (colour == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
  if (colour == PNG_COLOR_TYPE_GRAY && depth < 8) png_set_expand_gray_1_2_4_to_8(png);
  if (png_get_valid(png, info, PNG_INFO_tRNS) != 0) png_set_tRNS_to_alpha(png);
  if (depth == 16) png_set_scale_16(png);
  png_set_interlace_handling(png);
}

/// Reads the file up to the pixels. Returns false where libpng found an error. No object with a
/// destructor may live in this function.
bool read_png_header(PngReading* reading) {
  reading->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, reading, png_stop, png_ignore);
  if (reading->png == nullptr) return false;
  reading->info = png_create_info_struct(reading->png);
  if (reading->info == nullptr || setjmp(png_jmpbuf(reading->png)) != 0) return false;
  png_set_user_limits(reading->png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);  // checked by the caller
  png_set_chunk_malloc_max(reading->png, png_alloc_size_t{1} << 24);
  png_set_benign_errors(reading->png, 1);
  png_set_read_fn(reading->png, reading, png_bytes);
  png_read_info(reading->png, reading->info);
  reading->height = png_get_image_height(reading->png, reading->info);
  reading->width = png_get_image_width(reading->png, reading->info);
  return true;
}

bool read_png_pixels(PngReading* reading) {
  if (setjmp(png_jmpbuf(reading->png)) != 0) return false;
  png_read_image(reading->png, reading->rows.data());
  png_read_end(reading->png, reading->info);  // an eXIf chunk may follow the pixels
  png_uint_32 size = 0;
  png_bytep exif = nullptr;
  if (png_get_eXIf_1(reading->png, reading->info, &size, &exif) != 0) {
    reading->image.orientation = exif_orientation({reinterpret_cast<const char*>(exif), size});
  }
  return true;
}

bool update_png_info(PngReading* reading) {
  if (setjmp(png_jmpbuf(reading->png)) != 0) return false;
  set_transforms(reading->png, reading->info);
  png_read_update_info(reading->png, reading->info);
  return true;
}

}  // namespace

StoredImage decode_png(std::string_view bytes, const std::string& name) {
  PngReading reading;
  reading.bytes = bytes;
  const auto fail = [&](const char* why) {
    return Error(fmt::format("{}: cannot read the PNG image ({})", name, why));
  };
  if (!read_png_header(&reading)) throw fail(reading.message);
  check_image_size(reading.height, reading.width, name);
  // Deflate expands one byte to at most 1032 bytes. A file that is too small for its pixels is
  // refused before memory is allocated.
  const std::size_t packed_row = png_get_rowbytes(reading.png, reading.info);
  if (packed_row / 1032 * reading.height > bytes.size()) throw fail("it is cut short");
  if (!update_png_info(&reading)) throw fail(reading.message);
  StoredImage& image = reading.image;
  image.channels = png_get_channels(reading.png, reading.info);
  image.height = static_cast<int>(reading.height);
  image.width = static_cast<int>(reading.width);
  const std::size_t row = png_get_rowbytes(reading.png, reading.info);
  image.pixels.resize(row * reading.height);
  for (std::size_t y = 0; y < reading.height; ++y) {
    reading.rows.push_back(image.pixels.data() + y * row);
  }
  if (!read_png_pixels(&reading)) throw fail(reading.message);
  return std::move(image);
}

}  // namespace kshot::io
