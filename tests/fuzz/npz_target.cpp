// Reads a .npz archive.
#include "fuzz/target.h"
#include "io/npy.h"

KSHOT_FUZZ_TARGET(npz) {
  using namespace kshot;
  const auto file = fuzz::input("a.npz", bytes);
  fuzz::accepts("a.npz", [&] {
    for (const auto& [name, array] : io::read_npz(file)) {
      fuzz::require(array.bytes.size() == array.size() * io::item_size(array.dtype),
                    "the bytes fit the shape");
    }
  });
}
