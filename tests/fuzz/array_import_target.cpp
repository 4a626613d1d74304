// Imports a .npz archive with the import of arrays, up to the data file that it writes.
#include "fuzz/imported.h"

KSHOT_FUZZ_TARGET(array_import) {
  using namespace kshot::data;
  const std::uint8_t choice = kshot::fuzz::take_byte(&bytes);
  ArraysImport options;
  options.source = kshot::fuzz::input("a.npz", bytes).string();
  options.layout = static_cast<ArrayLayout>(choice % 3);
  options.standardise = (choice & 4) != 0;
  if ((choice & 8) != 0) options.splits.fractions = {1.0, 0.0, 0.0};
  kshot::fuzz::check_import(options, [&] { return import_arrays(options); });
}
