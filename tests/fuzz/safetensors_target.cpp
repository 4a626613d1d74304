// Reads a safetensors file and writes it again.
#include "fuzz/target.h"
#include "io/safetensors.h"

KSHOT_FUZZ_TARGET(safetensors) {
  using namespace kshot;
  const auto file = fuzz::input("a.safetensors", bytes);
  io::SafeTensors read;
  if (!fuzz::accepts("a.safetensors", [&] { read = io::read_safetensors(file); })) return;
  const auto copy = file.parent_path() / "copy.safetensors";
  io::write_safetensors(copy, read);
  const io::SafeTensors again = io::read_safetensors(copy);
  fuzz::require(again.metadata == read.metadata && again.tensors == read.tensors,
                "what was read is written and read back the same");
}
