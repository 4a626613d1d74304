// Reads evaluation.json as `report` and `compare` do.
#include "fuzz/target.h"
#include "kshot/evaluator.h"

KSHOT_FUZZ_TARGET(evaluation) {
  using namespace kshot;
  Evaluation read;
  const std::string text(bytes);
  if (!fuzz::accepts("e.json", [&] { read = Evaluation::from_json(text, "e.json"); })) return;
  fuzz::require(!read.table().empty(), "an evaluation has a table");
  const std::string written = read.to_json();
  fuzz::require(Evaluation::from_json(written, "again.json").to_json() == written,
                "what was read is written and read back the same");
}
