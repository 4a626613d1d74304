// A data file, as it is and with the checksum set right: what lies behind it must hold too.
#include <zlib.h>

#include <cstring>

#include "fuzz/imported.h"

KSHOT_FUZZ_TARGET(dataset) {
  using namespace kshot;
  const auto open = [](std::string_view contents) {
    const auto file = fuzz::input("a.kshot", contents);
    fuzz::accepts("a.kshot", [&] { fuzz::read_all(*io::Dataset::open(file)); });
  };
  open(bytes);
  // the last 16 bytes: checksum, version, closing mark
  constexpr std::size_t tail = 16;
  if (bytes.size() < tail) return;
  std::string mended(bytes);
  const std::size_t body = mended.size() - tail;
  const auto sum =
      static_cast<std::uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(mended.data()), body));
  std::memcpy(mended.data() + body, &sum, sizeof sum);
  open(mended);
}
