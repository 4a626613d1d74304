#include "algorithms/posterior.h"

namespace kshot {

using backend::LinearAlgebra;
using backend::Matrix;
using backend::Set;
using backend::Side;
using backend::TaskVectors;
using backend::transposed;

// ---- Gaussian process ----

KernelPosterior::KernelPosterior(LinearAlgebra& la, TaskVectors& vectors, int support, int query,
                                 int outputs)
    : la_(la),
      vectors_(vectors),
      a_(la.matrix(support, support)),
      l_(la.matrix(support, support)),
      alpha_(la.matrix(support, outputs)),
      u_(la.matrix(support, outputs)),
      half_(la.matrix(query, support)),
      e_(la.matrix(query, support)),
      scaled_(la.matrix(query, support)) {}

void KernelPosterior::fit(const Matrix& k_ss, const Matrix& noise, const Matrix& r,
                          const Matrix& jittered) {
  vectors_.copy(a_.block, k_ss.block);
  la_.add_diagonal(a_, 1.0, noise, Set::support);
  la_.cholesky(l_, a_, jittered);
  vectors_.copy(alpha_.block, r.block);
  la_.solve_triangular(l_, Side::left, alpha_);
  la_.solve_triangular(transposed(l_), Side::left, alpha_);
}

void KernelPosterior::query(const Matrix& k_qs, const Matrix& mean, const Matrix& explained) {
  la_.product(mean, 1.0, k_qs, alpha_);
  if (!explained) return;
  vectors_.copy(half_.block, k_qs.block);
  la_.solve_triangular(transposed(l_), Side::right, half_);
  la_.sum(explained, 1.0, half_, half_);
}

void KernelPosterior::subtract_explained(const Matrix& c) {
  la_.product(c, -1.0, half_, transposed(half_), true);
}

void KernelPosterior::pullback(const Matrix& k_qs, const Matrix& g_mean, const Matrix& g_explained,
                               const Matrix& g_k_ss, const Matrix& g_k_qs, const Matrix& g_noise,
                               const Matrix& g_r) {
  la_.product(u_, 1.0, transposed(k_qs), g_mean);
  la_.solve_triangular(l_, Side::left, u_);
  la_.solve_triangular(transposed(l_), Side::left, u_);
  vectors_.copy(g_r.block, u_.block);
  la_.product(g_k_qs, 1.0, g_mean, transposed(alpha_));
  la_.product(g_k_ss, -1.0, u_, transposed(alpha_));
  if (g_explained) {
    // With e = K_QS A^-1, the derivative of explained is 2 e by K_QS and -e^T e by A
    vectors_.copy(e_.block, half_.block);
    la_.solve_triangular(l_, Side::right, e_);
    la_.multiply(scaled_, 1.0, e_, g_explained);
    vectors_.axpy(g_k_qs.block, 2.0, scaled_.block);
    la_.product(g_k_ss, -1.0, transposed(e_), scaled_, true);
  }
  la_.trace(g_noise, 1.0, g_k_ss, true);
}

// ---- linear regression ----

LinearPosterior::LinearPosterior(LinearAlgebra& la, TaskVectors& vectors, int support, int query,
                                 int inputs, int outputs, bool with_variance)
    : la_(la),
      vectors_(vectors),
      primal_(inputs <= support),
      empty_(support == 0),
      kernel_(la, vectors, primal_ ? 0 : support, primal_ ? 0 : query, outputs),
      mean_(la.matrix(query, outputs)) {
  if (with_variance) variance_ = la.matrix(query, 1);
  if (!primal_) {
    k_ss_ = la.matrix(support, support);
    k_qs_ = la.matrix(query, support);
    g_k_ss_ = la.matrix(support, support);
    g_k_qs_ = la.matrix(query, support);
    if (with_variance) {
      explained_ = la.matrix(query, 1);
      g_explained_ = la.matrix(query, 1);
    }
    return;
  }
  a_ = la.matrix(inputs, inputs);
  l_ = la.matrix(inputs, inputs);
  w_ = la.matrix(inputs, outputs);
  g_w_ = la.matrix(inputs, outputs);
  g_a_ = la.matrix(inputs, inputs);
  if (with_variance) {
    half_ = la.matrix(query, inputs);
    e_ = la.matrix(query, inputs);
    scaled_ = la.matrix(query, inputs);
    solved_ = la.matrix(query, 1);
  }
}

// Primal: A = X_S^T X_S + noise I, w = A^-1 X_S^T r; the posterior variance of f is
// noise x A^-1 x^T.

void LinearPosterior::fit(const Matrix& x_s, const Matrix& noise, const Matrix& r,
                          const Matrix& jittered) {
  if (empty_) return;
  if (!primal_) {
    la_.product(k_ss_, 1.0, x_s, transposed(x_s));
    return kernel_.fit(k_ss_, noise, r, jittered);
  }
  la_.product(a_, 1.0, transposed(x_s), x_s);
  la_.add_diagonal(a_, 1.0, noise);
  la_.cholesky(l_, a_, jittered);
  la_.product(w_, 1.0, transposed(x_s), r);
  la_.solve_triangular(l_, Side::left, w_);
  la_.solve_triangular(transposed(l_), Side::left, w_);
}

std::vector<Matrix> LinearPosterior::fitted(const Matrix& x_s) const {
  if (empty_) return {};
  if (primal_) return {w_, l_};
  std::vector<Matrix> matrices = kernel_.fitted();
  matrices.push_back(x_s);
  return matrices;
}

void LinearPosterior::query(const Matrix& x_s, const Matrix& x_q, const Matrix& noise) {
  if (primal_) {
    la_.product(mean_, 1.0, x_q, w_);
    if (!variance_) return;
    vectors_.copy(half_.block, x_q.block);
    la_.solve_triangular(transposed(l_), Side::right, half_);
    la_.sum(solved_, 1.0, half_, half_);
    la_.multiply(variance_, 1.0, solved_, noise);
    return;
  }
  if (variance_) la_.sum(variance_, 1.0, x_q, x_q);
  if (empty_) return vectors_.fill(mean_.block, 0.0);
  la_.product(k_qs_, 1.0, x_q, transposed(x_s));
  kernel_.query(k_qs_, mean_, explained_);
  if (variance_) vectors_.axpy(variance_.block, -1.0, explained_.block);
}

void LinearPosterior::covariance(const Matrix& x_q, const Matrix& noise, const Matrix& c) {
  if (primal_) {
    la_.product(c, 1.0, half_, transposed(half_));
    la_.multiply(c, 1.0, c, noise);
    return;
  }
  la_.product(c, 1.0, x_q, transposed(x_q));
  if (!empty_) kernel_.subtract_explained(c);
}

void LinearPosterior::pullback(const Matrix& x_s, const Matrix& x_q, const Matrix& noise,
                               const Matrix& r, const Matrix& g_mean, const Matrix& g_variance,
                               const Matrix& g_x_s, const Matrix& g_x_q, const Matrix& g_noise,
                               const Matrix& g_r) {
  if (primal_) {
    return pullback_primal(x_s, x_q, noise, r, g_mean, g_variance, g_x_s, g_x_q, g_noise, g_r);
  }
  if (variance_) {
    la_.multiply(g_x_q, 2.0, x_q, g_variance);
    if (!empty_) {
      vectors_.fill(g_explained_.block, 0.0);
      vectors_.axpy(g_explained_.block, -1.0, g_variance.block);
    }
  } else {
    vectors_.fill(g_x_q.block, 0.0);
  }
  if (empty_) return;
  kernel_.pullback(k_qs_, g_mean, g_explained_, g_k_ss_, g_k_qs_, g_noise, g_r);
  la_.product(g_x_q, 1.0, g_k_qs_, x_s, true);
  la_.product(g_x_s, 1.0, transposed(g_k_qs_), x_q);
  la_.product(g_x_s, 1.0, g_k_ss_, x_s, true);
  la_.product(g_x_s, 1.0, transposed(g_k_ss_), x_s, true);
}

void LinearPosterior::pullback_primal(const Matrix& x_s, const Matrix& x_q, const Matrix& noise,
                                      const Matrix& r, const Matrix& g_mean,
                                      const Matrix& g_variance, const Matrix& g_x_s,
                                      const Matrix& g_x_q, const Matrix& g_noise,
                                      const Matrix& g_r) {
  la_.product(g_w_, 1.0, transposed(x_q), g_mean);
  la_.product(g_x_q, 1.0, g_mean, transposed(w_));
  // Through w = A^-1 b, b = X_S^T r.
  la_.solve_triangular(l_, Side::left, g_w_);
  la_.solve_triangular(transposed(l_), Side::left, g_w_);
  la_.product(g_a_, -1.0, g_w_, transposed(w_));
  la_.product(g_r, 1.0, x_s, g_w_);
  la_.product(g_x_s, 1.0, r, transposed(g_w_));
  if (g_variance) {
    // With e = X_Q A^-1, the derivative of x A^-1 x^T is 2 e by X_Q and -e^T e by A
    la_.sum(g_noise, 1.0, g_variance, solved_, true);
    vectors_.copy(e_.block, half_.block);
    la_.solve_triangular(l_, Side::right, e_);
    la_.multiply(scaled_, 1.0, e_, g_variance);
    la_.multiply(scaled_, 1.0, scaled_, noise);
    vectors_.axpy(g_x_q.block, 2.0, scaled_.block);
    la_.product(g_a_, -1.0, transposed(e_), scaled_, true);
  }
  la_.trace(g_noise, 1.0, g_a_, true);
  la_.product(g_x_s, 1.0, x_s, g_a_, true);
  la_.product(g_x_s, 1.0, x_s, transposed(g_a_), true);
}

}  // namespace kshot
