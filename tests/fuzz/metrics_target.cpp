// Reads metrics.jsonl for a report, cuts it for a resume, and continues it.
#include <nlohmann/json.hpp>

#include "fuzz/target.h"
#include "io/json_lines.h"
#include "report/run_records.h"

KSHOT_FUZZ_TARGET(metrics) {
  using namespace kshot;
  const auto file = fuzz::input("metrics.jsonl", bytes);
  const auto read = [&] { static_cast<void>(report::training_curves(file, "a run")); };
  fuzz::accepts("metrics.jsonl", read);
  if (!fuzz::accepts("metrics.jsonl", [&] { io::truncate_after(file, 100); })) return;
  io::JsonLinesWriter(file).append({{"step", 101}});
  fuzz::require(!io::read_json_lines(file).empty(), "a record that was appended is there");
}
