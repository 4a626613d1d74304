#include "backend/generator.h"

#include <fmt/format.h>

#include <stdexcept>

#include "kshot/error.h"

namespace kshot::backend {

void GeneratorSpec::check_group(std::size_t group, std::size_t rows) const {
  const auto expected = static_cast<std::size_t>(latents);
  if (rows > 0 && (!latent_per_row || rows == expected)) return;
  throw Error(fmt::format(
      "class {} of a task has {} support rows, expected {}", group, rows,
      latent_per_row ? fmt::format("{} as every class (leo.latents = \"per_example\")", expected)
                     : "at least 1"));
}

// ---- checks ----

Generator::Generator(Wave& wave, const GeneratorSpec& spec)
    : wave_(wave), theta_width_(spec.size()) {
  const std::size_t groups = wave.network().size() / spec.weights();
  const std::size_t latents = groups * static_cast<std::size_t>(spec.latents);
  statistics_width_ = groups * 2 * spec.latent();
  latents_width_ = latents * spec.latent();
  noise_width_ = latents * spec.weights();
}

void Generator::require_theta(const char* operation, const SharedVector& theta) const {
  if (theta.size() >= theta_width_) return;
  throw std::logic_error(fmt::format("{}: a shared vector of {}, expected at least {}", operation,
                                     theta.size(), theta_width_));
}

void Generator::require_gradient(const char* operation, Block g_theta) const {
  if (!g_theta || wave_.width(g_theta) >= theta_width_) return;
  throw std::logic_error(fmt::format("{}: a gradient of width {}, expected at least {}", operation,
                                     wave_.width(g_theta), theta_width_));
}

void Generator::require_statistics(const char* operation,
                                   std::initializer_list<Block> blocks) const {
  for (const Block block : blocks) wave_.require_width(operation, block, statistics_width_);
}

void Generator::require_latents(const char* operation, std::initializer_list<Block> blocks) const {
  for (const Block block : blocks) {
    if (block) wave_.require_width(operation, block, latents_width_);
  }
}

void Generator::require_decoding(const char* operation, const SharedVector& theta,
                                 const Latents& latents, std::initializer_list<Block> latent_blocks,
                                 std::initializer_list<Block> weights, Block g_theta) const {
  require_theta(operation, theta);
  wave_.require_width(operation, latents.z, latents_width_);
  if (latents.eps) wave_.require_width(operation, latents.eps, noise_width_);
  require_latents(operation, latent_blocks);
  wave_.require_weights(operation, weights);
  require_gradient(operation, g_theta);
}

// ---- operations ----

Block Generator::gradients(std::size_t width) {
  if (width < theta_width_) {
    throw std::logic_error(
        fmt::format("gradients: width {}, expected at least {}", width, theta_width_));
  }
  return do_gradients(width);
}

void Generator::encode(const SharedVector& theta, const Dropout& dropout, Block statistics) {
  require_theta("encode", theta);
  require_statistics("encode", {statistics});
  do_encode(theta, dropout, statistics);
}

void Generator::encode_pullback(const SharedVector& theta, const Dropout& dropout,
                                Block g_statistics, Block g_theta) {
  require_theta("encode_pullback", theta);
  require_statistics("encode_pullback", {g_statistics});
  require_gradient("encode_pullback", g_theta);
  do_encode_pullback(theta, dropout, g_statistics, g_theta);
}

void Generator::sample(Block z, Block statistics, Block eps) {
  require_statistics("sample", {statistics});
  require_latents("sample", {z, eps});
  do_sample(z, statistics, eps);
}

void Generator::sample_pullback(Block g_statistics, Block statistics, Block eps, Block g_z) {
  require_statistics("sample_pullback", {g_statistics, statistics});
  require_latents("sample_pullback", {eps, g_z});
  do_sample_pullback(g_statistics, statistics, eps, g_z);
}

void Generator::kl(Kl kind, double weight, Block statistics, Block z, Block eps, Block value,
                   Block g_statistics) {
  require_statistics("kl", {statistics});
  if (g_statistics) require_statistics("kl", {g_statistics});
  require_latents("kl", {z, eps});
  if (value) wave_.require_width("kl", value, 1);
  do_kl(kind, weight, statistics, z, eps, value, g_statistics);
}

void Generator::decode(const SharedVector& theta, const Latents& latents, Block weights) {
  require_decoding("decode", theta, latents, {}, {weights}, {});
  do_decode(theta, latents, weights);
}

void Generator::decode_pullback(const SharedVector& theta, const Latents& latents, Block g_weights,
                                Block g_z, Block g_theta) {
  require_decoding("decode_pullback", theta, latents, {g_z}, {g_weights}, g_theta);
  do_decode_pullback(theta, latents, g_weights, g_z, g_theta);
}

void Generator::decode_tangent(const SharedVector& theta, const Latents& latents, Block z_dot,
                               Block weights_dot) {
  require_decoding("decode_tangent", theta, latents, {z_dot}, {weights_dot}, {});
  do_decode_tangent(theta, latents, z_dot, weights_dot);
}

void Generator::decode_pullback_tangent(const SharedVector& theta, const Latents& latents,
                                        Block z_dot, Block g_weights, Block g_weights_dot,
                                        Block h_z, double a, Block h_theta) {
  require_decoding("decode_pullback_tangent", theta, latents, {z_dot, h_z},
                   {g_weights, g_weights_dot}, h_theta);
  do_decode_pullback_tangent(theta, latents, z_dot, g_weights, g_weights_dot, h_z, a, h_theta);
}

void Generator::loss_gradient(const SharedVector& theta, const Latents& latents,
                              const Wave::Pass& pass, Block g_z) {
  require_decoding("loss_gradient", theta, latents, {g_z}, {pass.weights}, {});
  do_loss_gradient(theta, latents, pass, g_z);
}

void Generator::loss_hessian_vector(const SharedVector& theta, const Latents& latents,
                                    const Wave::Pass& pass, Block z_dot, Block h_z, double a,
                                    Block h_theta) {
  require_decoding("loss_hessian_vector", theta, latents, {z_dot, h_z}, {pass.weights}, h_theta);
  do_loss_hessian_vector(theta, latents, pass, z_dot, h_z, a, h_theta);
}

// ---- composed of the others ----

void Generator::do_loss_gradient(const SharedVector& theta, const Latents& latents,
                                 const Wave::Pass& pass, Block g_z) {
  if (!g_weights_) g_weights_ = wave_.weights();
  Latents decoded = latents;
  decoded.reuse_last_decode = false;
  decode(theta, decoded, pass.weights);
  wave_.gradient(pass, g_weights_, false, {});
  decoded.reuse_last_decode = true;
  decode_pullback(theta, decoded, g_weights_, g_z, {});
}

void Generator::do_loss_hessian_vector(const SharedVector& theta, const Latents& latents,
                                       const Wave::Pass& pass, Block z_dot, Block h_z, double a,
                                       Block h_theta) {
  for (Block* b : {&g_weights_, &weights_dot_, &h_weights_}) {
    if (!*b) *b = wave_.weights();
  }
  Latents decoded = latents;
  decoded.reuse_last_decode = false;
  decode_tangent(theta, decoded, z_dot, weights_dot_);
  wave_.hessian_vector(pass, weights_dot_, h_weights_, false, g_weights_);
  decoded.reuse_last_decode = true;
  decode_pullback_tangent(theta, decoded, z_dot, g_weights_, h_weights_, h_z, a, h_theta);
}

}  // namespace kshot::backend
