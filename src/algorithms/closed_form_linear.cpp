// Heads that are linear in the features: r2d2, ridge regression (Bertinetto et al. 2019), and
// alpaca, Bayesian linear regression with a learned prior (Harrison et al. 2018). Formulas:
// docs/mathematics.md, "Closed-form heads".
#include <cmath>

#include "algorithms/closed_form.h"
#include "algorithms/posterior.h"

namespace kshot {
namespace {

using backend::Matrix;
using backend::Scale;
using backend::Set;
using backend::Side;
using backend::transposed;

/// The common part of both heads: inputs [z, 1] of both sets and their gradients.
class LinearHead : public Head {
 public:
  LinearHead(const HeadData& d, bool with_variance)
      : Head(d),
        posterior_(d.la, d.wave, d.support, d.query, d.features + 1, d.targets, with_variance),
        x_s_(matrix(d.support, d.features + 1)),
        x_q_(matrix(d.query, d.features + 1)),
        g_x_s_(matrix(d.support, d.features + 1)),
        g_x_q_(matrix(d.query, d.features + 1)),
        g_outputs_(matrix(d.query, d.targets)),
        g_r_(matrix(d.support, d.targets)) {}

 protected:
  void take_support() {
    if (d_.support > 0) append_ones(x_s_, d_.z_s, Set::support);
  }
  void take_query() { append_ones(x_q_, d_.z_q, Set::query); }
  void give_gradients() {
    if (d_.support > 0) drop_ones(d_.g_s, g_x_s_);
    drop_ones(d_.g_q, g_x_q_);
  }

  LinearPosterior posterior_;
  Matrix x_s_, x_q_, g_x_s_, g_x_q_, g_outputs_, g_r_;
};

class R2d2Head final : public LinearHead {
 public:
  R2d2Head(const HeadData& d, const Config& config)
      : LinearHead(d, false),
        classify_(config.loss.type == LossType::cross_entropy),
        lambda_(scalar()),
        g_lambda_(scalar()),
        scale_(scalar()),
        own_classes_(matrix(1, d.targets)),
        logits_(matrix(d.query, d.targets)),
        outputs_(matrix(d.query, d.targets)) {}

  void prepare() override {
    exponential(lambda_, 1.0, d_.parameters[0]);
    if (classify_) exponential(scale_, 1.0, d_.parameters[1]);
  }
  void fit() override {
    take_support();
    posterior_.fit(x_s_, lambda_, d_.y_s, d_.jittered);
  }
  std::vector<Matrix> fitted() const override { return posterior_.fitted(x_s_); }
  void query() override {
    take_query();
    posterior_.query(x_s_, x_q_, lambda_);
    if (!classify_) return;
    d_.la.multiply(logits_, 1.0, posterior_.mean(), scale_);
    d_.la.class_indicator(own_classes_);
    d_.la.multiply(outputs_, 1.0, logits_, own_classes_);
  }

  void differentiate() override {
    predict();
    const Scale mean{1.0, Scale::By::query};
    if (classify_) {
      d_.la.cross_entropy(d_.loss, Set::query, mean, logits_, d_.y_q, g_outputs_);
      d_.la.sum(d_.gradients[1], 1.0, g_outputs_, logits_, true);
      d_.la.multiply(g_outputs_, 1.0, g_outputs_, scale_);
    } else {
      d_.la.squared_error(d_.loss, Set::query, mean, posterior_.mean(), d_.y_q, g_outputs_);
    }
    zero(g_lambda_);
    posterior_.pullback(x_s_, x_q_, lambda_, d_.y_s, g_outputs_, {}, g_x_s_, g_x_q_, g_lambda_,
                        g_r_);
    d_.la.multiply(d_.gradients[0], 1.0, g_lambda_, lambda_, true);
    give_gradients();
  }
  Matrix outputs() const override { return classify_ ? outputs_ : posterior_.mean(); }

 private:
  bool classify_;
  Matrix lambda_, g_lambda_, scale_, own_classes_, logits_, outputs_;
};

/// In whitened inputs u = L^-1 [z, 1], the prior on the weights is standard normal around the prior
/// mean's predictions, and the noise, relative to the noise of an output, is one. With U = X L^-T,
/// the head is therefore LinearPosterior on the residuals Y - X prior_mean. The variance of a query
/// row is (1 + variance of f) exp(2 log_noise).
class AlpacaHead final : public LinearHead {
 public:
  AlpacaHead(const HeadData& d, const Config& /*config*/)
      : LinearHead(d, true),
        factor_(square()),
        g_factor_(square()),
        u_s_(matrix(d.support, d.features + 1)),
        u_q_(matrix(d.query, d.features + 1)),
        one_(scalar()),
        g_one_(scalar()),
        r_(matrix(d.support, d.targets)),
        mean_(matrix(d.query, d.targets)),
        ratio_(matrix(d.query, 1)),
        g_ratio_(matrix(d.query, 1)),
        noise_(matrix(1, d.targets)),
        g_noise_(matrix(1, d.targets)),
        variance_(matrix(d.query, d.targets)),
        g_variance_(matrix(d.query, d.targets)) {}

