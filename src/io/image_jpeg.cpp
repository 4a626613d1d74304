#include <fmt/format.h>

#include <algorithm>
#include <csetjmp>
#include <cstdio>  // jpeglib.h needs it
#include <cstring>

#include <jerror.h>
#include <jpeglib.h>

#include "io/image_codec.h"
#include "kshot/error.h"

namespace kshot::io {
namespace {

/// The state of one decoding. It belongs to the caller, because libjpeg reports an error by a
/// longjmp, which runs no destructors.
struct JpegReading {
  jpeg_decompress_struct info{};
  jpeg_error_mgr errors{};
  std::jmp_buf back;
  char message[JMSG_LENGTH_MAX] = "";
  StoredImage image;

  ~JpegReading() { jpeg_destroy_decompress(&info); }
};

[[noreturn]] void jpeg_stop(j_common_ptr info) {
  auto* reading = static_cast<JpegReading*>(info->client_data);
  info->err->format_message(info, reading->message);
  std::longjmp(reading->back, 1);
}

/// Turns warnings that mean missing data into errors. Other warnings (stray bytes) are common and
/// harmless.
void jpeg_note(j_common_ptr info, int level) {
  if (level >= 0) return;
  const int code = info->err->msg_code;
  if (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER) jpeg_stop(info);
}

bool read_jpeg_header(JpegReading* reading, std::string_view bytes) {
  jpeg_decompress_struct& info = reading->info;
  info.err = jpeg_std_error(&reading->errors);
  info.client_data = reading;
  reading->errors.error_exit = jpeg_stop;
  reading->errors.emit_message = jpeg_note;
  if (setjmp(reading->back) != 0) return false;
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  jpeg_save_markers(&info, JPEG_APP0 + 1, 0xffff);  // EXIF data
  jpeg_read_header(&info, TRUE);
  return true;
}

bool read_jpeg_pixels(JpegReading* reading) {
  jpeg_decompress_struct& info = reading->info;
  if (setjmp(reading->back) != 0) return false;
  jpeg_start_decompress(&info);
  const std::size_t row_bytes = static_cast<std::size_t>(info.output_width) *
                                static_cast<std::size_t>(info.output_components);
  while (info.output_scanline < info.output_height) {
    JSAMPROW row = reading->image.pixels.data() + row_bytes * info.output_scanline;
    jpeg_read_scanlines(&info, &row, 1);
  }
  jpeg_finish_decompress(&info);
  return true;
}

int jpeg_orientation(const jpeg_decompress_struct& info) {
  for (auto* marker = info.marker_list; marker != nullptr; marker = marker->next) {
    const std::string_view data(reinterpret_cast<const char*>(marker->data), marker->data_length);
    constexpr std::string_view exif("Exif\0\0", 6);
    if (data.starts_with(exif)) return exif_orientation(data.substr(exif.size()));
  }
  return 1;
}

/// Converts CMYK [pixels, 4] to RGB [pixels, 3]. The inks are stored inverted (255 means no ink), a
/// convention of Adobe that every program follows. The rounding is Pillow's.
std::vector<std::uint8_t> rgb_of_cmyk(const std::vector<std::uint8_t>& inks) {
  std::vector<std::uint8_t> out;
  out.reserve(inks.size() / 4 * 3);
  for (std::size_t p = 0; p + 3 < inks.size(); p += 4) {
    const unsigned light = inks[p + 3];  // the light that the black ink leaves
    for (std::size_t c = 0; c < 3; ++c) {
      const unsigned product = (255u - inks[p + c]) * light + 128u;
      out.push_back(static_cast<std::uint8_t>(light - ((product >> 8) + product) / 256u));
    }
  }
  return out;
}

}  // namespace

StoredImage decode_jpeg(std::string_view bytes, const std::string& name) {
  JpegReading reading;
  const auto fail = [&](const std::string& why) {
    return Error(fmt::format("{}: cannot read the JPEG image ({})", name, why));
  };
  if (!read_jpeg_header(&reading, bytes)) throw fail(reading.message);
  jpeg_decompress_struct& info = reading.info;
  check_image_size(info.image_height, info.image_width, name);
  // Huffman coding takes at least one bit per block of 8 x 8 samples, and arithmetic coding a small
  // part of a bit. A file that is too small for its pixels is refused before memory is allocated.
  const std::size_t blocks = static_cast<std::size_t>(info.image_height) * info.image_width / 64;
  const std::size_t per_byte = info.arith_code != 0 ? 512 : 8;
  if (blocks / per_byte > bytes.size()) throw fail("it is cut short");
  const int stored = info.num_components;
  if (stored != 1 && stored != 3 && stored != 4) {
    throw fail(fmt::format("{} components; expected 1 (grey), 3 (colour) or 4 (CMYK)", stored));
  }
  info.out_color_space = stored == 1 ? JCS_GRAYSCALE : stored == 3 ? JCS_RGB : JCS_CMYK;
  StoredImage& image = reading.image;
  image.channels = stored == 4 ? 3 : stored;
  image.height = static_cast<int>(info.image_height);
  image.width = static_cast<int>(info.image_width);
  image.orientation = jpeg_orientation(info);
  image.pixels.resize(static_cast<std::size_t>(info.image_height) *
                      static_cast<std::size_t>(info.image_width) *
                      static_cast<std::size_t>(stored));
  if (!read_jpeg_pixels(&reading)) throw fail(reading.message);
  if (stored == 4) image.pixels = rgb_of_cmyk(image.pixels);
  return std::move(image);
}

}  // namespace kshot::io
