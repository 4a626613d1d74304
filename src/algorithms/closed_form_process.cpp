// dkt: a Gaussian process on learned features (deep kernel transfer, Patacchiola et al. 2020).
// Formulas: docs/mathematics.md, "Closed-form heads".
#include <cmath>
#include <numbers>

#include "algorithms/closed_form.h"
#include "algorithms/posterior.h"

namespace kshot {
namespace {

using backend::Function;
using backend::Matrix;
using backend::Scale;
using backend::Set;
using backend::Side;
using backend::transposed;

/// Parameters of the kernel: amplitude [1, 1] is exp(2 log_amplitude), precision [1, 1] is exp(-2
/// log_length).
struct KernelParameters {
  Matrix amplitude, precision;
  Matrix g_log_amplitude, g_log_length;  ///< gradients, which are added to
};

/// A kernel matrix between rows of features, and its derivatives by the features and by the
/// kernel's parameters.
class KernelMatrix {
 public:
  KernelMatrix(const HeadData& d, Kernel kernel, Set rows, int row_count, Set columns,
               int column_count)
      : d_(d),
        kernel_(kernel),
        rows_(rows),
        columns_(columns),
        k_(d.la.matrix(row_count, column_count)),
        similarity_(d.la.matrix(row_count, column_count)),
        scratch_(d.la.matrix(row_count, column_count)),
        own_rows_(d.la.matrix(row_count, 1)),
        own_columns_(d.la.matrix(column_count, 1)) {}

  const Matrix& k() const { return k_; }

  /// Computes the kernel matrix of the rows of a and b. Rows that a task does not have are zero.
  void compute(const Matrix& a, const Matrix& b, const KernelParameters& p) {
    switch (kernel_) {
      case Kernel::linear:
        d_.la.product(similarity_, 1.0, a, transposed(b));
        break;
      case Kernel::cosine:
        d_.la.cosines(similarity_, a, b);
        break;
      case Kernel::rbf:
        d_.la.distances(similarity_, a, b, {});
        d_.la.multiply(scratch_, -0.5, similarity_, p.precision);
        d_.wave.exponential(scratch_.block, scratch_.block);
        d_.la.multiply(k_, 1.0, scratch_, p.amplitude);
        return mask(k_);
    }
    d_.la.multiply(k_, 1.0, similarity_, p.amplitude);
  }

  /// Adds to g_a and g_b, which may be the same matrix, and to the parameters' gradients.
  /// Overwrites g.
  void pullback(const Matrix& a, const Matrix& b, const KernelParameters& p, const Matrix& g,
                const Matrix& g_a, const Matrix& g_b) {
    d_.la.sum(p.g_log_amplitude, 2.0, g, k_, true);
    if (kernel_ == Kernel::rbf) {
      // k = amplitude exp(-precision distance / 2), precision = exp(-2 log_length)
      d_.la.multiply(g, 1.0, g, k_);
      d_.la.multiply(g, 1.0, g, p.precision);
      d_.la.sum(p.g_log_length, 1.0, g, similarity_, true);
      d_.wave.fill(scratch_.block, 0.0);
      d_.wave.axpy(scratch_.block, -0.5, g.block);
      d_.la.distances_pullback(scratch_, a, b, {}, g_a, g_b, {});
      return;
    }
    d_.la.multiply(scratch_, 1.0, g, p.amplitude);
    if (kernel_ == Kernel::cosine) {
      d_.la.cosines_pullback(scratch_, a, b, g_a, g_b);
    } else {
      d_.la.product(g_a, 1.0, scratch_, b, true);
      d_.la.product(g_b, 1.0, transposed(scratch_), a, true);
    }
  }

  /// Sets m to zero outside of the tasks' own rows and columns.
  void mask(const Matrix& m) {
    d_.la.row_indicator(own_rows_, rows_);
    d_.la.row_indicator(own_columns_, columns_);
    d_.la.multiply(m, 1.0, m, own_rows_);
    d_.la.multiply(m, 1.0, m, backend::LinearAlgebra::reshaped(own_columns_, 1, m.columns));
  }

