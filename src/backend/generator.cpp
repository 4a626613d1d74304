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

void Generator::loss_gradient(const SharedVector& theta, const Latents& at, const Wave::Pass& pass,
                              Block g_z) {
  if (!g_weights_) g_weights_ = wave_.weights();
  Latents latents = at;
  latents.again = false;
  decode(theta, latents, pass.weights);
  wave_.gradient(pass, g_weights_, false, {});
  latents.again = true;
  decode_pullback(theta, latents, g_weights_, g_z, {});
}

void Generator::loss_hessian_vector(const SharedVector& theta, const Latents& at,
                                    const Wave::Pass& pass, Block z_dot, Block h_z, double a,
                                    Block h_theta) {
  for (Block* b : {&g_weights_, &weights_dot_, &h_weights_}) {
    if (!*b) *b = wave_.weights();
  }
  Latents latents = at;
  latents.again = false;
  decode_tangent(theta, latents, z_dot, weights_dot_);
  wave_.hessian_vector(pass, weights_dot_, h_weights_, false, g_weights_);
  latents.again = true;
  decode_pullback_tangent(theta, latents, z_dot, g_weights_, h_weights_, h_z, a, h_theta);
}

}  // namespace kshot::backend
