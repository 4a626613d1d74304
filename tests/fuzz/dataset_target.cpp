// Opens a data file, first as it is and then with a corrected checksum, so that the checks behind
// the checksum are reached too.
#include <zlib.h>

#include <cstring>

#include "fuzz/imported.h"

KSHOT_FUZZ_TARGET(dataset) {
  using namespace kshot;
  const auto open = [](std::string_view contents) {
    const auto file = fuzz::input("a.kshot", contents);
    fuzz::accepts("a.kshot", [&] { fuzz::read_all(*data::Dataset::open(file)); });
  };
  open(bytes);
  // The last 16 bytes are the checksum, the version and the closing mark.
  constexpr std::size_t tail = 16;
  if (bytes.size() < tail) return;
  std::string mended(bytes);
  const std::size_t body = mended.size() - tail;
  const auto sum =
      static_cast<std::uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(mended.data()), body));
  std::memcpy(mended.data() + body, &sum, sizeof sum);
  open(mended);
}