 private:
  const HeadData& d_;
  Kernel kernel_;
  Set rows_, columns_;
  Matrix k_, similarity_, scratch_, own_rows_, own_columns_;
};

class DktHead final : public Head {
 public:
  DktHead(const HeadData& d, const Config& config)
      : Head(d),
        kernel_(config.dkt.kernel),
        marginal_(config.dkt.objective == ProcessObjective::marginal),
        posterior_(d.la, d.wave, d.support, d.query, d.targets),
        k_ss_(d_, kernel_, Set::support, d.support, Set::support, d.support),
        k_qs_(d_, kernel_, Set::query, d.query, Set::support, d.support),
        amplitude_(scalar()),
        precision_(scalar()),
        noise_(scalar()),
        g_noise_(scalar()),
        r_(matrix(d.support, d.targets)),
        g_r_(matrix(d.support, d.targets)),
        own_s_(matrix(d.support, 1)),
        own_q_(matrix(d.query, 1)),
        mean_(matrix(d.query, d.targets)),
        g_mean_(matrix(d.query, d.targets)),
        prior_variance_(matrix(d.query, 1)),
        squares_(matrix(d.query, 1)),
        slope_(matrix(d.query, 1)),
        explained_(matrix(d.query, 1)),
        row_variance_(matrix(d.query, 1)),
        g_row_variance_(matrix(d.query, 1)),
        g_explained_(matrix(d.query, 1)),
        ones_(matrix(1, d.targets)),
        variance_(matrix(d.query, d.targets)),
        g_variance_(matrix(d.query, d.targets)),
        g_k_ss_(matrix(d.support, d.support)),
        g_k_qs_(matrix(d.query, d.support)) {
    if (marginal_) make_marginal();
  }

  void prepare() override {
    exponential(amplitude_, 2.0, d_.parameters[0]);
    exponential(noise_, 2.0, d_.parameters[1]);
    if (kernel_ == Kernel::rbf) exponential(precision_, -2.0, d_.parameters[3]);
  }
  void fit() override {
    if (d_.support == 0) return;
    d_.la.row_indicator(own_s_, Set::support);
    d_.wave.copy(r_.block, d_.y_s.block);
    d_.la.product(r_, -1.0, own_s_, mean_parameter(), true);
    k_ss_.compute(d_.z_s, d_.z_s, parameters());
    posterior_.fit(k_ss_.k(), noise_, r_, d_.jittered);
  }
  std::vector<Matrix> fitted() const override {
    if (d_.support == 0) return {};
    std::vector<Matrix> matrices = posterior_.fitted();
    matrices.push_back(d_.z_s);
    return matrices;
  }
  void query() override {
    d_.la.row_indicator(own_q_, Set::query);
    prior_variance();
    if (d_.support > 0) {
      k_qs_.compute(d_.z_q, d_.z_s, parameters());
      posterior_.query(k_qs_.k(), mean_, explained_);
    } else {
      zero(mean_);
      zero(explained_);
    }
    d_.la.product(mean_, 1.0, own_q_, mean_parameter(), true);
    d_.wave.copy(row_variance_.block, prior_variance_.block);
    add(row_variance_, -1.0, explained_);
    d_.la.multiply(row_variance_, 1.0, own_q_, noise_, true);
    d_.wave.fill(ones_.block, 1.0);
    d_.la.product(variance_, 1.0, row_variance_, ones_);
  }

  void differentiate() override {
    zero(g_noise_);
    if (marginal_) {
      prepare();
      differentiate_marginal();
    } else {
      predict();
      differentiate_predictive();
    }
    d_.la.multiply(d_.gradients[1], 2.0, g_noise_, noise_, true);
  }
  Matrix outputs() const override { return mean_; }
  Matrix variance() const override { return variance_; }
  Matrix covariance() override {
    if (d_.targets != 1) return {};
    if (!k_qq_) {
      k_qq_ =
          std::make_unique<KernelMatrix>(d_, kernel_, Set::query, d_.query, Set::query, d_.query);
    }
    k_qq_->compute(d_.z_q, d_.z_q, parameters());
    if (d_.support > 0) posterior_.subtract_explained(k_qq_->k());
    return k_qq_->k();
  }

