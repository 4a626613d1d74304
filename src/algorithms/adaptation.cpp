#include "algorithms/adaptation.h"

#include <algorithm>
#include <utility>

#include "algorithms/common.h"

namespace kshot {

using backend::Block;
using backend::GaussianPass;
using backend::Scale;
using backend::Set;
using backend::Wave;

namespace {

/// Size in bytes per wave (float) up to which the draws of the inner loop are kept for the adjoint.
/// Drawing again costs about as much as the forward pass of a small network.
constexpr std::size_t kept_draw_bytes = std::size_t{24} << 20;

}  // namespace

Adaptation::Adaptation(Wave& wave, std::size_t width, const AdaptationSpec& spec)
    : wave_(wave), width_(width), spec_(spec), given_inner_(wave), given_outer_(wave) {
  direction_.mu = wave_.weights();
  if (!spec_.gaussian) {
    h_ = wave_.weights();
    g_ = wave_.weights();
    return;
  }
  gradient_ = {wave_.weights(), wave_.weights()};
  direction_.s = wave_.weights();
  sigma_ = wave_.weights();
  if (spec_.natural) product_ = wave_.weights();
  const auto draws =
      static_cast<std::size_t>(spec_.steps) * static_cast<std::size_t>(spec_.samples);
  const std::size_t bytes =
      draws * width_ * static_cast<std::size_t>(wave_.capacity()) * sizeof(float);
  if (bytes <= kept_draw_bytes) draws_.resize(draws);
}

void Adaptation::learn_noise(Block kappa, Block gradient) {
  kappa_ = kappa;
  noise_gradient_ = gradient;
  scaled_direction_ = {wave_.weights(), wave_.weights()};
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

Scale::By Adaptation::divisor() const {
  if (spec_.natural) return Scale::By::one;
  return spec_.inner_set == Set::all ? Scale::By::all : Scale::By::support;
}

Wave::Pass Adaptation::inner_pass(const StepContext& context, int k, Block weights) const {
  Wave::Pass pass{spec_.inner_set, weights, spec_.scale.value_or(Scale{1.0, divisor()})};
  pass.dropout =
      dropout(context, spec_.dropout_rate, spec_.first_key + static_cast<std::uint32_t>(k));
  return pass;
}

/// The number under which step k keeps its activations. Another adaptation on the same wave has
/// other numbers, because its first key differs.
int Adaptation::activations_number(int k) const {
  return static_cast<int>(spec_.first_key) + k;
}

Wave::KlTerms Adaptation::kl_terms(const StateBlocks& state) const {
  return {state.mu, state.s,         prior().mu, prior().s, {spec_.kl_weight, divisor()},
          sigma_,   prior_precision_};
}

GaussianPass Adaptation::inner_sample(const StepContext& context, int k, int s,
                                      const StateBlocks& state) {
  GaussianPass pass;
  pass.set = spec_.inner_set;
  pass.scale = {1.0, divisor()};
  pass.estimator = spec_.estimator;
  pass.mu = state.mu;
  pass.sigma = sigma_;
  pass.noise.key = context.key(Purpose::noise_inner, k, s);
  const auto samples = static_cast<std::size_t>(spec_.samples);
  // Index of the first task's sample in the arrays [K, T, S, ...].
  const std::size_t first =
      static_cast<std::size_t>(k) * static_cast<std::size_t>(context.batch_tasks) * samples +
      static_cast<std::size_t>(s);
  pass.noise.weights = given_inner_.weights(context.noise_inner, first, samples);
  pass.noise.layers = given_inner_.layers(context.layers_inner, first, samples);
  const std::size_t draw = static_cast<std::size_t>(k) * samples + static_cast<std::size_t>(s);
  if (draw < draws_.size()) {
    KeptDraw& kept = draws_[draw];
    if (!kept.memory) kept.memory = wave_.gaussian_passes().draw_memory(spec_.estimator);
    pass.kept = kept.memory;
    pass.drawn = kept.drawn;
    kept.drawn = true;  // the pass that is returned will draw
  }
  return pass;
}

GaussianPass Adaptation::outer_sample(const StepContext& context, int sample, int samples) {
  if (sample == 0) wave_.exponential(sigma_, current_.s);
  GaussianPass pass;
  pass.estimator = spec_.estimator;
  pass.mu = current_.mu;
  pass.sigma = sigma_;
  pass.noise.key = context.key(Purpose::noise_outer, 0, sample);
  const auto first = static_cast<std::size_t>(sample), all = static_cast<std::size_t>(samples);
  pass.noise.weights = given_outer_.weights(context.noise_outer, first, all);
  pass.noise.layers = given_outer_.layers(context.layers_outer, first, all);
  return pass;
}

StateBlocks Adaptation::inner_gradient(const StepContext& context, int k, const StateBlocks& state,
                                       bool keep) {
  const auto step = static_cast<std::size_t>(k);
  StateBlocks g = gradient_;
  if (keep && (spec_.learn_rates || (spec_.natural && spec_.second_order))) {
    if (kept_gradients_.size() <= step) {
      kept_gradients_.push_back({wave_.weights(), wave_.weights()});
    }
    g = kept_gradients_[step];
  }
  wave_.fill(g.mu, 0.0);
  wave_.fill(g.s, 0.0);
  wave_.exponential(sigma_, state.s);
  for (int s = 0; s < spec_.samples; ++s) {
    wave_.gaussian_passes().gradient(inner_sample(context, k, s, state), 1.0 / spec_.samples, g.mu,
                                     g.s, {});
  }
  if (kappa_) {
    wave_.scale_by(g.mu, kappa_);
    wave_.scale_by(g.s, kappa_);
  }
  if (keep && spec_.second_order && kappa_) {
    if (likelihood_mu_.size() <= step) likelihood_mu_.push_back(wave_.weights());
    wave_.copy(likelihood_mu_[step], g.mu);
  }
  if (keep && spec_.second_order) {
    if (likelihood_s_.size() <= step) likelihood_s_.push_back(wave_.weights());
    wave_.copy(likelihood_s_[step], g.s);
  }
  if (spec_.kl_weight != 0.0) {
    wave_.kl(kl_terms(state), {}, g.mu, g.s, {}, {});
  }
  if (spec_.natural) {
    multiply_by_inverse_fisher(g);
  }
  return g;
}

void Adaptation::multiply_by_inverse_fisher(const StateBlocks& g) {
  wave_.fill(product_, 0.0);
  wave_.multiply_add(product_, 1.0, sigma_, g.mu);
  wave_.fill(g.mu, 0.0);
  wave_.multiply_add(g.mu, 1.0, sigma_, product_);
  wave_.copy(product_, g.s);
  wave_.axpy(g.s, -0.5, product_);
}

void Adaptation::adapt(const StepContext& context, const backend::SharedVector& mu,
                       const backend::SharedVector* s, const RatePlan& rates, int steps, bool keep,
                       const std::function<void(int step)>& visit) {
  for (KeptDraw& draw : draws_) draw.drawn = false;
  current_ = iterate(0);
  wave_.broadcast(current_.mu, mu);
  if (spec_.gaussian) {
    wave_.broadcast(current_.s, *s);
    if (!prior_precision_) prior_precision_ = wave_.weights();
    wave_.fill(prior_precision_, 0.0);
    wave_.axpy(prior_precision_, -2.0, current_.s);
    wave_.exponential(prior_precision_, prior_precision_);
  }
  run(context, rates, steps, keep, visit);
}

void Adaptation::adapt_from_start(const StepContext& context, const RatePlan& rates, int steps,
                                  bool keep, const std::function<void(int step)>& visit) {
  current_ = iterate(0);
  run(context, rates, steps, keep, visit);
}

void Adaptation::resume(std::span<const std::vector<double>> state) {
  current_ = iterate(0);
  wave_.upload(current_.mu, state[0].data(), width_);
  if (spec_.gaussian) wave_.upload(current_.s, state[1].data(), width_);
}

void Adaptation::run(const StepContext& context, const RatePlan& rates, int steps, bool keep,
                     const std::function<void(int step)>& visit) {
  if (visit) visit(0);
  for (int k = 0; k < steps; ++k) {
    // Iterate 0 is the prior. Without `keep`, the other iterates alternate between two slots.
    const auto slot = keep ? static_cast<std::size_t>(k) + 1 : 1 + static_cast<std::size_t>(k % 2);
    const StateBlocks next = iterate(slot);
    if (spec_.gaussian) {
      const StateBlocks g = inner_gradient(context, k, current_, keep);
      wave_.rate_step(next.mu, current_.mu, rates.at(k), g.mu);
      wave_.rate_step(next.s, current_.s, rates.s_at(k), g.s);
    } else {
      Wave::Pass pass = inner_pass(context, k, current_.mu);
      if (keep && spec_.second_order) pass.activations = activations_number(k);
      wave_.gradient_step(pass, next.mu, current_.mu, rates.at(k), g_);
    }
    current_ = next;
    if (visit) visit(k + 1);
  }
}

Block Adaptation::differentiate(const StepContext& context, const backend::SharedVector& initial,
                                const RatePlan& rates, Wave::Pass outer, Block v, Block loss,
                                std::span<const Block> rate_gradients) {
  backend::FusedDescent* const fused = wave_.fused_descent();
  if (fused != nullptr && spec_.dropout_rate == 0.0) {
    backend::Descent descent;
    descent.set = spec_.inner_set;
    descent.scale = inner_pass(context, 0, {}).scale;
    descent.start = &initial;
    descent.rates = rates.steps;
    descent.steps = spec_.steps;
    descent.second_order = spec_.second_order;
    descent.outer = outer;
    const StateBlocks end = this->end();
    descent.end = end.mu;
    descent.gradient = v;
    descent.loss = loss;
    descent.rate_gradients = rate_gradients;
    if (fused->run(descent)) {
      current_ = end;
      return v;
    }
  }
  adapt(context, initial, nullptr, rates, spec_.steps, true);
  outer.weights = current_.mu;
  wave_.gradient(outer, v, false, loss);
  for (const Block& block : rate_gradients) wave_.fill(block, 0.0);
  return adjoint(context, rates, {v, {}}, {}, rate_gradients).mu;
}

bool Adaptation::differentiate(const StepContext& context, const backend::SharedVector& mu,
                               const backend::SharedVector& s, const RatePlan& rates,
                               const GaussianOuter& outer, const StateBlocks& gradient,
                               Block loss) {
  backend::FusedDescent* const fused = wave_.fused_descent();
  if (fused == nullptr || spec_.estimator != backend::Estimator::weight || spec_.learn_rates ||
      spec_.natural || kappa_) {
    return false;
  }
  backend::GaussianDescent descent;
  descent.set = spec_.inner_set;
  descent.scale = {1.0, divisor()};
  descent.kl = {spec_.kl_weight, divisor()};
  descent.mu = &mu;
  descent.s = &s;
  descent.rates = rates.steps;
  descent.steps = spec_.steps;
  descent.second_order = spec_.second_order;
  descent.differentiate_prior = spec_.differentiate_prior;
  descent.draws = {
      context.key(Purpose::noise_inner),
      given_inner_.all(context.noise_inner, spec_.steps, context.batch_tasks, spec_.samples),
      spec_.samples};
  descent.and_support = outer.and_support;
  descent.outer_scale = {1.0, outer.rows()};
  descent.outer_kl = {outer.kl_weight, outer.rows()};
  descent.outer_draws = {
      context.key(Purpose::noise_outer),
      given_outer_.all(context.noise_outer, 1, context.batch_tasks, outer.samples), outer.samples};
  const StateBlocks end = this->end();
  descent.end_mu = end.mu;
  descent.end_s = end.s;
  descent.gradient_mu = gradient.mu;
  descent.gradient_s = gradient.s;
  descent.loss = loss;
  if (!fused->run(descent)) return false;
  current_ = end;
  return true;
}

StateBlocks Adaptation::adjoint(const StepContext& context, const RatePlan& rates,
                                const StateBlocks& v, const StateBlocks& prior_gradient,
                                std::span<const Block> rate_gradients) {
  if (!spec_.second_order && rate_gradients.empty()) return v;
  if (!spec_.gaussian) return {adjoint_point(context, rates, v.mu, rate_gradients), {}};
  adjoint_gaussian(context, rates, v, prior_gradient, rate_gradients);
  return v;
}

Block Adaptation::adjoint_point(const StepContext& context, const RatePlan& rates, Block v,
                                std::span<const Block> rate_gradients) {
  const bool learn_rates = !rate_gradients.empty();
  for (int k = spec_.steps - 1; k >= 0; --k) {
    Wave::Pass pass = inner_pass(context, k, iterates_[static_cast<std::size_t>(k)].mu);
    pass.activations = activations_number(k);
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

/// Returns the direction of the likelihood's Hessian-vector product for the adjoint step's
/// direction d. This is d itself, or kappa d where the noise is learned. The gradient of a learned
/// noise gets its part here.
StateBlocks Adaptation::likelihood_direction(int k, const StateBlocks& d) {
  if (!kappa_) return d;
  const auto step = static_cast<std::size_t>(k);
  wave_.multiply_fold(noise_gradient_, 2.0, d.mu, likelihood_mu_[step]);
  wave_.multiply_fold(noise_gradient_, 2.0, d.s, likelihood_s_[step]);
  const StateBlocks& u = scaled_direction_;
  wave_.copy(u.mu, d.mu);
  wave_.copy(u.s, d.s);
  wave_.scale_by(u.mu, kappa_);
  wave_.scale_by(u.s, kappa_);
  return u;
}

void Adaptation::adjoint_gaussian(const StepContext& context, const RatePlan& rates,
                                  const StateBlocks& v, const StateBlocks& prior_gradient,
                                  std::span<const Block> rate_gradients) {
  const StateBlocks d = direction_;
  const std::size_t slots = rate_gradients.size() / 2;
  // d is a copy, rate * v, so that all of H d can be subtracted from v in place.
  for (int k = spec_.steps - 1; k >= 0; --k) {
    if (slots > 0) {
      const auto step = static_cast<std::size_t>(k);
      const std::size_t slot = std::min(step, slots - 1);
      wave_.multiply_add(rate_gradients[slot], -1.0, v.mu, kept_gradients_[step].mu);
      wave_.multiply_add(rate_gradients[slots + slot], -1.0, v.s, kept_gradients_[step].s);
      if (!spec_.second_order) continue;
    }
    const StateBlocks& state = iterates_[static_cast<std::size_t>(k)];
    wave_.rate_multiply(d.mu, rates.at(k), v.mu);
    wave_.rate_multiply(d.s, rates.s_at(k), v.s);
    wave_.exponential(sigma_, state.s);
    if (spec_.natural) {
      // The step in mu is sigma^2 g_mu, so that it depends on s also by the factor sigma^2, whose
      // derivative is 2 sigma^2.
      wave_.multiply_add(v.s, -2.0, d.mu, kept_gradients_[static_cast<std::size_t>(k)].mu);
      multiply_by_inverse_fisher(d);
    }
    const StateBlocks u = likelihood_direction(k, d);
    for (int s = 0; s < spec_.samples; ++s) {
      wave_.gaussian_passes().hessian_vector(inner_sample(context, k, s, state),
                                             -1.0 / spec_.samples, u.mu, u.s, v.mu, v.s);
    }
    wave_.gaussian_passes().curvature(spec_.estimator, -1.0, v.s,
                                      likelihood_s_[static_cast<std::size_t>(k)], d.s);
    if (spec_.kl_weight != 0.0) {
      Wave::KlTerms terms = kl_terms(state);
      terms.scale.factor = -terms.scale.factor;
      const StateBlocks path = spec_.differentiate_prior ? prior_gradient : StateBlocks{};
      wave_.kl_hvp(terms, d.mu, d.s, v.mu, v.s, path.mu, path.s);
    }
  }
}

}  // namespace kshot
