// MAML, first-order MAML and ANIL (Finn et al. 2017; Raghu et al. 2020), and Meta-SGD (Li et al.
// 2017): point weights, the mean query loss at theta_K, and for Meta-SGD learned step sizes.
#include <optional>
#include <utility>

#include "algorithms/adaptation.h"
#include "algorithms/common.h"
#include "algorithms/factories.h"
#include "algorithms/observation_noise.h"
#include "kshot/error.h"

namespace kshot {
namespace {

using backend::Block;
using backend::Scale;
using backend::Set;
using backend::Shared;
using backend::Wave;

/// Values of the algorithm that its programs read. prepare() sets them.
struct PointShared {
  explicit PointShared(const ObservationNoise& of_config) : noise(of_config) {}
  Shared theta;
  RatePlan rates;                  ///< multiplied by kappa where the noise is learned
  std::size_t rate_gradients = 0;  ///< 0, 1 or K learned rate vectors [D]
  ObservationNoise noise;
};

class PointProgram final : public TaskProgram {
 public:
  PointProgram(std::unique_ptr<Wave> wave, std::size_t width, const AdaptationSpec& spec,
               const PointShared& shared)
      : wave_(std::move(wave)), width_(width), adaptation_(*wave_, width, spec), shared_(shared) {
    v_ = wave_->weights();
    loss_ = wave_->block(1);
    gradients_.push_back(v_);
    for (std::size_t i = 0; i < shared_.rate_gradients; ++i) {
      rate_gradients_.push_back(wave_->weights());
      gradients_.push_back(rate_gradients_.back());
    }
    if (!shared_.noise.learned()) return;
    noise_.emplace(*wave_, shared_.noise);
    gradients_.push_back(noise_->gradient());
    through_steps_ = spec.second_order && spec.steps > 0;
    if (!through_steps_) return;
    scratch_ = wave_->weights();
    if (rate_gradients_.empty()) rate_gradients_.push_back(wave_->weights());
  }

  Wave& wave() override { return *wave_; }

  void meta_gradient(const StepContext& context) override {
    wave_->fill(loss_, 0.0);
    v_ = adaptation_.differentiate(context, *shared_.theta, shared_.rates,
                                   {Set::query, {}, {1.0, Scale::By::query}}, v_, loss_,
                                   rate_gradients_);
    gradients_[0] = v_;
    if (noise_) add_noise();
  }
  std::span<const Block> gradients() const override { return gradients_; }
  Block loss() const override { return loss_; }
  void metrics(std::span<double> values) override {
    if (noise_) noise_->metrics(values, 1);
  }

  void outputs_after_gradient(const std::function<void(int, Block)>& visit) override {
    outputs(backend::NormStatistics::batch);
    visit(0, outputs_);
  }

  void predict(const StepContext& context, const PredictOptions& options,
               const std::function<void(int, int, Block)>& visit) override {
    adaptation_.adapt(context, *shared_.theta, nullptr, shared_.rates, options.steps, false,
                      [&](int step) {
                        if (!options.every_step && step != options.steps) return;
                        outputs(options.statistics);
                        visit(step, 0, outputs_);
                      });
  }
  AdaptedState adapt(const StepContext& context, const PredictOptions& options) override {
    adaptation_.adapt(context, *shared_.theta, nullptr, shared_.rates, options.steps, false);
    return {download(*wave_, adaptation_.current().mu, width_)};
  }
  void predict_adapted(const AdaptedState& state, const StepContext& /*context*/,
                       const PredictOptions& options,
                       const std::function<void(int, int, Block)>& visit) override {
    adaptation_.resume(state);
    outputs(options.statistics);
    visit(options.steps, 0, outputs_);
  }
  std::vector<NamedBlock> adapted() const override { return {{"theta", adaptation_.current().mu}}; }

 private:
  /// Turns loss and gradients of mse into those of gaussian_nll (observation_noise.h).
  void add_noise() {
    noise_->begin();
    noise_->outer(loss_, {&v_, 1});
    for (std::size_t i = 0; i < rate_gradients_.size(); ++i) {
      const Block g = rate_gradients_[i];
      wave_->scale_by(g, noise_->kappa());
      if (through_steps_) noise_->inner(shared_.rates.at(static_cast<int>(i)), g, scratch_);
      if (shared_.rate_gradients > 0) wave_->scale_by(g, noise_->kappa());
    }
  }
  void outputs(backend::NormStatistics statistics) {
    outputs_ = wave_->outputs(Set::query);
    wave_->value({Set::query, adaptation_.current().mu, {}}, {}, outputs_, statistics);
  }

  std::unique_ptr<Wave> wave_;
  std::size_t width_;
  Adaptation adaptation_;
  const PointShared& shared_;
  std::optional<TaskNoise> noise_;
  bool through_steps_ = false;  ///< the noise is differentiated through the inner steps
  Block v_, loss_, outputs_, scratch_;
  std::vector<Block> rate_gradients_;  ///< gradients of learned rates, or one block for the noise
  std::vector<Block> gradients_;
};

/// The common part of MAML and Meta-SGD.
class PointAlgorithm : public Algorithm {
 public:
  PointAlgorithm(const Config& config, std::shared_ptr<const Network> network)
      : network_(std::move(network)),
        loss_(make_loss(config)),
        shared_(ObservationNoise(config, *network_)) {
    spec_.steps = config.inner.steps;
    spec_.second_order = config.inner.order == Order::second;
    groups_.push_back(network_group("theta", *network_));
  }

