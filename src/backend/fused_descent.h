// A whole inner loop, the loss after it and its gradient, as one fused operation. A backend may
// have it for some networks and sizes (Wave::fused_descent). Where it does not, Adaptation composes
// the same computation.
#pragma once

#include <cstddef>
#include <span>

#include "backend/network_passes.h"
#include "backend/values.h"

namespace kshot::backend {

/// An inner loop of gradient descent from a start that all tasks share,
///   w_0 = start, w_{k+1} = w_k - rate_k * gradient(set, scale; w_k), k < steps,
/// then the loss of the pass `outer` at w_steps (outer.weights is that block), and its gradient by
/// the start and by the rates.
struct Descent {
  Set set = Set::support;
  Scale scale;
  const SharedVector* start = nullptr;
  /// One rate per step. The last rate is used for all further steps.
  std::span<const Rate> rates;
  int steps = 0;
  /// Where false, each inner gradient is treated as a constant.
  bool second_order = true;
  NetworkPasses::Pass outer;
  Block end;  ///< w_steps
  /// Gradient by the start; overwritten.
  Block gradient;
  Block loss;  ///< the outer loss is added to this block
  /// Gradients by the rates; overwritten. One block per step, where the last one takes all further
  /// steps. Empty: not computed.
  std::span<const Block> rate_gradients;
};

/// An inner loop for a Gaussian over weights, with samples of the weights (Estimator::weight). It
/// starts at theta = (mu, s), which is also the prior p, and descends on the mean over samples of
/// the scaled loss, plus kl KL(q || p). The objective after the loop is the mean over samples of
/// the scaled loss of `outer_set`, plus outer_kl KL(q || p). With and_support, the support set is
/// passed after it as a separate set. The gradient is by theta.
struct GaussianDescent {
  /// Noise of all samples and steps. It is drawn by key, in which the inner step and the sample are
  /// set, or it is given as a block [steps, samples, D] in the flat order.
  struct Draws {
    RandomKey key;
    Block given;
    int samples = 1;
  };
  Set set = Set::support;
  Scale scale, kl;
  const SharedVector* mu = nullptr;
  const SharedVector* s = nullptr;
  std::span<const Rate> rates;  ///< as Descent::rates, for mu and for s
  int steps = 0;
  bool second_order = true;
  /// Where true, theta is also differentiated as the prior of the inner KL.
  bool differentiate_prior = true;
  Draws draws;
  Set outer_set = Set::query;
  bool and_support = false;
  Scale outer_scale, outer_kl;
  Draws outer_draws;
  /// Parameters of q after the last step.
  Block end_mu, end_s;
  /// Gradient by theta; overwritten.
  Block gradient_mu, gradient_s;
  Block loss;  ///< the objective is added to this block
};

/// The fused inner loops of one wave.
class FusedDescent {
 public:
  virtual ~FusedDescent() = default;
  /// Runs the descent. Returns false, without any computation, for rates or sizes that are not
  /// supported.
  virtual bool run(const Descent& descent) = 0;
  virtual bool run(const GaussianDescent& descent) = 0;
  /// Whether a fused version can distinguish inner steps and samples by the counter of Philox
  /// alone: both must fit into the 16 bits that they have there (RandomKey::key).
  static bool draws_fused(const GaussianDescent& descent) {
    constexpr int most = 1 << 16;
    return descent.steps <= most && descent.draws.samples <= most &&
           descent.outer_draws.samples <= most;
  }
};

}  // namespace kshot::backend
