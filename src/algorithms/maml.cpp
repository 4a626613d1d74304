// MAML, first-order MAML and ANIL (Finn et al. 2017; Raghu et al. 2020), and Meta-SGD (Li et al.
// 2017): point weights, the mean query loss at theta_K, and for Meta-SGD learned step sizes.
#include <utility>

#include "algorithms/adaptation.h"
#include "algorithms/common.h"
#include "algorithms/factories.h"
#include "kshot/error.h"

namespace kshot {
namespace {

using backend::Block;
using backend::Scale;
using backend::Set;
using backend::Shared;
using backend::Wave;

/// What a program reads of its algorithm, set by prepare().
struct PointShared {
  Shared theta;
  RatePlan rates;
  std::size_t rate_gradients = 0;  ///< 0, 1 or K learned rate vectors [D]
};

class PointProgram final : public TaskProgram {
 public:
  PointProgram(std::unique_ptr<Wave> wave, std::size_t width, const AdaptationSpec& spec,
               const PointShared& shared)
      : wave_(std::move(wave)), adaptation_(*wave_, width, spec), shared_(shared) {
    v_ = wave_->weights();
    loss_ = wave_->block(1);
    gradients_.push_back(v_);
    for (std::size_t i = 0; i < shared_.rate_gradients; ++i) {
      gradients_.push_back(wave_->weights());
    }
  }

  Wave& wave() override { return *wave_; }

  void meta_gradient(const StepContext& context) override {
    wave_->fill(loss_, 0.0);
    v_ = adaptation_.differentiate(context, *shared_.theta, shared_.rates,
                                   {Set::query, {}, {1.0, Scale::By::query}}, v_, loss_,
                                   std::span(gradients_).subspan(1));
    gradients_[0] = v_;
  }
  std::span<const Block> gradients() const override { return gradients_; }
  Block loss() const override { return loss_; }

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
  std::vector<NamedBlock> adapted() const override { return {{"theta", adaptation_.current().mu}}; }

 private:
  void outputs(backend::NormStatistics statistics) {
    outputs_ = wave_->outputs(Set::query);
    wave_->value({Set::query, adaptation_.current().mu, {}}, {}, outputs_, statistics);
  }

  std::unique_ptr<Wave> wave_;
  Adaptation adaptation_;
  const PointShared& shared_;
  Block v_, loss_, outputs_;
  std::vector<Block> gradients_;
};

class PointAlgorithm : public Algorithm {
 public:
  PointAlgorithm(const Config& config, std::shared_ptr<const Network> network)
      : network_(std::move(network)), loss_(make_loss(config)) {
    spec_.steps = config.inner.steps;
    spec_.second_order = config.inner.order == Order::second;
    groups_.push_back(network_group("theta", *network_));
  }

  const std::vector<ParameterGroup>& groups() const override { return groups_; }
  int steps() const override { return spec_.steps; }

  std::vector<std::size_t> gradient_widths() const override {
    return std::vector<std::size_t>(1 + shared_.rate_gradients, network_->size());
  }
  std::unique_ptr<TaskProgram> open(backend::Backend& backend,
                                    const TaskShape& shape) const override {
    return std::make_unique<PointProgram>(
        backend.open(network_, loss_, {shape.support, shape.query, false}), network_->size(), spec_,
        shared_);
  }
  std::string divergence_hint() const override {
    return "the inner learning rate is too large for this loss (lower inner.learning_rate)";
  }

 protected:
  std::shared_ptr<const Network> network_;
  backend::Loss loss_;
  AdaptationSpec spec_;
  std::vector<ParameterGroup> groups_;
  PointShared shared_;
};

class Maml final : public PointAlgorithm {
 public:
  Maml(const Config& config, const std::shared_ptr<const Network>& network)
      : PointAlgorithm(config, network), rate_(config, *network) {}

  std::string name() const override { return "maml"; }
  std::vector<std::vector<double>> initial(std::uint64_t seed) const override {
    return {network_->initial_weights(seed)};
  }
  void prepare(backend::Backend& backend, std::span<const Shared> parameters,
               const StepContext& /*context*/) override {
    rate_.prepare(backend);
    shared_.theta = parameters[0];
    shared_.rates = rate_.plan();
  }
  void finish(backend::Backend& backend, std::span<const Shared> /*parameters*/,
              std::span<const Shared> means, std::span<const Shared> gradients,
              backend::Sum /*outside*/) const override {
    backend.assign(*gradients[0], *means[0]);
  }

 private:
  FixedRate rate_;
};

/// The rates are the parameter group "alpha".
class MetaSgd final : public PointAlgorithm {
 public:
  MetaSgd(const Config& config, const std::shared_ptr<const Network>& network)
      : PointAlgorithm(config, network),
        rates_("alpha", config, *network,
               {config.meta_sgd.rates == RateKind::layer,
                config.meta_sgd.per_step ? config.inner.steps : 0}) {
    shared_.rate_gradients = rates_.gradients();
    groups_.push_back(rates_.group());
  }

  std::string name() const override { return "meta_sgd"; }
  std::vector<std::vector<double>> initial(std::uint64_t seed) const override {
    return {network_->initial_weights(seed), rates_.initial()};
  }
  void prepare(backend::Backend& backend, std::span<const Shared> parameters,
               const StepContext& /*context*/) override {
    shared_.theta = parameters[0];
    rates_.prepare(backend, *parameters[1]);
    shared_.rates.steps.assign(rates_.steps().begin(), rates_.steps().end());
  }
  void finish(backend::Backend& backend, std::span<const Shared> /*parameters*/,
              std::span<const Shared> means, std::span<const Shared> gradients,
              backend::Sum /*outside*/) const override {
    backend.assign(*gradients[0], *means[0]);
    rates_.finish(backend, means.subspan(1), *gradients[1]);
  }

 private:
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
