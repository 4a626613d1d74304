// The unrolled inner loop and its adjoint, written once on the operations of a wave.
//
// State: a point (weights) or a Gaussian over weights (mu, s = log sigma). One inner step is
//   state_{k+1} = state_k - rate_k * grad L_S(state_k),
// where L_S is the mean support loss. For a Gaussian, it is the average of this loss over samples,
// plus w KL(q || prior)/n; a natural step takes the natural gradient instead. The adjoint takes v =
// dL_outer/dstate_K back to dL_outer/dstate_0 by
//   v <- v - H_k (rate_k * v),  k = K-1 .. 0,
// with one Hessian-vector product per step and sample (forward over reverse). Activations are
// therefore computed again, and only the iterates are kept. With first order, v stays as it is.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "algorithms/algorithm.h"
#include "algorithms/given_noise.h"
#include "backend/backend.h"

namespace kshot {

struct AdaptationSpec {
  int steps = 1;  ///< K
  bool second_order = true;
  backend::Set inner_set = backend::Set::support;
  /// Factor of the summed loss of the inner steps. The default is the mean over the set's rows.
  std::optional<backend::Scale> scale = {};
  double dropout_rate = 0.0;  ///< dropout rate of the inner steps' inputs
  /// Number of step 0 among all inner steps on the wave. It keys the steps' dropout and numbers
  /// their kept activations.
  std::uint32_t first_key = 0;
  bool gaussian = false;
  // The fields below are for Gaussian states only.
  backend::Estimator estimator = backend::Estimator::weight;
  int samples = 1;         ///< S
  double kl_weight = 0.0;  ///< w_in, weight of the inner KL
  bool differentiate_prior = true;
  /// True: each step follows the natural gradient of the summed loss, (sigma^2 g_mu, g_s / 2) with
  /// the gradient (g_mu, g_s) of the sum over rows plus w KL. The Fisher information of a Gaussian
  /// in (mu, s) is diag(1 / sigma^2, 2) (Amari 1998).
  bool natural = false;
  /// True where the rates are learned. adapt(keep) then keeps the inner gradients, because the
  /// rates' gradients need them.
  bool learn_rates = false;
};

/// Inner step sizes: one for all steps, or one per step. Steps beyond the list use the last one.
struct RatePlan {
  std::vector<backend::Rate> steps;
  /// Step sizes for a Gaussian's log standard deviation s, one per step. Where this is empty,
  /// `steps` apply to the mean and to s.
  std::vector<backend::Rate> s_steps = {};
  const backend::Rate& at(int k) const { return of(steps, k); }
  const backend::Rate& s_at(int k) const { return of(s_steps.empty() ? steps : s_steps, k); }

 private:
  static const backend::Rate& of(const std::vector<backend::Rate>& rates, int k) {
    return rates[std::min(static_cast<std::size_t>(k), rates.size() - 1)];
  }
};

/// A point (mu alone) or a Gaussian (mu, s).
struct StateBlocks {
  backend::Block mu, s;
};

/// The inner loop and its adjoint on the tasks of one wave.
class Adaptation {
 public:
  Adaptation(backend::Wave& wave, std::size_t width, const AdaptationSpec& spec);

  /// For Gaussian states: multiplies the gradient of the inner likelihood by each task's `kappa`
  /// [1]. The inner KL is not multiplied:
  ///   grad L_S = kappa g + w grad KL / n,  g the gradient of the mean support loss.
  /// kappa is proportional to exp(-2 log_noise) (observation_noise.h). adjoint() therefore adds
  /// dL/dlog_noise through the inner steps to `gradient` [1]: the sum over k of 2 <rate_k *
  /// v_{k+1}, kappa g_k> in mu and s. First order cuts this path.
  void learn_noise(backend::Block kappa, backend::Block gradient);

  /// Broadcasts the initial state `mu` (and `s`) to all tasks and takes `steps` inner steps. The
  /// initial state is also the prior of a Gaussian. With `keep`, all iterates are kept for the
  /// adjoint. `visit(k)` (optional) is called for each iterate, 0 to steps, while current() returns
  /// this iterate.
  void adapt(const StepContext& context, const backend::SharedVector& mu,
             const backend::SharedVector* s, const RatePlan& rates, int steps, bool keep,
             const std::function<void(int step)>& visit = {});
  /// For points with a start of its own in each task: the caller fills start(), then calls
  /// adapt_from_start.
  backend::Block start() { return iterate(0).mu; }
  void adapt_from_start(const StepContext& context, const RatePlan& rates, int steps, bool keep,
                        const std::function<void(int step)>& visit = {});
  /// Uploads the adapted state of the loaded tasks: mu, and for a Gaussian s, [tasks, width] each.
  void resume(std::span<const std::vector<double>> state);
  const StateBlocks& current() const { return current_; }
  const StateBlocks& prior() const { return iterates_[0]; }

  /// After adapt(keep): takes v = dL/dstate_K back to dL/dstate_0 and returns the latter. The
  /// function overwrites `v`. Continue with the returned blocks, which may be different ones. Adds
  /// the path through the inner KL's prior to `prior` (where its blocks are given), and dL/drate_k
  /// to rate_gradients[k]. `rate_gradients` has one block for all steps, one per step, or none. For
  /// a Gaussian it has the blocks of mu and then as many of s, and the specification must set
  /// learn_rates.
  StateBlocks adjoint(const StepContext& context, const RatePlan& rates, const StateBlocks& v,
                      const StateBlocks& prior, std::span<const backend::Block> rate_gradients);

