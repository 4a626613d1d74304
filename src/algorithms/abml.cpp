// Amortized Bayesian meta-learning (Ravi & Beatson, ICLR 2019). The state of a task is a Gaussian
// over the weights, lambda = (mu, s = log sigma). The meta-learned theta = (mu, log_sigma) is the
// start of the inner loop and also its prior. docs/mathematics.md has the objective.
#include <fmt/format.h>

#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "algorithms/adaptation.h"
#include "algorithms/common.h"
#include "algorithms/factories.h"
#include "algorithms/observation_noise.h"
#include "backend/linear_algebra.h"

namespace kshot {
namespace {

using backend::Block;
using backend::Matrix;
using backend::Scale;
using backend::Set;
using backend::Shared;
using backend::Wave;

backend::Estimator estimator_of(Estimator estimator) {
  switch (estimator) {
    case Estimator::flipout:
      return backend::Estimator::flipout;
    case Estimator::local:
      return backend::Estimator::local;
    case Estimator::weight:
      break;
  }
  return backend::Estimator::weight;
}

/// A weight counts as moved where its log sigma differs from the prior's by more than this, which
/// is about one per cent of sigma.
constexpr double moved_threshold = 0.01;
/// Mean log sigma below which a posterior is a point for all practical purposes.
constexpr double collapsed_log_sigma = -9.0;

/// Values of the algorithm that its programs read. prepare() sets them.
struct AbmlShared {
  explicit AbmlShared(const ObservationNoise& of_config) : noise(of_config) {}
  Shared mu, s;
  RatePlan rates;
  ObservationNoise noise;
};

struct AbmlSpec {
  AdaptationSpec adaptation;
  Adaptation::GaussianOuter outer;
  int kl_warmup = 0;
  bool predictive = false;      ///< the outer loss is that of the predictive distribution ...
  int predictive_after = 0;     ///< ... after this number of meta-steps
  double noise_variance = 0.0;  ///< variance of the observation noise, for `predictive`

  /// The outer loss of meta-step `step`, which counts from 0. The weight of its KL grows linearly
  /// during the warm-up.
  Adaptation::GaussianOuter outer_at(std::uint64_t step) const {
    Adaptation::GaussianOuter now = outer;
    if (step + 1 < static_cast<std::uint64_t>(kl_warmup)) {
      now.kl_weight *= static_cast<double>(step + 1) / static_cast<double>(kl_warmup);
    }
    return now;
  }
  bool predictive_at(std::uint64_t step) const {
    return predictive && step >= static_cast<std::uint64_t>(predictive_after);
  }
};

/// The outer loss of the predictive distribution: the negative log likelihood of the query rows
/// under N(m, V), where m is the mean of the posterior samples' outputs, and V their variance
/// (unbiased) plus that of the noise. Every target value has its own m and V.
class PredictiveLoss {
 public:
  PredictiveLoss(Wave& wave, int rows, int outputs, int samples, double noise_variance)
      : wave_(wave), algebra_(wave.linear_algebra()), noise_variance_(noise_variance) {
    for (Matrix* m : {&targets_, &mean_, &variance_, &g_mean_, &g_variance_, &g_outputs_}) {
      *m = algebra_->matrix(rows, outputs);
    }
    for (int s = 0; s < samples; ++s) deviations_.push_back(algebra_->matrix(rows, outputs));
  }

