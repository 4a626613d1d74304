// Parses the description of a preprocessing, as in a data file or a checkpoint, and writes it
// again.
#include "fuzz/target.h"
#include "io/preprocessing.h"

KSHOT_FUZZ_TARGET(preprocessing) {
  using namespace kshot;
  io::Preprocessing read;
  if (!fuzz::accepts("a.kshot", [&] { read = io::Preprocessing::from_json(bytes, "a.kshot"); })) {
    return;
  }
  const std::string written = read.to_json();
  fuzz::require(io::Preprocessing::from_json(written, "again.kshot").to_json() == written,
                "what was read is written and read back the same");
}