  const std::vector<ParameterGroup>& groups() const override { return groups_; }
  int steps() const override { return spec_.steps; }

  std::vector<std::size_t> gradient_widths() const override {
    std::vector<std::size_t> widths(1 + shared_.rate_gradients, network_->size());
    if (shared_.noise.learned()) widths.push_back(1);
    return widths;
  }
  std::vector<std::vector<double>> initial(std::uint64_t seed) const override {
    std::vector<std::vector<double>> values = {network_->initial_weights(seed)};
    add_initial(values);
    if (shared_.noise.learned()) values.push_back(shared_.noise.initial());
    return values;
  }
  void prepare(backend::Backend& backend, std::span<const Shared> parameters,
               const StepContext& /*context*/) override {
    shared_.theta = parameters[0];
    shared_.rates = prepare_rates(backend, parameters);
    if (!shared_.noise.learned()) return;
    shared_.noise.prepare(backend, parameters.back());
    shared_.rates.steps = shared_.noise.scaled(backend, shared_.rates.steps, network_->size(), 0);
  }
  void finish(backend::Backend& backend, std::span<const Shared> /*parameters*/,
              std::span<const Shared> means, std::span<const Shared> gradients,
              backend::Sum /*outside*/) const override {
    backend.assign(*gradients[0], *means[0]);
    finish_rates(backend, means.subspan(1, shared_.rate_gradients), gradients.subspan(1));
    if (shared_.noise.learned()) backend.assign(*gradients.back(), *means.back());
  }
  std::unique_ptr<TaskProgram> open(backend::Backend& backend,
                                    const TaskShape& shape) const override {
    return std::make_unique<PointProgram>(
        backend.open(network_, loss_, {shape.support, shape.query, false}), network_->size(), spec_,
        shared_);
  }
  std::vector<std::string> metrics() const override {
    if (!shared_.noise.learned()) return {};
    return {TaskNoise::metric};
  }
  std::string divergence_hint() const override {
    if (shared_.noise.learned()) {
      return "the inner learning rate is too large for the noise that was learned, because inner "
             "steps grow as 1/noise_std^2 (lower inner.learning_rate)";
    }
    return "the inner learning rate is too large for this loss (lower inner.learning_rate)";
  }

 protected:
  /// Constructors call this after they have added all other groups.
  void add_noise_group() {
    if (shared_.noise.learned()) groups_.push_back(shared_.noise.group());
  }
  /// Appends the initial values of the groups after theta, without the noise.
  virtual void add_initial(std::vector<std::vector<double>>& /*values*/) const {}
  virtual RatePlan prepare_rates(backend::Backend& backend, std::span<const Shared> parameters) = 0;
  /// Computes the gradients of learned rates from the means over tasks.
  virtual void finish_rates(backend::Backend& /*backend*/, std::span<const Shared> /*means*/,
                            std::span<const Shared> /*gradients*/) const {}

  std::shared_ptr<const Network> network_;
  backend::Loss loss_;
  AdaptationSpec spec_;
  std::vector<ParameterGroup> groups_;
  PointShared shared_;
};

class Maml final : public PointAlgorithm {
 public:
  Maml(const Config& config, const std::shared_ptr<const Network>& network)
      : PointAlgorithm(config, network), rate_(config, *network) {
    add_noise_group();
  }

  std::string name() const override { return "maml"; }

 private:
  RatePlan prepare_rates(backend::Backend& backend,
                         std::span<const Shared> /*parameters*/) override {
    rate_.prepare(backend);
    return rate_.plan();
  }

  FixedRate rate_;
};

/// Meta-SGD. The rates are the parameter group "alpha".
class MetaSgd final : public PointAlgorithm {
 public:
  MetaSgd(const Config& config, const std::shared_ptr<const Network>& network)
      : PointAlgorithm(config, network),
        rates_("alpha", config, *network,
               {config.meta_sgd.rates == RateKind::layer,
                config.meta_sgd.per_step ? config.inner.steps : 0}) {
    shared_.rate_gradients = rates_.gradients();
    groups_.push_back(rates_.group());
    add_noise_group();
  }

  std::string name() const override { return "meta_sgd"; }

 private:
  void add_initial(std::vector<std::vector<double>>& values) const override {
    values.push_back(rates_.initial());
  }
  RatePlan prepare_rates(backend::Backend& backend, std::span<const Shared> parameters) override {
    rates_.prepare(backend, *parameters[1]);
    return {{rates_.steps().begin(), rates_.steps().end()}, {}};
  }
  void finish_rates(backend::Backend& backend, std::span<const Shared> means,
                    std::span<const Shared> gradients) const override {
    rates_.finish(backend, means, *gradients[0]);
  }

  LearnedRates rates_;
};

}  // namespace

std::unique_ptr<Algorithm> make_maml(const Config& config, std::shared_ptr<const Network> network) {
  return std::make_unique<Maml>(config, network);
}
std::unique_ptr<Algorithm> make_meta_sgd(const Config& config,
                                         std::shared_ptr<const Network> network) {
  return std::make_unique<MetaSgd>(config, network);
}

}  // namespace kshot