 private:
  // ---- parameters, in the order of dkt_head ----
  const Matrix& mean_parameter() const { return d_.parameters[2]; }
  KernelParameters parameters() const {
    return {amplitude_, precision_, d_.gradients[0],
            kernel_ == Kernel::rbf ? d_.gradients[3] : Matrix{}};
  }
  /// Computes k(z, z) of the query rows. squares_ is ||z||^2 (linear and cosine kernels), and
  /// slope_ is 1 / (||z||^2 + epsilon) (cosine kernel).
  void prior_variance() {
    if (kernel_ == Kernel::rbf) {
      d_.la.multiply(prior_variance_, 1.0, own_q_, amplitude_);
      return;
    }
    d_.la.sum(squares_, 1.0, d_.z_q, d_.z_q);
    if (kernel_ == Kernel::linear) {
      d_.la.multiply(prior_variance_, 1.0, squares_, amplitude_);
      return;
    }
    d_.wave.fill(slope_.block, backend::cosine_epsilon);
    add(slope_, 1.0, squares_);
    d_.wave.apply(slope_.block, Function::reciprocal, slope_.block);
    d_.la.multiply(prior_variance_, 1.0, squares_, slope_);
    d_.la.multiply(prior_variance_, 1.0, prior_variance_, amplitude_);
  }
  /// Pulls back g, the gradient by k(z, z) of the query rows, to the query features and
  /// log_amplitude.
  void prior_variance_pullback(const Matrix& g) {
    d_.la.sum(d_.gradients[0], 2.0, g, prior_variance_, true);
    if (kernel_ == Kernel::rbf) return;
    d_.la.multiply(slope_, 2.0, g, amplitude_);
    if (kernel_ == Kernel::cosine) {
      // s / (s + epsilon) has the derivative epsilon / (s + epsilon)^2
      d_.wave.fill(explained_.block, backend::cosine_epsilon);
      add(explained_, 1.0, squares_);
      d_.wave.apply(explained_.block, Function::reciprocal, explained_.block);
      d_.la.multiply(slope_, backend::cosine_epsilon, slope_, explained_);
      d_.la.multiply(slope_, 1.0, slope_, explained_);
    }
    d_.la.multiply(d_.g_q, 1.0, d_.z_q, slope_, true);
  }

  void differentiate_predictive() {
    d_.la.gaussian_nll(d_.loss, Set::query, {1.0, Scale::By::query}, mean_, variance_, d_.y_q,
                       g_mean_, g_variance_);
    d_.la.sum(g_row_variance_, 1.0, g_variance_, {});
    d_.la.sum(g_noise_, 1.0, g_row_variance_, {}, true);
    d_.la.sum(d_.gradients[2], 1.0, g_mean_, {}, true);
    prior_variance_pullback(g_row_variance_);
    if (d_.support == 0) return;
    zero(g_explained_);
    add(g_explained_, -1.0, g_row_variance_);
    posterior_.pullback(k_qs_.k(), g_mean_, g_explained_, g_k_ss_, g_k_qs_, g_noise_, g_r_);
    d_.la.sum(d_.gradients[2], -1.0, g_r_, {}, true);
    k_ss_.pullback(d_.z_s, d_.z_s, parameters(), g_k_ss_, d_.g_s, d_.g_s);
    k_qs_.pullback(d_.z_q, d_.z_s, parameters(), g_k_qs_, d_.g_q, d_.g_s);
  }

  // ---- marginal likelihood of support and query rows together ----
  void make_marginal() {
    const int n = d_.support + d_.query;
    k_all_ = std::make_unique<KernelMatrix>(d_, kernel_, Set::all, n, Set::all, n);
    z_all_ = matrix(n, d_.features);
    g_z_all_ = matrix(n, d_.features);
    r_all_ = matrix(n, d_.targets);
    alpha_ = matrix(n, d_.targets);
    own_all_ = matrix(n, 1);
    a_ = matrix(n, n);
    l_ = matrix(n, n);
    g_a_ = matrix(n, n);
    one_ = scalar();
    share_ = scalar();
    value_ = scalar();
  }
  /// Stacks the support rows and, below them, the query rows.
  void stack(const Matrix& dst, const Matrix& support, const Matrix& query) {
    d_.la.copy_part(dst, support, {.rows = d_.support, .columns = dst.columns});
    d_.la.copy_part(dst, query, {.dst_row = d_.support, .rows = d_.query, .columns = dst.columns});
  }

