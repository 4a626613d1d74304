// Reads a .npy file and converts its numbers.
#include "fuzz/target.h"
#include "io/npy.h"

KSHOT_FUZZ_TARGET(npy) {
  using namespace kshot;
  const auto file = fuzz::input("a.npy", bytes);
  io::NpyArray array;
  if (!fuzz::accepts("a.npy", [&] { array = io::read_npy(file); })) return;
  fuzz::require(array.bytes.size() == array.size() * io::item_size(array.dtype),
                "the bytes fit the shape");
  fuzz::accepts("a.npy", [&] { static_cast<void>(array.to_f64()); });
  fuzz::accepts("a.npy", [&] { static_cast<void>(array.to_f32()); });
  fuzz::accepts("a.npy", [&] { static_cast<void>(array.to_i64()); });
}
