// Hierarchical variational inference (Amit & Meir, ICML 2018). Every training task keeps its own
// posterior N(mu, exp(2 s)) and its optimiser's state. The meta-learned (mu, log_sigma) is the
// centre psi of a hyper-posterior over the tasks' common prior. One step moves the posteriors of
// the meta-batch and the prior together, so that nothing is unrolled. docs/mathematics.md has the
// bounds.
#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "algorithms/adaptation.h"
#include "algorithms/common.h"
#include "algorithms/factories.h"
#include "algorithms/given_noise.h"
#include "algorithms/observation_noise.h"
#include "kshot/error.h"

namespace kshot {
namespace {

using backend::Block;
using backend::Function;
using backend::Scale;
using backend::Set;
using backend::Shared;
using backend::Wave;

/// The quantities of a task's objective beside its error and its KL.
struct BoundTerms {
  double hyper_kl = 0.0;   ///< H
  double tasks = 1.0;      ///< n
  double task_size = 0.0;  ///< m; 0: the task's own support rows
};

struct HviSpec {
  Bound bound = Bound::mcallester;
  double delta = 0.1;
  int samples = 1;
  backend::AdamRule adam;
};

/// Values of the algorithm that its programs read. prepare() sets them.
struct HviShared {
  explicit HviShared(const ObservationNoise& of_config) : noise(of_config) {}
  Shared mu, s;              ///< psi
  Shared prior_mu, prior_s;  ///< psi + kappa_posterior * noise
  BoundTerms terms;
  ObservationNoise noise;
};

/// A task's objective B(er, KL) and its derivatives, as scalars of the wave's tasks.
class BoundProgram {
 public:
  BoundProgram(Wave& wave, Bound bound, double delta) : wave_(wave), bound_(bound), delta_(delta) {
    for (Block* b :
         {&error, &kl, &loss, &by_error, &by_kl, &by_hyper, &inverse_rows, &rows_, &a_, &b_, &c_}) {
      *b = wave_.block(1);
    }
  }

  /// Computes the other blocks from `error` and `kl`.
  void evaluate(const BoundTerms& terms) {
    if (terms.task_size > 0.0) {
      wave_.fill(rows_, terms.task_size);
    } else {
      wave_.row_count(rows_, Set::support);
    }
    wave_.apply(inverse_rows, Function::reciprocal, rows_);
    wave_.copy(loss, error);
    wave_.fill(by_error, 1.0);
    const double n = terms.tasks;
    const double constant = terms.hyper_kl + std::log(2.0 * n / delta_);
    switch (bound_) {
      case Bound::vb:
        wave_.copy(by_kl, inverse_rows);
        wave_.fill(by_hyper, 0.0);
        wave_.multiply_add(loss, 1.0, kl, by_kl);
        return;
      case Bound::pentina:
        wave_.apply(by_kl, Function::square_root, inverse_rows);
        wave_.fill(by_hyper, 0.0);
        wave_.axpy(by_hyper, 1.0 / n, by_kl);
        wave_.multiply_add(loss, 1.0, kl, by_kl);
        wave_.axpy(loss, terms.hyper_kl, by_hyper);
        return;
      case Bound::mcallester:
        // Here a = 1 / (2 (m - 1)), and b is the root.
        wave_.fill(a_, -2.0);
        wave_.axpy(a_, 2.0, rows_);
        wave_.apply(a_, Function::reciprocal, a_);
        complexity(constant, 1.0);
        wave_.fill(b_, 0.0);
        wave_.multiply_add(b_, 1.0, a_, c_);
        wave_.apply(b_, Function::square_root, b_);
        wave_.axpy(loss, 1.0, b_);
        wave_.apply(b_, Function::reciprocal, b_);
        wave_.fill(by_kl, 0.0);
        wave_.multiply_add(by_kl, 0.5, a_, b_);
        wave_.copy(by_hyper, by_kl);
        return;
      case Bound::seeger:
        // Here a = e, b = sqrt(2 e er) and c = 1 / b. `smallest` keeps the root from being zero.
        complexity(constant, 0.5);
        wave_.fill(a_, 0.0);
        wave_.multiply_add(a_, 1.0, c_, inverse_rows);
        wave_.fill(b_, smallest);
        wave_.multiply_add(b_, 2.0, a_, error);
        wave_.apply(b_, Function::square_root, b_);
        wave_.axpy(loss, 2.0, a_);
        wave_.axpy(loss, 1.0, b_);
        wave_.apply(c_, Function::reciprocal, b_);
        wave_.multiply_add(by_error, 1.0, a_, c_);
        wave_.fill(b_, 2.0);
        wave_.multiply_add(b_, 1.0, error, c_);
        wave_.fill(by_kl, 0.0);
        wave_.multiply_add(by_kl, 1.0, b_, inverse_rows);
        wave_.copy(by_hyper, by_kl);
        return;
    }
  }
  bool error_is_weighted() const { return bound_ == Bound::seeger; }

