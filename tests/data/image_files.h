// PNG and JPEG files of the less usual kinds, for the tests of image reading.
#pragma once

#include <png.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include <jpeglib.h>

#include "data/files.h"

namespace kshot::test {

/// EXIF data: a TIFF block whose only entry is the orientation.
inline std::string exif_block(int orientation, bool little = true) {
  const char value = static_cast<char>(orientation);
  return little ? std::string("II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0", 18) + value +
                      std::string(7, '\0')
                : std::string("MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0", 19) + value +
                      std::string(6, '\0');
}

/// The description of a PNG file. `rows` holds the stored bytes of all rows, without filters.
struct RawPng {
  int height = 1, width = 1;
  int colour = PNG_COLOR_TYPE_GRAY, depth = 8;
  std::vector<std::uint8_t> rows{};
  std::vector<png_color> palette{};
  std::vector<std::uint8_t> palette_alpha{};
  int transparent_grey = -1;
  double gamma = 0.0;  ///< Zero means no gAMA chunk.
  bool interlaced = false;
  std::string exif{};
};

inline std::string raw_png(RawPng image) {
  std::string out;
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  png_set_write_fn(
      png, &out,
      [](png_structp p, png_bytep data, png_size_t n) {
        static_cast<std::string*>(png_get_io_ptr(p))->append(reinterpret_cast<char*>(data), n);
      },
      nullptr);
  png_set_IHDR(png, info, static_cast<png_uint_32>(image.width),
               static_cast<png_uint_32>(image.height), image.depth, image.colour,
               image.interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  if (!image.palette.empty()) {
    png_set_PLTE(png, info, image.palette.data(), static_cast<int>(image.palette.size()));
  }
  png_color_16 clear{};
  clear.gray = static_cast<png_uint_16>(image.transparent_grey);
  if (!image.palette_alpha.empty()) {
    png_set_tRNS(png, info, image.palette_alpha.data(),
                 static_cast<int>(image.palette_alpha.size()), nullptr);
  } else if (image.transparent_grey >= 0) {
    png_set_tRNS(png, info, nullptr, 0, &clear);
  }
  if (image.gamma > 0) png_set_gAMA(png, info, image.gamma);
  if (!image.exif.empty()) {
    png_set_eXIf_1(png, info, static_cast<png_uint_32>(image.exif.size()),
                   reinterpret_cast<png_bytep>(image.exif.data()));
  }
  png_write_info(png, info);
  std::vector<png_bytep> rows;
  const std::size_t row = image.rows.size() / static_cast<std::size_t>(image.height);
  for (int y = 0; y < image.height; ++y) {
    rows.push_back(image.rows.data() + static_cast<std::size_t>(y) * row);
  }
  png_write_image(png, rows.data());
  png_write_end(png, info);
  png_destroy_write_struct(&png, &info);
  return out;
}

/// The description of a JPEG file. It is stored at quality 100 without subsampling, so that few
/// values change.
struct RawJpeg {
  Picture picture;
  /// The colour space of the pixels.
  J_COLOR_SPACE space = JCS_RGB;
  /// The colour space of the file.
  J_COLOR_SPACE stored = JCS_YCbCr;
  bool progressive = false;
  std::string exif{};
};

inline std::string raw_jpeg(RawJpeg image) {
  jpeg_compress_struct info;
  jpeg_error_mgr errors;
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &bytes, &size);
  info.image_width = static_cast<JDIMENSION>(image.picture.width);
  info.image_height = static_cast<JDIMENSION>(image.picture.height);
  info.input_components = image.picture.channels;
  info.in_color_space = image.space;
  jpeg_set_defaults(&info);
  jpeg_set_colorspace(&info, image.stored);
  jpeg_set_quality(&info, 100, TRUE);
  for (int c = 0; c < info.num_components; ++c) {
    info.comp_info[c].h_samp_factor = info.comp_info[c].v_samp_factor = 1;
  }
  if (image.progressive) jpeg_simple_progression(&info);
  jpeg_start_compress(&info, TRUE);
  if (!image.exif.empty()) {
    const std::string data = std::string("Exif\0\0", 6) + image.exif;
    jpeg_write_marker(&info, JPEG_APP0 + 1, reinterpret_cast<const JOCTET*>(data.data()),
                      static_cast<unsigned>(data.size()));
  }
  while (info.next_scanline < info.image_height) {
    JSAMPROW row = image.picture.pixels.data() +
                   static_cast<std::size_t>(info.next_scanline) *
                       static_cast<std::size_t>(image.picture.width * image.picture.channels);
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  std::string out(reinterpret_cast<char*>(bytes), size);
  jpeg_destroy_compress(&info);
  std::free(bytes);
  return out;
}

}  // namespace kshot::test
