// A whole inner loop, the loss after it and the gradient of that, at once: what a backend may have
// for some networks and sizes (Wave::fused_descent). Where it has not, Adaptation composes it.
#pragma once

#include <cstddef>
#include <span>

#include "backend/network_passes.h"
#include "backend/values.h"

namespace kshot::backend {

/// A whole inner loop: gradient descent from a start that all tasks share,
///   w_0 = start, w_{k+1} = w_k - rate_k * gradient(set, scale; w_k), k < steps,
/// then a loss at w_steps (`outer`, whose weights are that) and its gradient by start and rates.
struct Descent {
  Set set = Set::support;
  Scale scale;
  const SharedVector* start = nullptr;
  std::span<const Rate> rates;  ///< one a step; the last serves the steps beyond
  int steps = 0;
  bool second_order = true;  ///< else each inner gradient counts as a constant
  NetworkPasses::Pass outer;
  Block end;       ///< w_steps
  Block gradient;  ///< by the start, overwritten
  Block loss;      ///< added to
  /// By the rates, overwritten: one a step, the last for the steps beyond, or none.
  std::span<const Block> rate_gradients;
};

/// A whole inner loop for a Gaussian over weights, by samples of them (Estimator::weight). It
/// starts at theta = (mu, s), which is the prior p too, and descends on the mean over samples of
/// the scaled loss plus kl KL(q || p). The objective after it is the mean over samples of the
/// scaled loss of `outer_set` plus outer_kl KL(q || p); with and_support the support set follows as
/// a set of its own. Its gradient is by theta.
struct GaussianDescent {
  /// Noise of all samples and steps: drawn by key, whose inner step and sample are set, or given as
  /// a block [steps, samples, D] in the flat order.
  struct Draws {
    RandomKey key;
    Block given;
    int samples = 1;
  };
  Set set = Set::support;
  Scale scale, kl;
  const SharedVector* mu = nullptr;
  const SharedVector* s = nullptr;
  std::span<const Rate> rates;  ///< as Descent's, for mu and s alike
  int steps = 0;
  bool second_order = true;
  bool differentiate_prior = true;  ///< theta is differentiated as the inner KL's prior too
  Draws draws;
  Set outer_set = Set::query;
  bool and_support = false;
  Scale outer_scale, outer_kl;
  Draws outer_draws;
  Block end_mu, end_s;            ///< q at the end
  Block gradient_mu, gradient_s;  ///< by theta, overwritten
  Block loss;                     ///< added to
};

class FusedDescent {
 public:
  virtual ~FusedDescent() = default;
  /// False where these rates or sizes are not among those that it takes; nothing is done then.
  virtual bool run(const Descent& descent) = 0;
  virtual bool run(const GaussianDescent& descent) = 0;
  /// Whether a fused version may count inner steps and samples in Philox's counter alone: both stay
  /// within the 16 bits that they have there (RandomKey::key).
  static bool draws_fused(const GaussianDescent& descent) {
    constexpr int most = 1 << 16;
    return descent.steps <= most && descent.draws.samples <= most &&
           descent.outer_draws.samples <= most;
  }
};

}  // namespace kshot::backend