  /// Adds the loss per query row to `loss` [1], and its gradient to `gradient`. `sample(i)` returns
  /// the pass of outer sample i over the query rows, and draws the same weights whenever it is
  /// called with this i.
  void differentiate(const std::function<backend::GaussianPass(int)>& sample, Block loss,
                     const StateBlocks& gradient) {
    backend::GaussianPasses& passes = wave_.gaussian_passes();
    const int samples = static_cast<int>(deviations_.size());
    const double share = 1.0 / samples, unbiased = 1.0 / (samples - 1);
    wave_.fill(mean_.block, 0.0);
    for (int s = 0; s < samples; ++s) {
      const Block outputs = deviations_[static_cast<std::size_t>(s)].block;
      passes.value(sample(s), {}, outputs, backend::NormStatistics::batch);
      wave_.axpy(mean_.block, share, outputs);
    }
    wave_.fill(variance_.block, noise_variance_);
    for (const Matrix& d : deviations_) {
      wave_.axpy(d.block, -1.0, mean_.block);
      wave_.multiply_add(variance_.block, unbiased, d.block, d.block);
    }
    algebra_->targets(targets_, Set::query);
    algebra_->gaussian_nll({loss, 1, 1}, Set::query, {1.0, Scale::By::query}, mean_, variance_,
                           targets_, g_mean_, g_variance_);
    for (int s = 0; s < samples; ++s) {
      // The deviations sum to zero, so that V depends on an output by its own deviation alone.
      const Block g = g_outputs_.block;
      wave_.fill(g, 0.0);
      wave_.axpy(g, share, g_mean_.block);
      wave_.multiply_add(g, 2.0 * unbiased, g_variance_.block,
                         deviations_[static_cast<std::size_t>(s)].block);
      passes.output_pullback(sample(s), g, gradient.mu, gradient.s);
    }
  }

 private:
  Wave& wave_;
  std::unique_ptr<backend::LinearAlgebra> algebra_;
  double noise_variance_;
  Matrix targets_, mean_, variance_, g_mean_, g_variance_, g_outputs_;
  std::vector<Matrix> deviations_;  ///< one per sample: its outputs, then less their mean
};

class AbmlProgram final : public TaskProgram {
 public:
  AbmlProgram(std::unique_ptr<Wave> wave, const Network& network, int query, const AbmlSpec& spec,
              const AbmlShared& shared)
      : wave_(std::move(wave)),
        width_(network.size()),
        adaptation_(*wave_, width_, spec.adaptation),
        spec_(spec),
        shared_(shared) {
    v_ = {wave_->weights(), wave_->weights()};
    prior_ = {wave_->weights(), wave_->weights()};
    loss_ = wave_->block(1);
    gradients_ = {prior_.mu, prior_.s};
    if (spec_.predictive) {
      predictive_.emplace(*wave_, query, network.outputs(), spec_.outer.samples,
                          spec_.noise_variance);
    }
    if (spec_.adaptation.learn_rates) {
      rate_gradients_ = {wave_->weights(), wave_->weights()};
      gradients_.insert(gradients_.end(), rate_gradients_.begin(), rate_gradients_.end());
    }
    if (!shared_.noise.learned()) return;
    noise_.emplace(*wave_, shared_.noise);
    gradients_.push_back(noise_->gradient());
    adaptation_.learn_noise(noise_->kappa(), noise_->gradient());
  }

  Wave& wave() override { return *wave_; }

  void meta_gradient(const StepContext& context) override {
    context_ = context;
    wave_->fill(loss_, 0.0);
    if (noise_) noise_->begin();
    const Adaptation::GaussianOuter outer = spec_.outer_at(context.step);
    const bool predictive = spec_.predictive_at(context.step);
    if (!predictive && adaptation_.differentiate(context, *shared_.mu, *shared_.s, shared_.rates,
                                                 outer, prior_, loss_)) {
      return;
    }
    adaptation_.adapt(context, *shared_.mu, shared_.s.get(), shared_.rates, spec_.adaptation.steps,
                      true);
    for (const Block b : {v_.mu, v_.s, prior_.mu, prior_.s}) wave_->fill(b, 0.0);
    if (predictive) {
      const auto sample = [&](int s) {
        backend::GaussianPass pass = adaptation_.outer_sample(context, s, outer.samples);
        pass.set = Set::query;
        return pass;
      };
      predictive_->differentiate(sample, loss_, v_);
    } else {
      add_expected_loss(context, outer);
    }
    const Scale::By rows = outer.rows();
    if (noise_) noise_->outer(loss_, std::vector{v_.mu, v_.s});
    if (outer.kl_weight != 0.0) {
      const StateBlocks& q = adaptation_.current();
      const StateBlocks& p = adaptation_.prior();
      wave_->kl({q.mu, q.s, p.mu, p.s, {outer.kl_weight, rows}}, loss_, v_.mu, v_.s, prior_.mu,
                prior_.s);
    }
    for (const Block b : rate_gradients_) wave_->fill(b, 0.0);
    v_ = adaptation_.adjoint(context, shared_.rates, v_, prior_, rate_gradients_);
    wave_->axpy(prior_.mu, 1.0, v_.mu);
    wave_->axpy(prior_.s, 1.0, v_.s);
  }
  std::span<const Block> gradients() const override { return gradients_; }
  Block loss() const override { return loss_; }

