// The unrolled inner loop and its adjoint, written once on the operations of a wave.
//
// State: a point (weights) or a Gaussian over weights (mu, s = log sigma). One inner step is
//   state_{k+1} = state_k - rate_k * grad L_S(state_k)
// with L_S the mean support loss (for a Gaussian: its average over samples plus w KL(q ||
// prior)/n). The adjoint takes v = dL_outer/dstate_K back to dL_outer/dstate_0 by
//   v <- v - H_k (rate_k * v),  k = K-1 .. 0,
// one Hessian-vector product a step and sample (forward over reverse), so that activations are
// recomputed and only the iterates are kept. First order leaves v as it is.
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
  /// Of the summed loss of the inner steps; by default the mean over the set's rows.
  std::optional<backend::Scale> scale = {};
  double dropout_rate = 0.0;  ///< of the inner steps' inputs
  /// Number of step 0 among all inner steps on the wave: keys its dropout and its activations.
  std::uint32_t first_key = 0;
  bool gaussian = false;
  // Gaussian states alone:
  backend::Estimator estimator = backend::Estimator::weight;
  int samples = 1;         ///< S
  double kl_weight = 0.0;  ///< w in
  bool differentiate_prior = true;
  /// The rates are learned: the inner gradients of adapt(keep) stay for the rates' gradients.
  bool learn_rates = false;
};

/// Inner step sizes: one for all steps or one a step (the last serves steps beyond).
struct RatePlan {
  std::vector<backend::Rate> steps;
  /// Step sizes for a Gaussian's log standard deviation s, one per step. Where this is empty,
  /// `steps` serve the mean and s alike.
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

class Adaptation {
 public:
  Adaptation(backend::Wave& wave, std::size_t width, const AdaptationSpec& spec);

  /// For Gaussian states: multiplies the inner likelihood by `kappa` [1] of each task, which the
  /// inner KL is not multiplied by:
  ///   grad L_S = kappa g + w grad KL / n,  g the gradient of the mean support loss.
  /// kappa is proportional to exp(-2 log_noise) (observation_noise.h), so that adjoint() adds
  /// dL/dlog_noise through the inner steps, the sum over k of 2 <rate_k * v_{k+1}, kappa g_k> in mu
  /// and s, to `gradient` [1]. With first order that path is cut.
  void learn_noise(backend::Block kappa, backend::Block gradient);

  /// Starts at `initial` (broadcast to all tasks; it is the prior of a Gaussian too) and takes
  /// `steps` inner steps. With `keep` all iterates stay for the adjoint. `visit(k)` (optional) sees
  /// each iterate, 0 to steps, as current().
  void adapt(const StepContext& context, const backend::SharedVector& mu,
             const backend::SharedVector* s, const RatePlan& rates, int steps, bool keep,
             const std::function<void(int step)>& visit = {});
  /// For points that start elsewhere, each task at its own: fill start(), then call this.
  backend::Block start() { return iterate(0).mu; }
  void adapt_from_start(const StepContext& context, const RatePlan& rates, int steps, bool keep,
                        const std::function<void(int step)>& visit = {});
  /// Takes the loaded tasks' adapted state from the host: mu, and s of a Gaussian, [tasks, width].
  void resume(std::span<const std::vector<double>> state);
  const StateBlocks& current() const { return current_; }
  const StateBlocks& prior() const { return iterates_[0]; }

  /// After adapt(keep): takes v = dL/dstate_K to dL/dstate_0, which it returns (v's own blocks or
  /// others; v is used up: own it by taking what comes back in its place). Adds the path through
  /// the inner KL's prior to `prior` (where its blocks are given), and dL/drate_k to
  /// rate_gradients[k] (one for all steps, one a step, or none; of a Gaussian all those of mu, then
  /// as many of s, and the specification must say learn_rates).
  StateBlocks adjoint(const StepContext& context, const RatePlan& rates, const StateBlocks& v,
                      const StateBlocks& prior, std::span<const backend::Block> rate_gradients);

  /// For points: adapts from `initial`, adds the loss of `outer` (its weights are the adapted ones)
  /// to `loss` and returns its gradient by `initial`, v or what comes in its place (as adjoint);
  /// overwrites rate_gradients (as there). At once where the backend does that, else composed.
  backend::Block differentiate(const StepContext& context, const backend::SharedVector& initial,
                               const RatePlan& rates, backend::Wave::Pass outer, backend::Block v,
                               backend::Block loss, std::span<const backend::Block> rate_gradients);

  /// The same for Gaussians by samples of weights.
  struct GaussianOuter {
    bool and_support = false;  ///< beside the query set
    int samples = 1;
    double kl_weight = 0.0;
    /// Of the set's summed loss and of the KL: rows of both sets, or of the query set.
    backend::Scale::By rows() const {
      return and_support ? backend::Scale::By::all : backend::Scale::By::query;
    }
  };
  /// Adapts from `mu` and `s`, adds the outer loss to `loss` and overwrites `gradient` with its
  /// gradient by both, the path through the prior included, where the backend does all of that at
  /// once. False where it does not, and where the rates or the noise are learned; nothing is done
  /// then.
  bool differentiate(const StepContext& context, const backend::SharedVector& mu,
                     const backend::SharedVector& s, const RatePlan& rates,
                     const GaussianOuter& outer, const StateBlocks& gradient, backend::Block loss);

  /// One outer or predictive sample at the current state; the set and its scale are the caller's to
  /// fill in. To be used before the next call.
  backend::GaussianPass outer_sample(const StepContext& context, int sample, int samples);

 private:
  struct KeptDraw {
    backend::Block memory;
    bool drawn = false;
  };
  /// Where a descent at once leaves its end: predictions have no more slots.
  StateBlocks end() { return iterate(static_cast<std::size_t>(std::min(2, spec_.steps))); }
  backend::Wave::Pass inner_pass(const StepContext& context, int k, backend::Block weights) const;
  int activations_number(int k) const;
  void run(const StepContext& context, const RatePlan& rates, int steps, bool keep,
           const std::function<void(int step)>& visit);
  backend::Scale::By rows() const;
  /// At a state whose exp(s) is in sigma_.
  backend::Wave::KlTerms kl_terms(const StateBlocks& state) const;
  StateBlocks iterate(std::size_t index);
  backend::GaussianPass inner_sample(const StepContext& context, int k, int s,
                                     const StateBlocks& state);
  /// The inner gradient of a Gaussian at step k, in the blocks that it returns.
  StateBlocks inner_gradient(const StepContext& context, int k, const StateBlocks& state,
                             bool keep);
  backend::Block adjoint_point(const StepContext& context, const RatePlan& rates, backend::Block v,
                               std::span<const backend::Block> rate_gradients);
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
  // Gaussian: exp(s) of the state at hand, and the draws (kept for the adjoint where K * S of them
  // are small, drawn again where not).
  backend::Block sigma_, prior_precision_;
  std::vector<KeptDraw> draws_;
  GivenNoise given_inner_, given_outer_;      ///< of the pass last made
  std::vector<backend::Block> likelihood_s_;  ///< a step: the likelihood's gradient in s
  // Where the noise is learned: its blocks, a direction times kappa, and the likelihood's gradient
  // in mu, one per step.
  backend::Block kappa_, noise_gradient_;
  StateBlocks scaled_direction_;
  std::vector<backend::Block> likelihood_mu_;
  std::vector<StateBlocks> kept_gradients_;  ///< one per step, where the rates are learned
};

}  // namespace kshot