  /// For points: adapts from `initial`, adds the loss of the pass `outer` to `loss`, and returns
  /// the gradient of this loss with respect to `initial`. The weights of `outer` are set to the
  /// adapted ones. Overwrites `v`, and the result may be another block. Overwrites
  /// `rate_gradients`, whose layout is that of adjoint(). Uses the backend's fused operation where
  /// there is one, and composes the operations otherwise.
  backend::Block differentiate(const StepContext& context, const backend::SharedVector& initial,
                               const RatePlan& rates, backend::Wave::Pass outer, backend::Block v,
                               backend::Block loss, std::span<const backend::Block> rate_gradients);

  /// The outer loss of a Gaussian: samples of weights, and the KL from the prior.
  struct GaussianOuter {
    bool and_support = false;  ///< true: the support rows count beside the query rows
    int samples = 1;
    double kl_weight = 0.0;
    /// The rows by whose number the set's summed loss and the KL are divided: rows of both sets, or
    /// of the query set.
    backend::Scale::By rows() const {
      return and_support ? backend::Scale::By::all : backend::Scale::By::query;
    }
  };
  /// For Gaussians, where the backend has one fused operation for all of this: adapts from `mu` and
  /// `s`, adds the outer loss to `loss`, and overwrites `gradient` with the gradient by mu and s.
  /// This includes the path through the prior. Returns false and does nothing where the backend has
  /// no such operation, where the estimator is not `weight`, and where the rates or the noise are
  /// learned.
  bool differentiate(const StepContext& context, const backend::SharedVector& mu,
                     const backend::SharedVector& s, const RatePlan& rates,
                     const GaussianOuter& outer, const StateBlocks& gradient, backend::Block loss);

  /// Returns one outer or predictive sample at the current state. Sample 0 computes exp(s) for all
  /// samples and comes first. The caller fills in the set and its scale, and uses the pass before
  /// the next call, which overwrites explicit noise.
  backend::GaussianPass outer_sample(const StepContext& context, int sample, int samples);

 private:
  struct KeptDraw {
    backend::Block memory;
    bool drawn = false;
  };
  /// The iterate in which a fused descent leaves its last state. Its index is at most 2, because
  /// predictions use no iterate beyond 2.
  StateBlocks end() { return iterate(static_cast<std::size_t>(std::min(2, spec_.steps))); }
  backend::Wave::Pass inner_pass(const StepContext& context, int k, backend::Block weights) const;
  int activations_number(int k) const;
  void run(const StepContext& context, const RatePlan& rates, int steps, bool keep,
           const std::function<void(int step)>& visit);
  /// What the inner loss is divided by: the rows of the inner set, or one for natural steps.
  backend::Scale::By divisor() const;
  /// Arguments of the KL at `state`, for which sigma_ must hold exp(state.s).
  backend::Wave::KlTerms kl_terms(const StateBlocks& state) const;
  StateBlocks iterate(std::size_t index);
  backend::GaussianPass inner_sample(const StepContext& context, int k, int s,
                                     const StateBlocks& state);
  /// Computes the inner gradient of a Gaussian at step k, or the natural gradient, and returns its
  /// blocks.
  StateBlocks inner_gradient(const StepContext& context, int k, const StateBlocks& state,
                             bool keep);
  backend::Block adjoint_point(const StepContext& context, const RatePlan& rates, backend::Block v,
                               std::span<const backend::Block> rate_gradients);
  /// Multiplies by the inverse Fisher information at sigma_: g.mu *= sigma^2, g.s /= 2.
  void multiply_by_inverse_fisher(const StateBlocks& g);
  StateBlocks likelihood_direction(int k, const StateBlocks& d);
  void adjoint_gaussian(const StepContext& context, const RatePlan& rates, const StateBlocks& v,
                        const StateBlocks& prior, std::span<const backend::Block> rate_gradients);

  backend::Wave& wave_;
  std::size_t width_;
  AdaptationSpec spec_;
  std::vector<StateBlocks> iterates_;
  StateBlocks current_;
  StateBlocks gradient_, direction_;
  backend::Block g_, h_;
  // For Gaussians: exp(s) of the current state, the prior's precision, and the draws. Draws are
  // kept for the adjoint where all K * S of them are small, and are drawn again otherwise.
  backend::Block sigma_, prior_precision_;
  backend::Block product_;  ///< an intermediate result of natural steps
  std::vector<KeptDraw> draws_;
  GivenNoise given_inner_, given_outer_;      ///< explicit noise of the last pass
  std::vector<backend::Block> likelihood_s_;  ///< one per step: the likelihood's gradient in s
  // For a learned noise: kappa, the gradient of log_noise, a direction times kappa, and the
  // likelihood's gradient in mu, one per step.
  backend::Block kappa_, noise_gradient_;
  StateBlocks scaled_direction_;
  std::vector<backend::Block> likelihood_mu_;
  /// The steps' gradients, one per step, where the rates are learned or the steps are natural.
  std::vector<StateBlocks> kept_gradients_;
};

}  // namespace kshot
