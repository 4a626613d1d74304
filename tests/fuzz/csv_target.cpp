// Parses CSV text, and converts its rows to features of a known table.
#include "data/preprocessing.h"
#include "fuzz/target.h"
#include "io/csv.h"

namespace {

using kshot::fuzz::require;
using namespace kshot::data;
using namespace kshot::io;

/// A table with a numeric column, a categorical column and a numeric target.
Preprocessing known_table(MissingRule missing) {
  Preprocessing known;
  known.kind = Preprocessing::Kind::table;
  known.columns.resize(2);
  known.columns[0].name = "age";
  known.columns[0].mean = 40.0;
  known.columns[0].std = 2.5;
  known.columns[1].name = "ward";
  known.columns[1].categories = {"north", "south"};
  known.targets = {{"score", 1.0, 2.0}};
  known.missing = missing;
  return known;
}

}  // namespace

KSHOT_FUZZ_TARGET(csv) {
  const std::uint8_t choice = kshot::fuzz::take_byte(&bytes);
  const char delimiter = ",\t; "[choice % 4];
  Table table;
  const std::string origin = "table.csv";
  if (!kshot::fuzz::accepts(origin, [&] { table = parse_csv(bytes, origin, delimiter); })) return;
  require(table.rows > 0 && !table.columns.empty(), "a table has rows and columns");
  for (std::size_t c = 0; c < table.columns.size(); ++c) {
    require(table.columns[c].text.size() == table.rows, "every column has all rows");
    for (std::size_t row = 0; row < table.rows; ++row) {
      require(!table.location(row).empty(), "every row has a place");
      static_cast<void>(table.missing(c, row));
      static_cast<void>(parse_number(table.cell(c, row)));
    }
  }
  const auto missing = static_cast<MissingRule>(choice / 4 % 3);
  kshot::fuzz::accepts(origin, [&] {
    const EncodedTable encoded = encode_table(known_table(missing), table, choice >= 128);
    require(encoded.x.size() == encoded.rows * 3, "every row has all features");
    require(encoded.source.size() == encoded.rows, "every row has a source");
  });
}