  Block error, kl;              ///< in: er, KL
  Block loss, by_error, by_kl;  ///< B, dB/der, dB/dKL
  Block by_hyper;               ///< dB/dH
  Block inverse_rows;           ///< 1 / m

 private:
  static constexpr double smallest = 1e-30;

  /// c = constant + KL + w log m
  void complexity(double constant, double w) {
    wave_.apply(c_, Function::logarithm, rows_);
    wave_.fill(b_, constant);
    wave_.axpy(b_, 1.0, kl);
    wave_.axpy(b_, w, c_);
    wave_.copy(c_, b_);
  }

  Wave& wave_;
  Bound bound_;
  double delta_;
  Block rows_, a_, b_, c_;
};

class HviProgram final : public TaskProgram {
 public:
  HviProgram(std::unique_ptr<Wave> wave, std::size_t width, const HviSpec& spec,
             const HviShared& shared)
      : wave_(std::move(wave)),
        width_(width),
        spec_(spec),
        shared_(shared),
        bound_(*wave_, spec.bound, spec.delta) {
    for (Block* b : {&q_.mu, &q_.s, &m_.mu, &m_.s, &v_.mu, &v_.s, &prior_.mu, &prior_.s,
                     &gradient_.mu, &gradient_.s, &kl_gradient_.mu, &kl_gradient_.s,
                     &prior_gradient_.mu, &prior_gradient_.s, &sigma_}) {
      *b = wave_->weights();
    }
    count_ = wave_->block(1);
    one_ = wave_->block(1);
    gradients_ = {prior_gradient_.mu, prior_gradient_.s, bound_.by_hyper, bound_.inverse_rows};
    memory_ = {q_.mu, q_.s, m_.mu, m_.s, v_.mu, v_.s, count_};
    if (!shared_.noise.learned()) return;
    noise_.emplace(*wave_, shared_.noise);
    gradients_.push_back(noise_->gradient());
  }

  Wave& wave() override { return *wave_; }

  void meta_gradient(const StepContext& context) override {
    wave_->broadcast(prior_.mu, *shared_.prior_mu);
    wave_->broadcast(prior_.s, *shared_.prior_s);
    objective(context, 0, shared_.terms, true);
    step();
  }
  std::span<const Block> gradients() const override { return gradients_; }
  Block loss() const override { return bound_.loss; }
  void metrics(std::span<double> values) override {
    if (noise_) noise_->metrics(values, 1);
  }
  std::span<const Block> memory() const override { return memory_; }
  std::vector<NamedBlock> memory_gradients() const override {
    return {{"task_mu", gradient_.mu}, {"task_log_sigma", gradient_.s}};
  }

  void outputs_after_gradient(const std::function<void(int, Block)>& /*visit*/) override {
    throw Error("hvi has no query rows in training");
  }

  /// Predicts a new task (Amit & Meir 2018, 4.3). Its posterior starts at the prior, which stays as
  /// it is, and is optimised on the support set alone.
  void predict(const StepContext& context, const PredictOptions& options,
               const std::function<void(int, int, Block)>& visit) override {
    begin_at_prior();
    for (int k = 0; k <= options.steps; ++k) {
      if (options.every_step || k == options.steps) sample_outputs(context, k, options, visit);
      if (k < options.steps) posterior_step(context, k);
    }
  }
  AdaptedState adapt(const StepContext& context, const PredictOptions& options) override {
    begin_at_prior();
    for (int k = 0; k < options.steps; ++k) posterior_step(context, k);
    return {download(*wave_, q_.mu, width_), download(*wave_, q_.s, width_)};
  }
  void predict_adapted(const AdaptedState& state, const StepContext& context,
                       const PredictOptions& options,
                       const std::function<void(int, int, Block)>& visit) override {
    wave_->upload(q_.mu, state[0].data(), width_);
    wave_->upload(q_.s, state[1].data(), width_);
    sample_outputs(context, options.steps, options, visit);
  }
  std::vector<NamedBlock> adapted() const override { return {{"mu", q_.mu}, {"log_sigma", q_.s}}; }

