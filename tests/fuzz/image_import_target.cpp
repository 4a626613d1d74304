// Imports a zip archive of pictures with the import of images, up to the data file that it writes.
#include "fuzz/imported.h"

KSHOT_FUZZ_TARGET(image_import) {
  using namespace kshot::data;
  const std::uint8_t choice = kshot::fuzz::take_byte(&bytes);
  ImagesImport options;
  options.source = kshot::fuzz::input("p.zip", bytes);
  if ((choice & 1) != 0) options.height = options.width = 8;
  options.grey = (choice & 2) != 0;
  options.crop = (choice & 4) != 0;
  options.invert = (choice & 8) != 0;
  if ((choice & 16) != 0) options.splits.fractions = {1.0, 0.0, 0.0};
  kshot::fuzz::check_import(options, [&] { return import_images(options); });
}
