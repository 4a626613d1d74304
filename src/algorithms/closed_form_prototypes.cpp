// Heads of class prototypes: protonet (Snell et al. 2017) and bayes_protonet, Gaussian classes with
// a learned prior on their means (Harrison et al. 2020). Formulas: docs/mathematics.md,
// "Closed-form heads".
#include <cmath>

#include "algorithms/closed_form.h"

namespace kshot {
namespace {

using backend::Function;
using backend::LinearAlgebra;
using backend::Matrix;
using backend::Scale;
using backend::Set;
using backend::transposed;

/// The common part of both heads: sums over the classes' support rows, and logits of the tasks' own
/// classes.
class ClassHead : public Head {
 public:
  explicit ClassHead(const HeadData& d)
      : Head(d),
        counts_(matrix(d.targets, 1)),
        sums_(matrix(d.targets, d.features)),
        own_classes_(matrix(1, d.targets)),
        own_rows_(matrix(d.query, 1)),
        logits_(matrix(d.query, d.targets)),
        g_logits_(matrix(d.query, d.targets)),
        outputs_(matrix(d.query, d.targets)) {}
  Matrix outputs() const override { return outputs_; }

 protected:
  /// Computes counts [classes, 1] and sums [classes, d] of the support features.
  void count_and_sum() {
    if (d_.support == 0) {
      zero(counts_);
      zero(sums_);
      return;
    }
    d_.la.sum(LinearAlgebra::reshaped(counts_, 1, d_.targets), 1.0, d_.y_s, {});
    d_.la.product(sums_, 1.0, transposed(d_.y_s), d_.z_s);
  }
  /// Sets outputs_ to the logits of the task's own rows and classes, and to zero elsewhere.
  void mask_logits() {
    d_.la.row_indicator(own_rows_, Set::query);
    d_.la.multiply(outputs_, 1.0, logits_, own_classes_);
    d_.la.multiply(outputs_, 1.0, outputs_, own_rows_);
  }
  /// Computes the mean query loss and its gradient by the logits.
  void loss() {
    d_.la.cross_entropy(d_.loss, Set::query, {1.0, Scale::By::query}, logits_, d_.y_q, g_logits_);
  }

  Matrix counts_, sums_, own_classes_, own_rows_, logits_, g_logits_, outputs_;
};

class ProtonetHead final : public ClassHead {
 public:
  ProtonetHead(const HeadData& d, const Config& config)
      : ClassHead(d),
        euclidean_(config.protonet.metric == Metric::euclidean),
        scale_(scalar()),
        absent_(matrix(1, d.targets)),
        centres_(matrix(d.targets, d.features)),
        g_centres_(matrix(d.targets, d.features)),
        similarity_(matrix(d.query, d.targets)),
        g_similarity_(matrix(d.query, d.targets)) {}

  void prepare() override {
    d_.la.class_indicator(own_classes_);
    exponential(scale_, 1.0, d_.parameters[0]);
  }
  void fit() override {
    count_and_sum();
    // A class that the task does not have is divided by one instead of zero.
    d_.wave.fill(absent_.block, 1.0);
    add(absent_, -1.0, own_classes_);
    d_.wave.axpy(counts_.block, 1.0, absent_.block);
    d_.wave.apply(counts_.block, Function::reciprocal, counts_.block);
    d_.la.multiply(centres_, 1.0, sums_, counts_);
  }
  std::vector<Matrix> fitted() const override { return {centres_}; }
  void query() override {
    if (euclidean_) {
      d_.la.distances(similarity_, d_.z_q, centres_, {});
    } else {
      d_.la.cosines(similarity_, d_.z_q, centres_);
    }
    d_.la.multiply(logits_, sign(), similarity_, scale_);
    mask_logits();
  }

  void differentiate() override {
    predict();
    loss();
    d_.la.sum(d_.gradients[0], 1.0, g_logits_, logits_, true);
    d_.la.multiply(g_similarity_, sign(), g_logits_, scale_);
    zero(g_centres_);
    if (euclidean_) {
      d_.la.distances_pullback(g_similarity_, d_.z_q, centres_, {}, d_.g_q, g_centres_, {});
    } else {
      d_.la.cosines_pullback(g_similarity_, d_.z_q, centres_, d_.g_q, g_centres_);
    }
    d_.la.multiply(g_centres_, 1.0, g_centres_, counts_);
    d_.la.product(d_.g_s, 1.0, d_.y_s, g_centres_, true);
  }

 private:
  double sign() const { return euclidean_ ? -1.0 : 1.0; }

  bool euclidean_;
  Matrix scale_, absent_, centres_, g_centres_, similarity_, g_similarity_;
};

/// tau = exp(-2 prior_log_std), rho = exp(-2 log_std) and v = exp(2 log_std) are [1, d]. Each class
/// and feature has the precision P = tau + k rho, T = 1 / P, N = tau prior_mean + rho * sums, the
/// mean M = N T, the variance V = v + T, and R = 1 / V.
class BayesProtonetHead final : public ClassHead {
 public:
  BayesProtonetHead(const HeadData& d, const Config& /*config*/)
      : ClassHead(d),
        tau_(row()),
        rho_(row()),
        v_(row()),
        prior_(row()),
        g_row_(row()),
        g_tau_(row()),
        g_rho_(row()),
        ones_classes_(matrix(d.targets, 1)),
        ones_rows_(matrix(d.query, 1)),
        t_(per_class()),
        n_(per_class()),
        m_(per_class()),
        variance_(per_class()),
        r_(per_class()),
        scratch_(per_class()),
        g_m_(per_class()),
        g_v_(per_class()),
        g_n_(per_class()),
        g_p_(per_class()),
        log_volume_(matrix(d.targets, 1)),
        g_sums_(matrix(1, d.targets)),
        distances_(matrix(d.query, d.targets)) {}

