#include "algorithms/adaptation.h"

#include <algorithm>
#include <utility>

namespace kshot {

using backend::Block;
using backend::Noise;
using backend::Scale;
using backend::Set;
using backend::Wave;

namespace {

/// Noise of the inner loop is kept for the adjoint up to this size a wave (float); drawing it again
/// costs about as much as the forward pass of a small network.
constexpr std::size_t kept_noise_bytes = std::size_t{24} << 20;

}  // namespace

Adaptation::Adaptation(Wave& wave, std::size_t width, const AdaptationSpec& spec)
    : wave_(wave), width_(width), spec_(spec) {
  direction_.mu = wave_.weights();
  h_ = wave_.weights();
  g_ = wave_.weights();
  if (!spec_.gaussian) return;
  gradient_ = {wave_.weights(), wave_.weights()};
  product_ = gradient_;  // never both at once
  direction_.s = wave_.weights();
  sigma_ = wave_.weights();
  phi_ = wave_.weights();
  u_ = wave_.weights();
  outer_eps_ = wave_.weights();
  const auto draws =
      static_cast<std::size_t>(spec_.steps) * static_cast<std::size_t>(spec_.samples);
  const std::size_t bytes =
      draws * width_ * static_cast<std::size_t>(wave_.capacity()) * sizeof(float);
  if (bytes <= kept_noise_bytes) noise_.resize(draws);
}

StateBlocks Adaptation::iterate(std::size_t index) {
  while (iterates_.size() <= index) {
    StateBlocks next;
    next.mu = wave_.weights();
    if (spec_.gaussian) next.s = wave_.weights();
    iterates_.push_back(next);
  }
  return iterates_[index];
}

Scale::By Adaptation::rows() const {
  return spec_.inner_set == Set::all ? Scale::By::all : Scale::By::support;
}

Wave::Pass Adaptation::inner_pass(Block weights) const {
  return {spec_.inner_set, weights, {1.0, rows()}};
}

Wave::KlTerms Adaptation::kl_terms(const StateBlocks& state) const {
  return {state.mu, state.s, prior().mu, prior().s, {spec_.kl_weight, rows()}};
}

std::size_t Adaptation::draw_index(int k, int s) const {
  return static_cast<std::size_t>(k) * static_cast<std::size_t>(spec_.samples) +
         static_cast<std::size_t>(s);
}

bool Adaptation::noise_kept(int k, int s) const {
  const std::size_t draw = draw_index(k, s);
  return draw < noise_.size() && noise_[draw].drawn;
}

void Adaptation::sample_inner(const StepContext& context, int k, int s, const StateBlocks& state) {
  const std::size_t draw = draw_index(k, s);
  const bool kept = draw < noise_.size();
  if (kept && !noise_[draw].eps) noise_[draw].eps = wave_.weights();
  eps_ = kept ? noise_[draw].eps : outer_eps_;
  Noise noise;
  noise.key = {context.seed,
               Purpose::noise_inner,
               context.step,
               0,
               static_cast<std::uint32_t>(k),
               static_cast<std::uint32_t>(s)};
  if (context.noise_inner != nullptr) {
    noise.stride = static_cast<std::size_t>(spec_.samples) * width_;
    noise.host =
        context.noise_inner +
        static_cast<std::size_t>(k) * static_cast<std::size_t>(context.batch_tasks) * noise.stride +
        static_cast<std::size_t>(s) * width_;
  }
  wave_.sample(phi_, eps_, state.mu, sigma_, &noise);
  if (kept) noise_[draw].drawn = true;
}

void Adaptation::sample_outer(const StepContext& context, int sample, int samples) {
  Noise noise;
  noise.key = {
      context.seed, Purpose::noise_outer, context.step, 0, 0, static_cast<std::uint32_t>(sample)};
  if (context.noise_outer != nullptr) {
    noise.stride = static_cast<std::size_t>(samples) * width_;
    noise.host = context.noise_outer + static_cast<std::size_t>(sample) * width_;
  }
  if (sample == 0) wave_.exponential(sigma_, current_.s);
  wave_.sample(phi_, outer_eps_, current_.mu, sigma_, &noise);
}

void Adaptation::pull_back(const StateBlocks& g_state, double a, Block g) {
  wave_.sample_pullback(g_state.mu, g_state.s, a, g, outer_eps_, sigma_);
}

void Adaptation::inner_gradient(const StepContext& context, int k, const StateBlocks& state,
                                bool keep) {
  wave_.fill(gradient_.mu, 0.0);
  wave_.fill(gradient_.s, 0.0);
  wave_.exponential(sigma_, state.s);
  for (int s = 0; s < spec_.samples; ++s) {
    sample_inner(context, k, s, state);
    wave_.gradient(inner_pass(phi_), g_, false, {});
    wave_.sample_pullback(gradient_.mu, gradient_.s, 1.0 / spec_.samples, g_, eps_, sigma_);
  }
  if (keep && spec_.second_order) {
    const auto step = static_cast<std::size_t>(k);
    if (likelihood_s_.size() <= step) likelihood_s_.push_back(wave_.weights());
    wave_.copy(likelihood_s_[step], gradient_.s);
  }
  if (spec_.kl_weight != 0.0) {
    wave_.kl(kl_terms(state), {}, gradient_.mu, gradient_.s, {}, {});
  }
}

void Adaptation::adapt(const StepContext& context, const backend::SharedVector& mu,
                       const backend::SharedVector* s, const RatePlan& rates, int steps, bool keep,
                       const std::function<void(int step)>& visit) {
  for (SampleNoise& noise : noise_) noise.drawn = false;
  current_ = iterate(0);
  wave_.broadcast(current_.mu, mu);
  if (spec_.gaussian) wave_.broadcast(current_.s, *s);
  if (visit) visit(0);
  for (int k = 0; k < steps; ++k) {
    // iterate 0 is the prior, so without `keep` the others take turns in two slots
    const auto slot = keep ? static_cast<std::size_t>(k) + 1 : 1 + static_cast<std::size_t>(k % 2);
    const StateBlocks next = iterate(slot);
    if (spec_.gaussian) {
      inner_gradient(context, k, current_, keep);
      wave_.rate_step(next.mu, current_.mu, rates.at(k), gradient_.mu);
      wave_.rate_step(next.s, current_.s, rates.at(k), gradient_.s);
    } else {
      wave_.gradient_step(inner_pass(current_.mu), next.mu, current_.mu, rates.at(k), g_);
    }
    current_ = next;
    if (visit) visit(k + 1);
  }
}

StateBlocks Adaptation::adjoint(const StepContext& context, const RatePlan& rates,
                                const StateBlocks& v, const StateBlocks& prior_gradient,
                                std::span<const Block> rate_gradients) {
  if (!spec_.second_order && rate_gradients.empty()) return v;
  if (!spec_.gaussian) return {adjoint_point(rates, v.mu, rate_gradients), {}};
  adjoint_gaussian(context, rates, v, prior_gradient);
  return v;
}

Block Adaptation::adjoint_point(const RatePlan& rates, Block v,
                                std::span<const Block> rate_gradients) {
  const bool learn_rates = !rate_gradients.empty();
  for (int k = spec_.steps - 1; k >= 0; --k) {
    Wave::Pass pass = inner_pass(iterates_[static_cast<std::size_t>(k)].mu);
    // the last inner step's gradient is the last on this set: the outer loss is the query's
    pass.again = k == spec_.steps - 1 && spec_.inner_set == Set::support;
    if (spec_.second_order) {
      wave_.hessian_step(pass, h_, v, rates.at(k), learn_rates ? g_ : Block{}, direction_.mu);
    } else {
      wave_.gradient(pass, g_, false, {});
    }
    if (learn_rates) {
      const auto slot = std::min(static_cast<std::size_t>(k), rate_gradients.size() - 1);
      wave_.multiply_add(rate_gradients[slot], -1.0, v, g_);
    }
    if (spec_.second_order) std::swap(v, h_);
  }
  return v;
}

void Adaptation::adjoint_gaussian(const StepContext& context, const RatePlan& rates,
                                  const StateBlocks& v, const StateBlocks& prior_gradient) {
  const StateBlocks d = direction_;
  for (int k = spec_.steps - 1; k >= 0; --k) {
    const StateBlocks& state = iterates_[static_cast<std::size_t>(k)];
    wave_.rate_multiply(d.mu, rates.at(k), v.mu);
    wave_.rate_multiply(d.s, rates.at(k), v.s);
    wave_.fill(product_.mu, 0.0);
    wave_.fill(product_.s, 0.0);
    wave_.exponential(sigma_, state.s);
    for (int s = 0; s < spec_.samples; ++s) {
      if (!noise_kept(k, s)) {
        sample_inner(context, k, s, state);
        wave_.sample_direction(u_, d.mu, d.s, eps_, sigma_);
      } else {
        eps_ = noise_[draw_index(k, s)].eps;
        wave_.sample_with_direction(phi_, u_, state.mu, d.mu, d.s, eps_, sigma_);
      }
      wave_.hessian_vector(inner_pass(phi_), u_, h_, false, {});
      wave_.sample_pullback(product_.mu, product_.s, 1.0 / spec_.samples, h_, eps_, sigma_);
    }
    // The curvature of phi in s itself: sigma eps g v_s, summed over samples, is the inner step's
    // own likelihood gradient in s, times v_s.
    wave_.multiply_add(product_.s, 1.0, likelihood_s_[static_cast<std::size_t>(k)], d.s);
    if (spec_.kl_weight != 0.0) {
      const bool path = spec_.differentiate_prior && prior_gradient.mu;
      if (path) {
        // the prior's path is subtracted, like everything that passes through the inner step
        if (!prior_mu_) {
          prior_mu_ = wave_.weights();
          prior_s_ = wave_.weights();
        }
        wave_.fill(prior_mu_, 0.0);
        wave_.fill(prior_s_, 0.0);
        wave_.kl_hvp(kl_terms(state), d.mu, d.s, product_.mu, product_.s, prior_mu_, prior_s_);
        wave_.axpy(prior_gradient.mu, -1.0, prior_mu_);
        wave_.axpy(prior_gradient.s, -1.0, prior_s_);
      } else {
        wave_.kl_hvp(kl_terms(state), d.mu, d.s, product_.mu, product_.s, {}, {});
      }
    }
    wave_.axpy(v.mu, -1.0, product_.mu);
    wave_.axpy(v.s, -1.0, product_.s);
  }
}

}  // namespace kshot