 private:
  /// Computes B of the loaded tasks at q and its gradient by q, and by the prior where asked for.
  void objective(const StepContext& context, int k, const BoundTerms& terms, bool prior_gradient) {
    for (const Block b :
         {bound_.error, bound_.kl, gradient_.mu, gradient_.s, kl_gradient_.mu, kl_gradient_.s}) {
      wave_->fill(b, 0.0);
    }
    wave_->exponential(sigma_, q_.s);
    if (noise_) noise_->begin();
    for (int s = 0; s < spec_.samples; ++s) {
      backend::GaussianPass pass;
      pass.set = Set::support;
      pass.scale = {1.0 / spec_.samples, Scale::By::support};
      pass.mu = q_.mu;
      pass.sigma = sigma_;
      pass.noise.key = context.key(Purpose::noise_inner, k, s);
      pass.noise.weights = given_.weights(context.noise_inner, static_cast<std::size_t>(s),
                                          static_cast<std::size_t>(spec_.samples));
      wave_->gaussian_passes().gradient(pass, 1.0, gradient_.mu, gradient_.s, bound_.error);
    }
    // A bound with a learned noise is er + f(KL), because the configuration refuses seeger. Its
    // derivative by log_noise is that of er.
    if (noise_) noise_->outer(bound_.error, std::vector{gradient_.mu, gradient_.s});
    StateBlocks to_prior;
    if (prior_gradient) {
      to_prior = prior_gradient_;
      wave_->fill(to_prior.mu, 0.0);
      wave_->fill(to_prior.s, 0.0);
    }
    wave_->kl({q_.mu, q_.s, prior_.mu, prior_.s, {}}, bound_.kl, kl_gradient_.mu, kl_gradient_.s,
              to_prior.mu, to_prior.s);
    bound_.evaluate(terms);
    if (bound_.error_is_weighted()) {
      wave_->scale_by(gradient_.mu, bound_.by_error);
      wave_->scale_by(gradient_.s, bound_.by_error);
    }
    wave_->scale_by(kl_gradient_.mu, bound_.by_kl);
    wave_->scale_by(kl_gradient_.s, bound_.by_kl);
    wave_->axpy(gradient_.mu, 1.0, kl_gradient_.mu);
    wave_->axpy(gradient_.s, 1.0, kl_gradient_.s);
    if (!prior_gradient) return;
    wave_->scale_by(to_prior.mu, bound_.by_kl);
    wave_->scale_by(to_prior.s, bound_.by_kl);
  }

  /// Sets a new task's posterior to the prior and clears the state of its optimiser.
  void begin_at_prior() {
    wave_->broadcast(prior_.mu, *shared_.mu);
    wave_->broadcast(prior_.s, *shared_.s);
    wave_->copy(q_.mu, prior_.mu);
    wave_->copy(q_.s, prior_.s);
    for (const Block b : {m_.mu, m_.s, v_.mu, v_.s, count_}) wave_->fill(b, 0.0);
  }
  /// Takes step k of a new task, on its support set alone.
  void posterior_step(const StepContext& context, int k) {
    objective(context, k, {}, false);
    step();
  }

  /// Moves every task's posterior by the task's own optimiser.
  void step() {
    wave_->fill(one_, 1.0);
    wave_->axpy(count_, 1.0, one_);
    wave_->adam_step({q_.mu, gradient_.mu, m_.mu, v_.mu, count_}, spec_.adam);
    wave_->adam_step({q_.s, gradient_.s, m_.s, v_.s, count_}, spec_.adam);
  }