  /// Computes the loss (1/N) [1/2 sum r^T A^-1 r + outputs / 2 log det A + N outputs / 2 log 2 pi]
  /// over the N rows of both sets, and its gradients.
  void differentiate_marginal() {
    const auto outputs = static_cast<double>(d_.targets);
    stack(z_all_, d_.z_s, d_.z_q);
    stack(r_all_, d_.y_s, d_.y_q);
    d_.la.row_indicator(own_all_, Set::all);
    d_.la.product(r_all_, -1.0, own_all_, mean_parameter(), true);
    k_all_->compute(z_all_, z_all_, parameters());
    d_.wave.copy(a_.block, k_all_->k().block);
    d_.la.add_diagonal(a_, 1.0, noise_, Set::all);
    d_.la.cholesky(l_, a_, d_.jittered);
    d_.wave.copy(alpha_.block, r_all_.block);
    d_.la.solve_triangular(l_, Side::left, alpha_);
    d_.la.solve_triangular(transposed(l_), Side::left, alpha_);
    d_.wave.row_count(share_.block, Set::all);
    d_.wave.apply(share_.block, Function::reciprocal, share_.block);
    d_.la.sum(value_, 0.5, r_all_, alpha_);
    d_.la.log_determinant(value_, 0.5 * outputs, l_);
    d_.la.multiply(d_.loss, 1.0, value_, share_, true);
    d_.wave.fill(value_.block, 0.5 * outputs * std::log(2.0 * std::numbers::pi));
    add(d_.loss, 1.0, value_);

    // Gradient by A: (outputs A^-1 - alpha alpha^T) / (2 N). Gradient by r: alpha / N.
    d_.wave.fill(one_.block, 1.0);
    zero(g_a_);
    d_.la.add_diagonal(g_a_, 0.5 * outputs, one_);
    d_.la.solve_triangular(l_, Side::left, g_a_);
    d_.la.solve_triangular(transposed(l_), Side::left, g_a_);
    d_.la.product(g_a_, -0.5, alpha_, transposed(alpha_), true);
    d_.la.multiply(g_a_, 1.0, g_a_, share_);
    k_all_->mask(g_a_);
    d_.la.trace(g_noise_, 1.0, g_a_, true);
    d_.la.multiply(alpha_, 1.0, alpha_, share_);
    d_.la.sum(d_.gradients[2], -1.0, alpha_, {}, true);
    zero(g_z_all_);
    k_all_->pullback(z_all_, z_all_, parameters(), g_a_, g_z_all_, g_z_all_);
    d_.la.copy_part(d_.g_s, g_z_all_, {.rows = d_.support, .columns = d_.features});
    d_.la.copy_part(d_.g_q, g_z_all_,
                    {.src_row = d_.support, .rows = d_.query, .columns = d_.features});
  }

  Kernel kernel_;
  bool marginal_;
  KernelPosterior posterior_;
  KernelMatrix k_ss_, k_qs_;
  Matrix amplitude_, precision_, noise_, g_noise_, r_, g_r_, own_s_, own_q_, mean_, g_mean_;
  Matrix prior_variance_, squares_, slope_, explained_, row_variance_, g_row_variance_;
  Matrix g_explained_, ones_, variance_, g_variance_, g_k_ss_, g_k_qs_;
  std::unique_ptr<KernelMatrix> k_all_;
  std::unique_ptr<KernelMatrix> k_qq_;  ///< made at the first request
  Matrix z_all_, g_z_all_, r_all_, alpha_, own_all_, a_, l_, g_a_, one_, share_, value_;
};

std::unique_ptr<Head> make_process_head(const HeadData& data, const Config& config) {
  return std::make_unique<DktHead>(data, config);
}

}  // namespace

/// The amplitude begins at one. The noise begins at a standard deviation of exp(-1) = 0.37, below
/// that of standardized targets. Features of variance one lie sqrt(2 d) apart. The length begins at
/// sqrt(d), so that such rows correlate by exp(-1) and the kernel neither vanishes nor saturates.
HeadSpec dkt_head(const Config& config, int features) {
  const int outputs = config.dkt.outputs;
  HeadSpec spec{{{"log_amplitude", {1}, {0.0}},
                 {"log_noise", {1}, {-1.0}},
                 {"mean", {outputs}, std::vector<double>(static_cast<std::size_t>(outputs), 0.0)}},
                false,
                make_process_head};
  if (config.dkt.kernel == Kernel::rbf) {
    spec.tensors.push_back({"log_length", {1}, {0.5 * std::log(features)}});
  }
  return spec;
}

}  // namespace kshot