  void metrics(std::span<double> values) override {
    const StateBlocks& q = adaptation_.current();
    const StateBlocks& p = adaptation_.prior();
    // A fused descent does not write the prior into its block.
    wave_->broadcast(p.mu, *shared_.mu);
    wave_->broadcast(p.s, *shared_.s);
    const auto tasks = static_cast<std::size_t>(wave_->count());
    const std::size_t stride = noise_ ? 4 : 3;
    if (noise_) noise_->metrics(values.subspan(3), stride);
    std::vector<double> state[4];
    const Block blocks[] = {q.mu, q.s, p.mu, p.s};
    for (int b = 0; b < 4; ++b) {
      state[b].resize(tasks * width_);
      wave_->download(blocks[b], state[b]);
    }
    for (std::size_t t = 0; t < tasks; ++t) {
      double kl = 0.0, moved = 0.0, log_sigma = 0.0;
      for (std::size_t i = t * width_; i < (t + 1) * width_; ++i) {
        const double d = state[0][i] - state[2][i], s = state[1][i], prior = state[3][i];
        kl +=
            prior - s + 0.5 * (std::exp(2.0 * (s - prior)) + d * d * std::exp(-2.0 * prior)) - 0.5;
        moved += std::abs(s - prior) > moved_threshold ? 1.0 : 0.0;
        log_sigma += s;
      }
      values[stride * t] = kl;
      values[stride * t + 1] = moved / static_cast<double>(width_);
      values[stride * t + 2] = log_sigma / static_cast<double>(width_);
    }
  }

  void outputs_after_gradient(const std::function<void(int, Block)>& visit) override {
    sample_outputs(context_, spec_.outer.samples, backend::NormStatistics::batch, visit);
  }

  void predict(const StepContext& context, const PredictOptions& options,
               const std::function<void(int, int, Block)>& visit) override {
    if (noise_) noise_->begin();
    adaptation_.adapt(context, *shared_.mu, shared_.s.get(), shared_.rates, options.steps, false,
                      [&](int step) {
                        if (!options.every_step && step != options.steps) return;
                        sample_outputs(context, options.samples, options.statistics,
                                       [&](int s, Block outputs) { visit(step, s, outputs); });
                      });
  }
  AdaptedState adapt(const StepContext& context, const PredictOptions& options) override {
    if (noise_) noise_->begin();
    adaptation_.adapt(context, *shared_.mu, shared_.s.get(), shared_.rates, options.steps, false);
    const StateBlocks& q = adaptation_.current();
    return {download(*wave_, q.mu, width_), download(*wave_, q.s, width_)};
  }
  void predict_adapted(const AdaptedState& state, const StepContext& context,
                       const PredictOptions& options,
                       const std::function<void(int, int, Block)>& visit) override {
    adaptation_.resume(state);
    sample_outputs(context, options.samples, options.statistics,
                   [&](int s, Block outputs) { visit(options.steps, s, outputs); });
  }
  std::vector<NamedBlock> adapted() const override {
    return {{"mu", adaptation_.current().mu}, {"log_sigma", adaptation_.current().s}};
  }