  void sample_outputs(const StepContext& context, int k, const PredictOptions& options,
                      const std::function<void(int, int, Block)>& visit) {
    const Block outputs = wave_->outputs(Set::query);
    wave_->exponential(sigma_, q_.s);
    for (int s = 0; s < options.samples; ++s) {
      backend::GaussianPass pass;
      pass.set = Set::query;
      pass.mu = q_.mu;
      pass.sigma = sigma_;
      pass.noise.key = context.key(Purpose::noise_outer, 0, s);
      wave_->gaussian_passes().value(pass, {}, outputs, options.statistics);
      visit(k, s, outputs);
    }
  }

  std::unique_ptr<Wave> wave_;
  GivenNoise given_{*wave_};
  std::size_t width_;
  HviSpec spec_;
  const HviShared& shared_;
  BoundProgram bound_;
  StateBlocks q_, m_, v_;
  StateBlocks prior_, gradient_, kl_gradient_, prior_gradient_;
  Block sigma_, count_, one_;
  std::optional<TaskNoise> noise_;
  std::vector<Block> gradients_, memory_;
};

class Hvi final : public Algorithm {
 public:
  Hvi(const Config& config, std::shared_ptr<const Network> network)
      : network_(std::move(network)),
        loss_(make_loss(config)),
        steps_(config.inner.steps),
        table_(config.hvi),
        shared_(ObservationNoise(config, *network_)) {
    spec_.bound = table_.bound;
    spec_.delta = table_.delta;
    spec_.samples = table_.samples;
    spec_.adam.learning_rate = config.inner.learning_rate;
    groups_ = {network_group("mu", *network_), network_group("log_sigma", *network_)};
    if (shared_.noise.learned()) groups_.push_back(shared_.noise.group());
    const std::size_t d = network_->size();
    memory_ = {{"task_mu", d},   {"task_log_sigma", d},   {"task_mu.m", d}, {"task_log_sigma.m", d},
               {"task_mu.v", d}, {"task_log_sigma.v", d}, {"count", 1}};
    begin_training(0, 0.0);
  }

  std::string name() const override { return "hvi"; }
  const std::vector<ParameterGroup>& groups() const override { return groups_; }
  std::vector<std::vector<double>> initial(std::uint64_t seed) const override {
    std::vector<std::vector<double>> values = {
        network_->initial_weights(seed),
        std::vector<double>(network_->size(), table_.log_sigma_init)};
    if (shared_.noise.learned()) values.push_back(shared_.noise.initial());
    return values;
  }
  int steps() const override { return steps_; }
  /// Training needs few samples, but a prediction from so few would be noisy.
  int samples() const override { return std::max(spec_.samples, 10); }
  bool bayesian() const override { return true; }
  std::vector<std::size_t> gradient_widths() const override {
    std::vector<std::size_t> widths = {network_->size(), network_->size(), 1, 1};
    if (shared_.noise.learned()) widths.push_back(1);
    return widths;
  }

  const std::vector<MemoryGroup>& memory() const override { return memory_; }
  std::vector<std::vector<double>> fresh_memory(std::span<const Shared> parameters) const override {
    std::vector<std::vector<double>> values;
    for (const MemoryGroup& group : memory_) values.emplace_back(group.width, 0.0);
    parameters[0]->download(values[0]);
    parameters[1]->download(values[1]);
    return values;
  }
  int steps_per_batch() const override { return table_.joint_steps; }
  void begin_training(std::uint64_t tasks, double rows) override {
    BoundTerms& terms = shared_.terms;
    terms.tasks = table_.tasks > 0 ? table_.tasks : static_cast<double>(tasks);
    terms.task_size = table_.task_size > 0 ? table_.task_size : rows;
    const bool roots = spec_.bound == Bound::mcallester || spec_.bound == Bound::seeger;
    if (roots && tasks > 0 && terms.tasks < 2.0) {
      throw Error("hvi.tasks: expected at least 2 with hvi.bound = \"mcallester\" or \"seeger\"");
    }
    terms.tasks = std::max(terms.tasks, 1.0);
  }

