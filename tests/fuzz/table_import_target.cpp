// Imports a CSV file with the import of tables, up to the data file that it writes.
#include "fuzz/imported.h"

KSHOT_FUZZ_TARGET(table_import) {
  using namespace kshot::data;
  const std::uint8_t choice = kshot::fuzz::take_byte(&bytes);
  TableImport options;
  options.source = kshot::fuzz::input("table.csv", bytes).string();
  options.task = (choice & 1) != 0 ? "" : "patient";
  options.targets = {"score"};
  options.classification = (choice & 2) != 0;
  if ((choice & 4) != 0) options.split_column = "split";
  if ((choice & 8) != 0) options.categorical = {"ward"};
  options.missing = static_cast<MissingRule>(choice / 16 % 3);
  options.raw_targets = (choice & 64) != 0;
  if ((choice & 128) != 0) options.splits.fractions = {1.0, 0.0, 0.0};
  kshot::fuzz::check_import(options, [&] { return import_table(options); });
}
