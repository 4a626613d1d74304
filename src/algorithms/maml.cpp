// MAML, first-order MAML and ANIL (Finn et al. 2017; Raghu et al. 2020), and Meta-SGD (Li et al.
// 2017): point weights, the mean query loss at theta_K, and for Meta-SGD learned step sizes.
#include <numeric>
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

/// alpha: a rate a weight or a tensor, for all steps or a step each ("alpha.<name>", with a leading
/// dimension K). Weights that inner.adapt does not name have rate zero.
class MetaSgd final : public PointAlgorithm {
 public:
  MetaSgd(const Config& config, const std::shared_ptr<const Network>& network)
      : PointAlgorithm(config, network),
        rate_(config.inner.learning_rate),
        layer_(config.meta_sgd.rates == RateKind::layer),
        mask_(adapt_mask(*network, config.inner.adapt)) {
    const bool per_step = config.meta_sgd.per_step;
    const auto vectors = per_step ? static_cast<std::size_t>(spec_.steps) : 1;
    shared_.rate_gradients = vectors;
    ParameterGroup alpha;
    alpha.name = "alpha";
    // Group layout, tensor by tensor: [K] x (the tensor's shape or [1]).
    std::uint32_t index = 0;
    index_.assign(vectors, std::vector<std::uint32_t>(network->size()));
    for (const ParameterTensor& tensor : network->parameters()) {
      ParameterTensor entry;
      entry.name = tensor.name;
      if (per_step) entry.shape.push_back(spec_.steps);
      if (layer_) {
        entry.shape.push_back(1);
      } else {
        entry.shape.insert(entry.shape.end(), tensor.shape.begin(), tensor.shape.end());
      }
      entry.offset = index;
      entry.size = vectors * (layer_ ? 1 : tensor.size);
      for (std::size_t k = 0; k < vectors; ++k) {
        for (std::size_t i = 0; i < tensor.size; ++i) {
          const auto within = static_cast<std::uint32_t>(layer_ ? k : k * tensor.size + i);
          index_[k][tensor.offset + i] = index + within;
        }
      }
      index += static_cast<std::uint32_t>(entry.size);
      alpha.tensors.push_back(std::move(entry));
    }
    alpha.size = index;
    groups_.push_back(std::move(alpha));
  }

  std::string name() const override { return "meta_sgd"; }
  std::vector<std::vector<double>> initial(std::uint64_t seed) const override {
    return {network_->initial_weights(seed), std::vector<double>(groups_[1].size, rate_)};
  }
  void prepare(backend::Backend& backend, std::span<const Shared> parameters,
               const StepContext& /*context*/) override {
    shared_.theta = parameters[0];
    if (expanded_.empty()) {
      for (std::size_t k = 0; k < index_.size(); ++k) {
        expanded_.push_back(backend.shared(network_->size()));
      }
      mask_vector_ = backend.shared(mask_.size());
      mask_vector_->upload(mask_);
    }
    shared_.rates.steps.clear();
    for (std::size_t k = 0; k < index_.size(); ++k) {
      backend.gather(*expanded_[k], *parameters[1], index_[k]);
      backend.multiply(*expanded_[k], *mask_vector_);
      shared_.rates.steps.push_back({0.0, expanded_[k].get()});
    }
  }
  void finish(backend::Backend& backend, std::span<const Shared> /*parameters*/,
              std::span<const Shared> means, std::span<const Shared> gradients,
              backend::Sum /*outside*/) const override {
    backend.assign(*gradients[0], *means[0]);
    for (std::size_t k = 0; k < index_.size(); ++k) {
      backend.multiply(*means[1 + k], *mask_vector_);
      backend.scatter_add(*gradients[1], *means[1 + k], index_[k], k > 0);
    }
  }

 private:
  double rate_;
  bool layer_;
  std::vector<double> mask_;
  std::vector<std::vector<std::uint32_t>> index_;  ///< [vectors][D]: where a weight's rate lies
  std::vector<Shared> expanded_;
  Shared mask_vector_;
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