  void prepare(backend::Backend& backend, std::span<const Shared> parameters,
               const StepContext& context) override {
    const std::size_t d = network_->size();
    if (!shared_.prior_mu) {
      shared_.prior_mu = backend.shared(d);
      shared_.prior_s = backend.shared(d);
      noise_ = backend.shared(d);
    }
    shared_.mu = parameters[0];
    shared_.s = parameters[1];
    if (shared_.noise.learned()) shared_.noise.prepare(backend, parameters[2]);
    const Shared priors[] = {shared_.prior_mu, shared_.prior_s};
    const double kappa = table_.kappa_posterior;
    double squares = 0.0;
    std::vector<double> noise(d);
    for (std::size_t g = 0; g < 2; ++g) {
      backend.assign(*priors[g], *parameters[g]);
      squares +=
          backend.value([&](backend::Sum to) { backend.squared_norm(*parameters[g], 0.0, to); });
      if (kappa == 0.0) continue;
      const RandomKey key = context.key(Purpose::noise_hyper, 0, static_cast<int>(g));
      for (std::size_t i = 0; i < d; ++i) {
        noise[i] = context.noise_hyper != nullptr ? context.noise_hyper[g * d + i]
                                                  : normal_element(key, i);
      }
      noise_->upload(noise);
      backend.add(*priors[g], kappa, *noise_);
    }
    shared_.terms.hyper_kl = squares / (2.0 * table_.kappa_prior * table_.kappa_prior);
    if (kappa > 0.0) {
      const double ratio = kappa / table_.kappa_prior;
      const double count = table_.hyper_kl == HyperKl::full ? 2.0 * static_cast<double>(d) : 1.0;
      shared_.terms.hyper_kl += count * (0.5 * ratio * ratio - std::log(ratio) - 0.5);
    }
  }
  std::unique_ptr<TaskProgram> open(backend::Backend& backend,
                                    const TaskShape& shape) const override {
    return std::make_unique<HviProgram>(
        backend.open(network_, loss_, {shape.support, shape.query, false}), network_->size(), spec_,
        shared_);
  }

  /// Adds the second term of the bound, over the tasks' environment, and the gradient through H.
  void finish(backend::Backend& backend, std::span<const Shared> parameters,
              std::span<const Shared> means, std::span<const Shared> gradients,
              backend::Sum outside) const override {
    double by_hyper = 0.0, inverse_rows = 0.0;
    means[2]->download(std::span(&by_hyper, 1));
    means[3]->download(std::span(&inverse_rows, 1));
    const double h = shared_.terms.hyper_kl;
    const double n = shared_.terms.tasks;
    double value = 0.0;
    switch (spec_.bound) {
      case Bound::vb:
        value = h * inverse_rows / n;
        by_hyper += inverse_rows / n;
        break;
      case Bound::pentina:
        value = h / std::sqrt(n);
        by_hyper += 1.0 / std::sqrt(n);
        break;
      case Bound::mcallester:
      case Bound::seeger:
        value = std::sqrt((h + std::log(2.0 * n / spec_.delta)) / (2.0 * (n - 1.0)));
        by_hyper += 1.0 / (4.0 * (n - 1.0) * value);
        break;
    }
    for (std::size_t g = 0; g < 2; ++g) {
      backend.assign(*gradients[g], *means[g]);
      backend.add(*gradients[g], by_hyper / (table_.kappa_prior * table_.kappa_prior),
                  *parameters[g]);
    }
    if (shared_.noise.learned()) backend.assign(*gradients[2], *means[4]);
    outside.step.add(outside.statistic, value);
  }
  std::vector<std::string> metrics() const override {
    if (!shared_.noise.learned()) return {};
    return {TaskNoise::metric};
  }
  std::string divergence_hint() const override {
    return spec_.bound == Bound::mcallester
               ? "the posteriors' step is too large (lower inner.learning_rate), or a task has "
                 "fewer than 2 rows, which hvi.bound = \"mcallester\" needs"
               : "the posteriors' step is too large (lower inner.learning_rate)";
  }

 private:
  std::shared_ptr<const Network> network_;
  backend::Loss loss_;
  int steps_;
  Config::HviTable table_;
  HviSpec spec_;
  std::vector<ParameterGroup> groups_;
  std::vector<MemoryGroup> memory_;
  HviShared shared_;
  Shared noise_;
};

}  // namespace

std::unique_ptr<Algorithm> make_hvi(const Config& config, std::shared_ptr<const Network> network) {
  return std::make_unique<Hvi>(config, std::move(network));
}

}  // namespace kshot
