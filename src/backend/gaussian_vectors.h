// Gaussians over weights, one per task and weight: draws, their derivatives, and the divergence of
// two of them. q = N(mu, exp(2 s)), prior p = N(mu_p, exp(2 s_p)).
#pragma once

#include "backend/task_vectors.h"
#include "backend/values.h"

namespace kshot::backend {

/// As TaskVectors: the public functions check that all vectors of an operation have one form.
class GaussianVectors : public TaskVectors {
 public:
  /// phi = mu + sigma * eps. With `key` eps ~ N(0, 1) is drawn first (task = the task's global
  /// index); without, eps is taken as it is: given, or an earlier draw that was kept.
  void sample(Block phi, Block eps, Block mu, Block sigma, const RandomKey* key);
  /// Pull-back of a weight gradient g through phi: g_mu += a g; g_s += a g * eps * sigma.
  void sample_pullback(Block g_mu, Block g_s, double a, Block g, Block eps, Block sigma);
  /// Direction in weight space of a direction (v_mu, v_s): u = v_mu + sigma * eps * v_s.
  void sample_direction(Block u, Block v_mu, Block v_s, Block eps, Block sigma);
  /// Both for noise that is there: phi = mu + sigma * eps and u. A backend may fuse them.
  void sample_with_direction(Block phi, Block u, Block mu, Block v_mu, Block v_s, Block eps,
                             Block sigma);
  /// value += scale * KL(q || p); (g_mu, g_s) += scale * dKL/d(mu, s); (gp_mu, gp_s) likewise for
  /// the prior. Blocks that are not wanted are left empty.
  struct KlTerms {
    Block mu, s;              ///< q
    Block prior_mu, prior_s;  ///< p
    Scale scale;
    /// exp(s) and exp(-2 prior_s), where the caller has both: a backend may read them instead of
    /// computing them again.
    Block sigma = {}, prior_precision = {};
  };
  void kl(const KlTerms& terms, Block value, Block g_mu, Block g_s, Block gp_mu, Block gp_s);
  /// Second derivatives of scale * KL (they are diagonal): (r_mu, r_s) += d2/dq2 v and, where
  /// wanted, (rp_mu, rp_s) += (d2/dp dq) v.
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
