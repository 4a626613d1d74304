// Reads run.json as a report does.
#include "fuzz/target.h"
#include "report/run_records.h"

KSHOT_FUZZ_TARGET(run_record) {
  using namespace kshot;
  const auto file = fuzz::input("run.json", bytes);
  fuzz::accepts("run.json", [&] { static_cast<void>(report::environment(file.parent_path())); });
}