 private:
  /// Adds the mean loss of the outer samples to loss_, and its gradient to v_.
  void add_expected_loss(const StepContext& context, const Adaptation::GaussianOuter& outer) {
    for (int s = 0; s < outer.samples; ++s) {
      backend::GaussianPass pass = adaptation_.outer_sample(context, s, outer.samples);
      pass.set = Set::query;
      pass.and_support = outer.and_support;
      pass.noise.support_first = outer.and_support;
      pass.scale = {1.0 / outer.samples, outer.rows()};
      wave_->gaussian_passes().gradient(pass, 1.0, v_.mu, v_.s, loss_);
    }
  }
  void sample_outputs(const StepContext& context, int samples, backend::NormStatistics statistics,
                      const std::function<void(int, Block)>& visit) {
    outputs_ = wave_->outputs(Set::query);
    for (int s = 0; s < samples; ++s) {
      backend::GaussianPass pass = adaptation_.outer_sample(context, s, samples);
      pass.set = Set::query;
      pass.noise.support_first = spec_.outer.and_support;
      wave_->gaussian_passes().value(pass, {}, outputs_, statistics);
      visit(s, outputs_);
    }
  }

  std::unique_ptr<Wave> wave_;
  std::size_t width_;
  Adaptation adaptation_;
  AbmlSpec spec_;
  const AbmlShared& shared_;
  StepContext context_;
  Block loss_, outputs_;
  StateBlocks v_, prior_;
  std::optional<TaskNoise> noise_;
  std::optional<PredictiveLoss> predictive_;
  std::vector<Block> rate_gradients_;
  std::vector<Block> gradients_;
};

class Abml final : public Algorithm {
 public:
  Abml(const Config& config, std::shared_ptr<const Network> network)
      : network_(std::move(network)),
        loss_(make_loss(config)),
        rate_(config, *network_),
        table_(config.abml),
        shared_(ObservationNoise(config, *network_)) {
    spec_.adaptation.steps = config.inner.steps;
    spec_.adaptation.second_order = config.inner.order == Order::second;
    spec_.adaptation.gaussian = true;
    spec_.adaptation.estimator = estimator_of(table_.estimator);
    spec_.adaptation.samples = table_.samples_inner;
    spec_.adaptation.natural = table_.inner_step == AbmlStep::natural;
    spec_.adaptation.kl_weight = table_.kl_weight_inner;
    spec_.adaptation.differentiate_prior = table_.differentiate_prior;
    spec_.adaptation.inner_set = table_.inner_data == InnerData::all ? Set::all : Set::support;
    spec_.predictive = table_.outer_loss == AbmlOuter::predictive;
    spec_.predictive_after = table_.predictive_after;
    spec_.noise_variance = config.loss.noise_std * config.loss.noise_std;
    spec_.outer = {table_.support_in_outer && !spec_.predictive, table_.samples_outer,
                   table_.kl_weight_outer};
    spec_.kl_warmup = table_.kl_warmup;
    groups_ = {network_group("mu", *network_), network_group("log_sigma", *network_)};
    spec_.adaptation.learn_rates = table_.rates != AbmlRates::fixed;
    if (spec_.adaptation.learn_rates) {
      for (const char* name : {"alpha_mu", "alpha_log_sigma"}) {
        const bool per_tensor = table_.rates == AbmlRates::layer;
        learned_.emplace_back(name, config, *network_, LearnedRates::Layout{per_tensor, 0});
        groups_.push_back(learned_.back().group());
      }
    }
    if (shared_.noise.learned()) groups_.push_back(shared_.noise.group());
  }