  void prepare() override {
    d_.la.unpack_factor(factor_, d_.parameters[1]);
    d_.wave.fill(one_.block, 1.0);
    exponential(noise_, 2.0, d_.parameters[2]);
  }
  void fit() override {
    if (d_.support == 0) return;
    take_support();
    d_.wave.copy(u_s_.block, x_s_.block);
    d_.la.solve_triangular(transposed(factor_), Side::right, u_s_);
    d_.wave.copy(r_.block, d_.y_s.block);
    d_.la.product(r_, -1.0, x_s_, d_.parameters[0], true);
    posterior_.fit(u_s_, one_, r_, d_.jittered);
  }
  std::vector<Matrix> fitted() const override { return posterior_.fitted(u_s_); }
  void query() override {
    take_query();
    d_.wave.copy(u_q_.block, x_q_.block);
    d_.la.solve_triangular(transposed(factor_), Side::right, u_q_);
    posterior_.query(u_s_, u_q_, one_);
    d_.wave.copy(mean_.block, posterior_.mean().block);
    d_.la.product(mean_, 1.0, x_q_, d_.parameters[0], true);
    d_.la.row_indicator(ratio_, Set::query);
    add(ratio_, 1.0, posterior_.variance());
    d_.la.product(variance_, 1.0, ratio_, noise_);
  }

  void differentiate() override {
    predict();
    d_.la.gaussian_nll(d_.loss, Set::query, {1.0, Scale::By::query}, mean_, variance_, d_.y_q,
                       g_outputs_, g_variance_);
    // variance = ratio noise
    d_.la.product(g_ratio_, 1.0, g_variance_, transposed(noise_));
    d_.la.product(g_noise_, 1.0, transposed(ratio_), g_variance_);
    d_.la.multiply(d_.gradients[2], 2.0, g_noise_, noise_, true);
    // mean = X prior_mean + posterior mean of the residuals in U. g_x first holds the gradient by
    // U.
    zero(g_one_);  // the pull-back adds to it, and nothing reads it
    posterior_.pullback(u_s_, u_q_, one_, r_, g_outputs_, g_ratio_, g_x_s_, g_x_q_, g_one_, g_r_);
    zero(g_factor_);
    unwhiten(u_q_, g_x_q_);
    d_.la.product(d_.gradients[0], 1.0, transposed(x_q_), g_outputs_, true);
    d_.la.product(g_x_q_, 1.0, g_outputs_, transposed(d_.parameters[0]), true);
    if (d_.support > 0) {
      unwhiten(u_s_, g_x_s_);
      d_.la.product(d_.gradients[0], -1.0, transposed(x_s_), g_r_, true);
      d_.la.product(g_x_s_, -1.0, g_r_, transposed(d_.parameters[0]), true);
    }
    d_.la.unpack_factor_pullback(d_.gradients[1], factor_, g_factor_);
    give_gradients();
  }
  Matrix outputs() const override { return mean_; }
  Matrix variance() const override { return variance_; }
  Matrix covariance() override {
    if (d_.targets != 1) return {};
    if (!covariance_) covariance_ = matrix(d_.query, d_.query);
    posterior_.covariance(u_q_, one_, covariance_);
    d_.la.multiply(covariance_, 1.0, covariance_, noise_);
    return covariance_;
  }

 private:
  Matrix square() { return matrix(d_.features + 1, d_.features + 1); }
  /// Pull-back of U = X L^-T. Turns g, the gradient by U, into the gradient by X, g_X = g_U L^-1,
  /// and adds -g_X^T U to the gradient by L.
  void unwhiten(const Matrix& u, const Matrix& g) {
    d_.la.solve_triangular(factor_, Side::right, g);
    d_.la.product(g_factor_, -1.0, transposed(g), u, true);
  }

  Matrix covariance_;  ///< made at the first request
  Matrix factor_, g_factor_, u_s_, u_q_, one_, g_one_, r_, mean_, ratio_, g_ratio_, noise_,
      g_noise_, variance_, g_variance_;
};

template <typename T>
std::unique_ptr<Head> make_linear_head(const HeadData& data, const Config& config) {
  return std::make_unique<T>(data, config);
}

}  // namespace

/// lambda begins at 1, as in the paper's code. The logits begin at the scale of the fit.
HeadSpec r2d2_head(const Config& config, int /*features*/) {
  HeadSpec spec{{{"log_lambda", {1}, {0.0}}}, false, make_linear_head<R2d2Head>};
  if (config.loss.type == LossType::cross_entropy) {
    spec.tensors.push_back({"log_scale", {1}, {0.0}});
    spec.every_class = true;
  }
  return spec;
}

/// The prior is standard normal: mean zero and precision one. The noise begins at a standard
/// deviation of exp(-1) = 0.37, below that of standardized targets, so that the first steps
/// explain the targets by the features and not by the noise.
HeadSpec alpaca_head(const Config& config, int features) {
  const int p = features + 1, outputs = config.alpaca.outputs;
  const auto zeros = [](int n) { return std::vector<double>(static_cast<std::size_t>(n), 0.0); };
  return {{{"prior_mean", {p, outputs}, zeros(p * outputs)},
           {"prior_factor", {p, p}, zeros(p * p)},
           {"log_noise", {outputs}, std::vector<double>(static_cast<std::size_t>(outputs), -1.0)}},
          false,
          make_linear_head<AlpacaHead>};
}

}  // namespace kshot
