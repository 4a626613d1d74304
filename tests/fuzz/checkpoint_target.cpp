// Reads a checkpoint: a safetensors file whose metadata hold a configuration and the state of the
// run. The input is the metadata: one entry "KEY=VALUE" for each part that ends with a zero byte.
#include "data/preprocessing.h"
#include "engine/checkpoint.h"
#include "fuzz/target.h"
#include "io/safetensors.h"

KSHOT_FUZZ_TARGET(checkpoint) {
  using namespace kshot;
  io::SafeTensors content;
  content.tensors["theta"] = io::Tensor::from(std::vector<float>{1.0f, 2.0f}, {2});
  while (!bytes.empty()) {
    const std::string_view part = bytes.substr(0, bytes.find('\0'));
    bytes.remove_prefix(std::min(bytes.size(), part.size() + 1));
    const auto equals = part.find('=');
    if (equals == std::string_view::npos) continue;
    content.metadata.emplace(part.substr(0, equals), part.substr(equals + 1));
  }
  const auto file = fuzz::input("last.safetensors", "");
  if (!fuzz::accepts("last.safetensors", [&] { io::write_safetensors(file, content); })) return;
  Checkpoint checkpoint;
  if (!fuzz::accepts("last.safetensors", [&] { checkpoint = Checkpoint::read(file); })) return;
  checkpoint.write(file);
  const Checkpoint again = Checkpoint::read(file);
  fuzz::require(again.config == checkpoint.config && again.state.step == checkpoint.state.step &&
                    again.source.shape.input.size() == checkpoint.source.shape.input.size(),
                "what was read is written and read back the same");
}