  std::string name() const override { return "abml"; }
  const std::vector<ParameterGroup>& groups() const override { return groups_; }
  int steps() const override { return spec_.adaptation.steps; }
  std::vector<std::vector<double>> initial(std::uint64_t seed) const override {
    std::vector<std::vector<double>> values = {
        network_->initial_weights(seed),
        std::vector<double>(network_->size(), table_.log_sigma_init)};
    for (const LearnedRates& rates : learned_) values.push_back(rates.initial());
    if (shared_.noise.learned()) values.push_back(shared_.noise.initial());
    return values;
  }
  int samples() const override { return spec_.outer.samples; }
  bool bayesian() const override { return true; }
  std::vector<std::size_t> gradient_widths() const override {
    std::vector<std::size_t> widths(2 + learned_.size(), network_->size());
    if (shared_.noise.learned()) widths.push_back(1);
    return widths;
  }
  void prepare(backend::Backend& backend, std::span<const Shared> parameters,
               const StepContext& /*context*/) override {
    shared_.mu = parameters[0];
    shared_.s = parameters[1];
    if (shared_.noise.learned()) shared_.noise.prepare(backend, parameters.back());
    if (learned_.empty()) {
      rate_.prepare(backend);
      shared_.rates = rate_.plan();
      return;
    }
    std::vector<backend::Rate>* const plans[] = {&shared_.rates.steps, &shared_.rates.s_steps};
    for (std::size_t i = 0; i < learned_.size(); ++i) {
      learned_[i].prepare(backend, *parameters[2 + i]);
      plans[i]->assign(learned_[i].steps().begin(), learned_[i].steps().end());
    }
  }
  std::unique_ptr<TaskProgram> open(backend::Backend& backend,
                                    const TaskShape& shape) const override {
    const bool with_all = spec_.adaptation.inner_set == Set::all;
    return std::make_unique<AbmlProgram>(
        backend.open(network_, loss_, {shape.support, shape.query, with_all}), *network_,
        shape.query, spec_, shared_);
  }
  void finish(backend::Backend& backend, std::span<const Shared> parameters,
              std::span<const Shared> means, std::span<const Shared> gradients,
              backend::Sum outside) const override {
    backend.assign(*gradients[0], *means[0]);
    backend.assign(*gradients[1], *means[1]);
    for (std::size_t i = 0; i < learned_.size(); ++i) {
      learned_[i].finish(backend, means.subspan(2 + i, 1), *gradients[2 + i]);
    }
    if (shared_.noise.learned()) backend.assign(*gradients.back(), *means.back());
    if (table_.hyper_prior_weight == 0.0) return;
    backend.hyper_prior(*parameters[0], *parameters[1], table_.gamma_shape, table_.gamma_rate,
                        table_.hyper_prior_weight, *gradients[0], *gradients[1], outside);
  }
  /// Metrics of a task after its inner steps: KL(q || p) in nats, the share of weights whose sigma
  /// moved away from the prior's, the mean log sigma, and the noise where it is learned.
  std::vector<std::string> metrics() const override {
    std::vector<std::string> names = {"kl", "sigma_moved", "log_sigma"};
    if (shared_.noise.learned()) names.emplace_back(TaskNoise::metric);
    return names;
  }
  std::string warning(std::span<const double> means) const override {
    if (means[2] < collapsed_log_sigma) {
      return fmt::format(
          "the variances have collapsed (mean log sigma {:.3g}): the posterior is a point; raise "
          "abml.kl_weight_outer or abml.hyper_prior_weight, or abml.log_sigma_init",
          means[2]);
    }
    if (spec_.adaptation.steps > 0 && means[0] < 1e-3) {
      return fmt::format(
          "the posteriors stay at the prior (KL {:.3g} nats a task): nothing is learned from the "
          "support sets; raise inner.learning_rate or inner.steps, or lower abml.kl_weight_inner",
          means[0]);
    }
    return {};
  }
  std::string divergence_hint() const override {
    return "the inner learning rate is too large: the KL step is stable only while "
           "inner.learning_rate * abml.kl_weight_inner / (n_S * sigma^2) < 2 (lower "
           "inner.learning_rate or abml.kl_weight_inner, or raise abml.log_sigma_init)";
  }

 private:
  std::shared_ptr<const Network> network_;
  backend::Loss loss_;
  FixedRate rate_;
  std::vector<LearnedRates> learned_;  ///< rates of mu and of log_sigma, or none
  Config::AbmlTable table_;
  AbmlSpec spec_;
  std::vector<ParameterGroup> groups_;
  AbmlShared shared_;
};

}  // namespace

std::unique_ptr<Algorithm> make_abml(const Config& config, std::shared_ptr<const Network> network) {
  return std::make_unique<Abml>(config, std::move(network));
}

}  // namespace kshot
