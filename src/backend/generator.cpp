#include "backend/generator.h"

#include <fmt/format.h>

#include "kshot/error.h"

namespace kshot::backend {

void GeneratorSpec::check_group(std::size_t group, std::size_t rows) const {
  const auto wanted = static_cast<std::size_t>(latents);
  if (rows > 0 && (!latent_per_row || rows == wanted)) return;
  throw Error(fmt::format(
      "class {} of a task has {} support rows, expected {}", group, rows,
      latent_per_row ? fmt::format("{} as every class (leo.latents = \"per_example\")", wanted)
                     : "at least 1"));
}

}  // namespace kshot::backend
