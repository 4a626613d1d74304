// Opens a task store, first as it is and then with a corrected checksum of its header. A store that
// opens can be read and written, whatever it holds.
#include <cstring>

#include "fuzz/target.h"
#include "io/crc32c.h"
#include "io/row_store.h"

namespace {

constexpr std::uint64_t rows = 3;
constexpr std::size_t row_bytes = 40;

void open(std::string_view contents) {
  using namespace kshot;
  const auto file = fuzz::input("tasks.store", contents);
  fuzz::accepts("tasks.store", [&] {
    const auto store = io::RowStore::open(file, rows, row_bytes, "run a", 5);
    const std::string written(row_bytes, 'x');
    for (std::uint64_t row = 0; row < rows; ++row) {
      const io::RowStore::State before = store->newest(row);
      fuzz::require(before.step <= 5, "states after the checkpoint are forgotten");
      fuzz::require(before.data.size() == (before.step == 0 ? 0 : row_bytes), "a state is a row");
      const std::string kept(reinterpret_cast<const char*>(before.data.data()), before.data.size());
      store->write(row, 6, std::as_bytes(std::span(written)));
      fuzz::require(store->newest(row).step == 6, "the newest state is the one written last");
      fuzz::require(kept.empty() || std::memcmp(before.data.data(), kept.data(), kept.size()) == 0,
                    "the state of the checkpoint stays");
    }
    store->sync();
    store->commit(6);
  });
}

}  // namespace

KSHOT_FUZZ_TARGET(row_store) {
  open(bytes);
  // Offsets in the header: the checksum is at 12 and covers the bytes from 16 up to `committed`.
  constexpr std::size_t begin = 16, end = 16 + 8 + 8 + 4 + 4 + 3072;
  if (bytes.size() < end) return;
  std::string mended(bytes);
  const std::uint32_t sum = kshot::io::crc32c(bytes.substr(begin, end - begin));
  std::memcpy(mended.data() + 12, &sum, sizeof sum);
  open(mended);
}
