// Small things the algorithms share.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "algorithms/adaptation.h"
#include "algorithms/algorithm.h"

namespace kshot {

/// Where the noise of gaussian_nll is learned, that is mse: the noise acts outside of the waves
/// (observation_noise.h).
inline backend::Loss make_loss(const Config& config) {
  backend::Loss loss;
  switch (config.loss.type) {
    case LossType::cross_entropy:
      loss.kind = backend::LossKind::cross_entropy;
      break;
    case LossType::mse:
      loss.kind = backend::LossKind::mse;
      break;
    case LossType::gaussian_nll:
      loss.kind = backend::LossKind::gaussian_nll;
      break;
  }
  loss.noise_std = config.loss.noise_std;
  if (loss.kind == backend::LossKind::gaussian_nll && config.loss.noise == NoiseKind::learned) {
    loss.kind = backend::LossKind::mse;
  }
  return loss;
}

/// A group with one value a network weight.
inline ParameterGroup network_group(std::string name, const Network& network) {
  return {std::move(name), network.parameters(), network.size()};
}

/// The loaded tasks' vectors, [tasks, width].
std::vector<double> download(const backend::Wave& wave, backend::Block block, std::size_t width);

/// Keyed by the step and by which pass of the step it is for.
inline backend::Dropout dropout(const StepContext& context, double rate, std::uint32_t pass) {
  return {context.dropout ? rate : 0.0, context.key(Purpose::dropout, static_cast<int>(pass))};
}

/// 1 for the weights that `inner.adapt` names, 0 for the others.
std::vector<double> adapt_mask(const Network& network, const std::vector<std::string>& globs);

/// The inner learning rate of a configuration: a number where all weights adapt, else a vector that
/// is zero for the others.
class FixedRate {
 public:
  FixedRate(const Config& config, const Network& network);
  /// Uploads the vector where there is one (once).
  void prepare(backend::Backend& backend);
  RatePlan plan() const;

 private:
  double rate_;
  std::vector<double> mask_;  ///< empty where all weights adapt
  backend::Shared vector_;
};

/// Inner learning rates that are meta-learned: one per weight or one per tensor, for all inner
/// steps or for each step. Weights that inner.adapt does not name have rate zero.
class LearnedRates {
 public:
  struct Layout {
    bool per_tensor = false;  ///< else one rate per weight
    int steps = 0;            ///< K: rates of their own for each of K steps; 0: the same for all
  };
  /// `name` of the parameter group: tensors "<name>.<tensor>", [the tensor's shape or 1], with a
  /// leading dimension K where each step has its own.
  LearnedRates(std::string name, const Config& config, const Network& network,
               const Layout& layout);

  const ParameterGroup& group() const { return group_; }
  /// All at inner.learning_rate.
  std::vector<double> initial() const { return std::vector<double>(group_.size, rate_); }
  /// Number of per-task gradients, each with one element per network weight: K or 1.
  std::size_t gradients() const { return index_.size(); }
  /// Spreads `values` (the group's parameters) over the network's weights.
  void prepare(backend::Backend& backend, const backend::SharedVector& values);
  /// One rate per step, or one for all; after prepare().
  std::span<const backend::Rate> steps() const { return steps_; }
  /// Sums the mean task gradients (`gradients()` of them, which it masks in place) into the
  /// group's gradient.
  void finish(backend::Backend& backend, std::span<const backend::Shared> means,
              backend::SharedVector& gradient) const;

 private:
  double rate_;
  std::vector<double> mask_;
  ParameterGroup group_;
  std::vector<std::vector<std::uint32_t>> index_;  ///< [vectors][D]: offset of a weight's rate
  std::vector<backend::Shared> expanded_;          ///< [vectors], one element per weight
  std::vector<backend::Rate> steps_;
  backend::Shared mask_vector_;
};

}  // namespace kshot