  void prepare() override {
    d_.la.class_indicator(own_classes_);
    d_.wave.fill(ones_classes_.block, 1.0);
    d_.wave.fill(ones_rows_.block, 1.0);
    exponential(tau_, -2.0, prior_log_std());
    exponential(rho_, -2.0, log_std());
    exponential(v_, 2.0, log_std());
    d_.la.multiply(prior_, 1.0, tau_, d_.parameters[0]);
  }
  void fit() override {
    count_and_sum();
    d_.la.product(t_, 1.0, ones_classes_, tau_);
    d_.la.product(t_, 1.0, counts_, rho_, true);
    d_.wave.apply(t_.block, Function::reciprocal, t_.block);
    d_.la.multiply(n_, 1.0, sums_, rho_);
    d_.la.product(n_, 1.0, ones_classes_, prior_, true);
    d_.la.multiply(m_, 1.0, n_, t_);
    d_.la.product(variance_, 1.0, ones_classes_, v_);
    add(variance_, 1.0, t_);
    d_.wave.apply(r_.block, Function::reciprocal, variance_.block);
    d_.wave.apply(scratch_.block, Function::logarithm, variance_.block);
    d_.la.sum(log_volume_, 1.0, scratch_, {});
  }
  std::vector<Matrix> fitted() const override { return {m_, r_, log_volume_}; }
  void query() override {
    d_.la.distances(distances_, d_.z_q, m_, r_);
    d_.la.product(logits_, -0.5, ones_rows_, transposed(log_volume_));
    add(logits_, -0.5, distances_);
    mask_logits();
  }

  void differentiate() override {
    predict();
    loss();
    // logit = -1/2 distance(z, M; R) - 1/2 sum log V, with R = 1 / V
    d_.la.sum(g_sums_, 1.0, g_logits_, {});
    d_.wave.fill(distances_.block, 0.0);
    add(distances_, -0.5, g_logits_);
    zero(g_m_);
    zero(scratch_);
    d_.la.distances_pullback(distances_, d_.z_q, m_, r_, d_.g_q, g_m_, scratch_);
    d_.la.multiply(scratch_, 1.0, scratch_, r_);
    d_.la.multiply(g_v_, -1.0, scratch_, r_);
    d_.la.multiply(g_v_, -0.5, r_, LinearAlgebra::reshaped(g_sums_, d_.targets, 1), true);
    // M = N T, V = v + T, T = 1 / P
    d_.la.multiply(g_n_, 1.0, g_m_, t_);
    d_.la.multiply(g_p_, 1.0, g_m_, n_);
    add(g_p_, 1.0, g_v_);
    d_.la.multiply(g_p_, 1.0, g_p_, t_);
    d_.la.multiply(g_p_, -1.0, g_p_, t_);
    // N = tau prior_mean + rho sums, P = tau + k rho
    d_.la.sum(g_row_, 1.0, g_n_, {});
    d_.la.multiply(d_.gradients[0], 1.0, g_row_, tau_, true);
    d_.la.sum(g_tau_, 1.0, g_p_, {});
    d_.la.multiply(g_tau_, 1.0, g_row_, d_.parameters[0], true);
    d_.la.multiply(d_.gradients[1], -2.0, tau_, g_tau_, true);
    d_.la.sum(g_rho_, 1.0, g_n_, sums_);
    d_.la.product(g_rho_, 1.0, transposed(counts_), g_p_, true);
    d_.la.multiply(d_.gradients[2], -2.0, rho_, g_rho_, true);
    d_.la.sum(g_row_, 1.0, g_v_, {});
    d_.la.multiply(d_.gradients[2], 2.0, v_, g_row_, true);
    if (d_.support == 0) return;
    d_.la.multiply(g_n_, 1.0, g_n_, rho_);
    d_.la.product(d_.g_s, 1.0, d_.y_s, g_n_, true);
  }

 private:
  const Matrix& prior_log_std() const { return d_.parameters[1]; }
  const Matrix& log_std() const { return d_.parameters[2]; }
  Matrix row() { return matrix(1, d_.features); }
  Matrix per_class() { return matrix(d_.targets, d_.features); }

  Matrix tau_, rho_, v_, prior_, g_row_, g_tau_, g_rho_, ones_classes_, ones_rows_;
  Matrix t_, n_, m_, variance_, r_, scratch_, g_m_, g_v_, g_n_, g_p_;
  Matrix log_volume_, g_sums_, distances_;
};

template <typename T>
std::unique_ptr<Head> make_prototype_head(const HeadData& data, const Config& config) {
  return std::make_unique<T>(data, config);
}

}  // namespace

/// The scale of squared Euclidean distances begins at one. Cosines lie in [-1, 1], where a scale of
/// one allows a factor of at most exp(2) between classes. Their scale therefore begins at ten.
HeadSpec protonet_head(const Config& config, int /*features*/) {
  const double scale = config.protonet.metric == Metric::euclidean ? 0.0 : std::log(10.0);
  return {{{"log_scale", {1}, {scale}}}, true, make_prototype_head<ProtonetHead>};
}

/// The prior on class means is standard normal, and the classes have the same standard deviation.
HeadSpec bayes_protonet_head(const Config& /*config*/, int features) {
  const std::vector<double> zeros(static_cast<std::size_t>(features), 0.0);
  return {{{"prior_mean", {features}, zeros},
           {"prior_log_std", {features}, zeros},
           {"log_std", {features}, zeros}},
          false,
          make_prototype_head<BayesProtonetHead>};
}

}  // namespace kshot
