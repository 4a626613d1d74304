// Parses the description of a preprocessing, as in a data file or a checkpoint, and writes it
// again.
#include "data/preprocessing.h"
#include "fuzz/target.h"

KSHOT_FUZZ_TARGET(preprocessing) {
  using namespace kshot;
  data::Preprocessing read;
  if (!fuzz::accepts("a.kshot", [&] { read = data::Preprocessing::from_json(bytes, "a.kshot"); })) {
    return;
  }
  const std::string written = read.to_json();
  fuzz::require(data::Preprocessing::from_json(written, "again.kshot").to_json() == written,
                "what was read is written and read back the same");
}
