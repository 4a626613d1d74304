// Gaussians over weights, with one Gaussian per task and weight: draws, their derivatives, and KL
// divergences. The distribution is q = N(mu, exp(2 s)) and the prior is p = N(mu_p, exp(2 s_p)).
#pragma once

#include "backend/task_vectors.h"
#include "backend/values.h"

namespace kshot::backend {

/// The public functions check that all vectors of an operation have the same width and kind, as in
/// TaskVectors.
class GaussianVectors : public TaskVectors {
 public:
  /// phi = mu + sigma * eps. With `key`, eps ~ N(0, 1) is drawn first (the key's task is the task's
  /// global index). Without `key`, eps is an input: noise that is given or was kept from an earlier
  /// draw.
  void sample(Block phi, Block eps, Block mu, Block sigma, const RandomKey* key);
  /// Pull-back of the weight gradient g through phi: g_mu += a g; g_s += a g * eps * sigma.
  void sample_pullback(Block g_mu, Block g_s, double a, Block g, Block eps, Block sigma);
  /// Direction u in weight space for the direction (v_mu, v_s): u = v_mu + sigma * eps * v_s.
  void sample_direction(Block u, Block v_mu, Block v_s, Block eps, Block sigma);
  /// Computes phi = mu + sigma * eps and u (see sample_direction) for a given eps. A backend may
  /// fuse them.
  void sample_with_direction(Block phi, Block u, Block mu, Block v_mu, Block v_s, Block eps,
                             Block sigma);
  /// value += scale * KL(q || p); (g_mu, g_s) += scale * dKL/d(mu, s); (gp_mu, gp_s) += scale *
  /// dKL/d(mu_p, s_p). Empty blocks are not computed.
  struct KlTerms {
    Block mu, s;              ///< q
    Block prior_mu, prior_s;  ///< p
    Scale scale;
    /// exp(s) and exp(-2 prior_s), where the caller has computed them. A backend may read them
    /// instead of computing them again.
    Block sigma = {}, prior_precision = {};
  };
  void kl(const KlTerms& terms, Block value, Block g_mu, Block g_s, Block gp_mu, Block gp_s);
  /// Products with the second derivatives of scale * KL, which are diagonal: (r_mu, r_s) +=
  /// (d2/dq2) v and, where the blocks are given, (rp_mu, rp_s) += (d2/dp dq) v.
  void kl_hvp(const KlTerms& terms, Block v_mu, Block v_s, Block r_mu, Block r_s, Block rp_mu,
              Block rp_s);

 protected:
  virtual void do_sample(Block phi, Block eps, Block mu, Block sigma, const RandomKey* key) = 0;
  virtual void do_sample_pullback(Block g_mu, Block g_s, double a, Block g, Block eps,
                                  Block sigma) = 0;
  virtual void do_sample_direction(Block u, Block v_mu, Block v_s, Block eps, Block sigma) = 0;
  virtual void do_sample_with_direction(Block phi, Block u, Block mu, Block v_mu, Block v_s,
                                        Block eps, Block sigma) {
    do_sample(phi, eps, mu, sigma, nullptr);
    do_sample_direction(u, v_mu, v_s, eps, sigma);
  }
  virtual void do_kl(const KlTerms& terms, Block value, Block g_mu, Block g_s, Block gp_mu,
                     Block gp_s) = 0;
  virtual void do_kl_hvp(const KlTerms& terms, Block v_mu, Block v_s, Block r_mu, Block r_s,
                         Block rp_mu, Block rp_s) = 0;
};

}  // namespace kshot::backend
