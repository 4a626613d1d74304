// The checks of TaskVectors and GaussianVectors, which then call the backend.
#include "backend/task_vectors.h"

#include <fmt/format.h>

#include <stdexcept>

#include "backend/gaussian_vectors.h"

namespace kshot::backend {
namespace {

std::string text_of(std::size_t width, bool weights) {
  return fmt::format("{}{}", width, weights ? " (weights)" : "");
}

}  // namespace

const TaskVectors::Form& TaskVectors::form(Block block) const {
  const auto id = static_cast<std::size_t>(block.id);
  if (!block || id >= forms_.size() || !forms_[id].made) {
    throw std::logic_error("a block that this wave did not make");
  }
  return forms_[id];
}

Block TaskVectors::note(Block block, std::size_t width, bool weights) {
  const auto id = static_cast<std::size_t>(block.id);
  if (forms_.size() <= id) forms_.resize(id + 1);
  forms_[id] = {width, weights, true};
  return block;
}

Block TaskVectors::block(std::size_t width) {
  return note(make_block(width), width, false);
}

Block TaskVectors::weights() {
  return note(make_weights(), weight_count(), true);
}

void TaskVectors::require_same(const char* operation, std::initializer_list<Block> blocks) const {
  const Form* first = nullptr;
  for (const Block block : blocks) {
    if (!block) continue;
    const Form& here = form(block);
    if (first == nullptr) first = &here;
    if (here == *first) continue;
    throw std::logic_error(fmt::format("{}: blocks of width {} and {}", operation,
                                       text_of(first->width, first->weights),
                                       text_of(here.width, here.weights)));
  }
}

void TaskVectors::require_width(const char* operation, Block block, std::size_t width) const {
  if (form(block).width == width) return;
  throw std::logic_error(
      fmt::format("{}: a block of width {}, expected {}", operation, form(block).width, width));
}

void TaskVectors::require_weights(const char* operation,
                                  std::initializer_list<Block> blocks) const {
  for (const Block block : blocks) {
    if (!block || form(block).weights) continue;
    throw std::logic_error(fmt::format("{}: a block of width {} that is not of weights", operation,
                                       form(block).width));
  }
}

void TaskVectors::require_no_weights(const char* operation, Block block) const {
  if (!form(block).weights) return;
  throw std::logic_error(fmt::format("{}: not for a block of weights", operation));
}

void TaskVectors::require_rates(const char* operation, Block block, const Rate& rate) const {
  if (rate.vector == nullptr) return;
  const std::size_t rates = rate.vector->size();
  const Form& here = form(block);
  const bool fits = here.weights ? rates == here.width : rates > 0 && here.width % rates == 0;
  if (fits) return;
  throw std::logic_error(fmt::format("{}: {} rates for a block of width {}", operation, rates,
                                     text_of(here.width, here.weights)));
}

// ---- algebra ----

void TaskVectors::broadcast(Block dst, const SharedVector& src) {
  require_width("broadcast", dst, src.size());
  do_broadcast(dst, src);
}

void TaskVectors::fill(Block dst, double value) {
  form(dst);
  do_fill(dst, value);
}

void TaskVectors::copy(Block dst, Block src) {
  require_same("copy", {dst, src});
  do_copy(dst, src);
}

void TaskVectors::axpy(Block y, double a, Block x) {
  require_same("axpy", {y, x});
  do_axpy(y, a, x);
}

void TaskVectors::multiply_add(Block y, double a, Block x1, Block x2) {
  require_same("multiply_add", {y, x1, x2});
  do_multiply_add(y, a, x1, x2);
}

void TaskVectors::exponential(Block dst, Block src) {
  require_same("exponential", {dst, src});
  do_exponential(dst, src);
}

void TaskVectors::rate_multiply(Block dst, const Rate& rate, Block x) {
  require_same("rate_multiply", {dst, x});
  require_rates("rate_multiply", dst, rate);
  do_rate_multiply(dst, rate, x);
}

void TaskVectors::rate_step(Block dst, Block src, const Rate& rate, Block grad) {
  require_same("rate_step", {dst, src, grad});
  require_rates("rate_step", dst, rate);
  do_rate_step(dst, src, rate, grad);
}

void TaskVectors::normal(Block dst, const RandomKey& key) {
  require_no_weights("normal", dst);
  do_normal(dst, key);
}

void TaskVectors::multiply_fold(Block y, double a, Block x1, Block x2) {
  require_same("multiply_fold", {x1, x2});
  if (width(y) == 0 || width(x1) % width(y) != 0) {
    throw std::logic_error(
        fmt::format("multiply_fold: width {} does not divide {}", width(y), width(x1)));
  }
  do_multiply_fold(y, a, x1, x2);
}

void TaskVectors::mean_square(Block value, double weight, Block a, Block b, Block g_b) {
  require_width("mean_square", value, 1);
  require_same("mean_square", {a, b, g_b});
  do_mean_square(value, weight, a, b, g_b);
}

// ---- scalars of a task ----

void TaskVectors::row_count(Block dst, Set set) {
  require_width("row_count", dst, 1);
  do_row_count(dst, set);
}

void TaskVectors::apply(Block dst, Function f, Block src) {
  require_no_weights("apply", src);
  require_same("apply", {dst, src});
  do_apply(dst, f, src);
}

void TaskVectors::scale_by(Block y, Block scalar) {
  form(y);
  require_width("scale_by", scalar, 1);
  do_scale_by(y, scalar);
}

void TaskVectors::adam_step(const AdamBlocks& blocks, const AdamRule& rule) {
  require_same("adam_step", {blocks.parameters, blocks.gradient, blocks.m, blocks.v});
  require_width("adam_step", blocks.count, 1);
  do_adam_step(blocks, rule);
}

void TaskVectors::upload(Block dst, const double* host, std::size_t stride) {
  form(dst);
  do_upload(dst, host, stride);
}

void TaskVectors::download(Block src, std::span<double> values) const {
  const std::size_t expected = static_cast<std::size_t>(task_count()) * width(src);
  if (values.size() != expected) {
    throw std::logic_error(fmt::format("download: room for {} numbers, expected {} tasks x {}",
                                       values.size(), task_count(), width(src)));
  }
  do_download(src, values);
}

// ---- Gaussians ----

void GaussianVectors::sample(Block phi, Block eps, Block mu, Block sigma, const RandomKey* key) {
  require_same("sample", {phi, eps, mu, sigma});
  do_sample(phi, eps, mu, sigma, key);
}

void GaussianVectors::sample_pullback(Block g_mu, Block g_s, double a, Block g, Block eps,
                                      Block sigma) {
  require_same("sample_pullback", {g_mu, g_s, g, eps, sigma});
  do_sample_pullback(g_mu, g_s, a, g, eps, sigma);
}

void GaussianVectors::sample_direction(Block u, Block v_mu, Block v_s, Block eps, Block sigma) {
  require_same("sample_direction", {u, v_mu, v_s, eps, sigma});
  do_sample_direction(u, v_mu, v_s, eps, sigma);
}

void GaussianVectors::sample_with_direction(Block phi, Block u, Block mu, Block v_mu, Block v_s,
                                            Block eps, Block sigma) {
  require_same("sample_with_direction", {phi, u, mu, v_mu, v_s, eps, sigma});
  do_sample_with_direction(phi, u, mu, v_mu, v_s, eps, sigma);
}

void GaussianVectors::kl(const KlTerms& terms, Block value, Block g_mu, Block g_s, Block gp_mu,
                         Block gp_s) {
  require_same("kl", {terms.mu, terms.s, terms.prior_mu, terms.prior_s, terms.sigma,
                      terms.prior_precision, g_mu, g_s, gp_mu, gp_s});
  if (value) require_width("kl", value, 1);
  do_kl(terms, value, g_mu, g_s, gp_mu, gp_s);
}

void GaussianVectors::kl_hvp(const KlTerms& terms, Block v_mu, Block v_s, Block r_mu, Block r_s,
                             Block rp_mu, Block rp_s) {
  require_same("kl_hvp", {terms.mu, terms.s, terms.prior_mu, terms.prior_s, terms.sigma,
                          terms.prior_precision, v_mu, v_s, r_mu, r_s, rp_mu, rp_s});
  do_kl_hvp(terms, v_mu, v_s, r_mu, r_s, rp_mu, rp_s);
}

}  // namespace kshot::backend
