// Decodes a PNG or JPEG picture, then crops, resizes and rotates it.
#include "fuzz/target.h"
#include "io/image.h"

KSHOT_FUZZ_TARGET(image) {
  using namespace kshot;
  const std::uint8_t choice = fuzz::take_byte(&bytes);
  const int channels = choice % 2 == 0 ? 1 : 3;
  const auto whole = [&](const io::Image& image) {
    fuzz::require(image.channels == channels && image.height > 0 && image.width > 0 &&
                      image.pixels.size() == static_cast<std::size_t>(image.channels) *
                                                 static_cast<std::size_t>(image.height) *
                                                 static_cast<std::size_t>(image.width),
                  "an image has all its pixels");
  };
  io::Image image;
  if (!fuzz::accepts("p.png", [&] { image = io::decode_image(bytes, channels, "p.png"); })) return;
  whole(image);
  if (image.pixels.size() > (std::size_t{1} << 20)) return;  // The rest only takes time.
  whole(io::crop_image(image, 1 + choice / 2 % 8, 1 + choice / 16));
  whole(io::rotate_image(image, choice));
  whole(io::resize_image(image, 1 + choice % 16, 1 + choice / 16));
}
