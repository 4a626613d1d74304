// Posteriors of y = f + e, e ~ N(0, noise), and their derivatives, which closed-form heads for real
// targets share. There is a Gaussian process given its kernel matrices, and linear regression f = x
// w, w ~ N(0, I), in the smaller of its primal and dual form. All outputs of a task share one
// system. Targets are given as residuals from the prior's mean.
//
// S, Q: rows of the support and query set; shapes are those of a wave's matrices
// (backend/linear_algebra.h). Factorizations that need a jitter are counted in `jittered`.
#pragma once

#include <vector>

#include "backend/linear_algebra.h"

namespace kshot {

/// The posterior of a Gaussian process. With A = K_SS + noise I and alpha = A^-1 r, the mean is
/// K_QS alpha. `explained` is the part of a query row's prior variance that the support rows
/// explain, k_q A^-1 k_q^T.
class KernelPosterior {
 public:
  KernelPosterior(backend::LinearAlgebra& la, backend::TaskVectors& vectors, int support, int query,
                  int outputs);

  /// Fits the posterior to k_ss [S, S], noise [1, 1] and residuals r [S, outputs].
  void fit(const backend::Matrix& k_ss, const backend::Matrix& noise, const backend::Matrix& r,
           const backend::Matrix& jittered);
  /// The results of the fit that `query` reads.
  std::vector<backend::Matrix> fitted() const { return {alpha_, l_}; }
  /// Predicts from k_qs [Q, S]. Overwrites mean [Q, outputs] and, where given, explained [Q, 1].
  void query(const backend::Matrix& k_qs, const backend::Matrix& mean,
             const backend::Matrix& explained);
  /// After query with `explained`: c [Q, Q] -= K_QS A^-1 K_SQ. With the prior covariance of the
  /// query rows in c, this leaves the posterior covariance of f.
  void subtract_explained(const backend::Matrix& c);
  /// After fit and query: pulls back the gradients by mean and, where given, by explained.
  /// Overwrites g_k_ss (not symmetric), g_k_qs and g_r. Adds to g_noise.
  void pullback(const backend::Matrix& k_qs, const backend::Matrix& g_mean,
                const backend::Matrix& g_explained, const backend::Matrix& g_k_ss,
                const backend::Matrix& g_k_qs, const backend::Matrix& g_noise,
                const backend::Matrix& g_r);

 private:
  backend::LinearAlgebra& la_;
  backend::TaskVectors& vectors_;
  backend::Matrix a_, l_, alpha_, u_, half_, e_, scaled_;
};

/// The posterior of linear regression f(x) = x w, w ~ N(0, I): the mean at the query rows and the
/// posterior variance of f. This is ridge regression with lambda = noise.
class LinearPosterior {
 public:
  LinearPosterior(backend::LinearAlgebra& la, backend::TaskVectors& vectors, int support, int query,
                  int inputs, int outputs, bool with_variance);

  /// True where the system has the size of the inputs rather than that of the support rows.
  bool primal() const { return primal_; }

  /// Fits the posterior to x_s [S, p], noise [1, 1] and residuals r [S, outputs].
  void fit(const backend::Matrix& x_s, const backend::Matrix& noise, const backend::Matrix& r,
           const backend::Matrix& jittered);
  /// The results of the fit to the rows `x_s` that `query` reads.
  std::vector<backend::Matrix> fitted(const backend::Matrix& x_s) const;
  /// Predicts the rows x_q [Q, p] and computes mean() and variance().
  void query(const backend::Matrix& x_s, const backend::Matrix& x_q, const backend::Matrix& noise);
  const backend::Matrix& mean() const { return mean_; }
  /// Posterior variance of f, [Q, 1], without the noise. Empty without with_variance.
  const backend::Matrix& variance() const { return variance_; }
  /// After query with_variance: overwrites c [Q, Q] with the posterior covariance of f.
  void covariance(const backend::Matrix& x_q, const backend::Matrix& noise,
                  const backend::Matrix& c);

  /// After fit and query: pulls back g_mean and g_variance. Overwrites g_x_s, g_x_q and g_r. Adds
  /// to g_noise. g_variance is empty without with_variance.
  void pullback(const backend::Matrix& x_s, const backend::Matrix& x_q,
                const backend::Matrix& noise, const backend::Matrix& r,
                const backend::Matrix& g_mean, const backend::Matrix& g_variance,
                const backend::Matrix& g_x_s, const backend::Matrix& g_x_q,
                const backend::Matrix& g_noise, const backend::Matrix& g_r);

 private:
  void pullback_primal(const backend::Matrix& x_s, const backend::Matrix& x_q,
                       const backend::Matrix& noise, const backend::Matrix& r,
                       const backend::Matrix& g_mean, const backend::Matrix& g_variance,
                       const backend::Matrix& g_x_s, const backend::Matrix& g_x_q,
                       const backend::Matrix& g_noise, const backend::Matrix& g_r);

  backend::LinearAlgebra& la_;
  backend::TaskVectors& vectors_;
  bool primal_, empty_;  ///< empty_: there are no support rows, only the prior
  KernelPosterior kernel_;
  backend::Matrix mean_, variance_;
  // Matrices of the dual form.
  backend::Matrix k_ss_, k_qs_, explained_, g_k_ss_, g_k_qs_, g_explained_;
  // Matrices of the primal form.
  backend::Matrix a_, l_, w_, half_, e_, scaled_, solved_, g_w_, g_a_;
};

}  // namespace kshot
