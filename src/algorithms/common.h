// Small functions and classes that several algorithms share.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "algorithms/adaptation.h"
#include "algorithms/algorithm.h"

namespace kshot {

/// The loss that the waves compute. A gaussian_nll whose noise is learned becomes mse, because the
/// noise acts outside of the waves (observation_noise.h).
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

/// A group with one value per network weight.
inline ParameterGroup network_group(std::string name, const Network& network) {
  return {std::move(name), network.parameters(), network.size()};
}

/// The loaded tasks' vectors, [tasks, width].
std::vector<double> download(const backend::Wave& wave, backend::Block block, std::size_t width);

/// The dropout of pass number `pass` in a step. Its key follows from the step and this number. The
/// rate is zero where the context turns dropout off.
inline backend::Dropout dropout(const StepContext& context, double rate, std::uint32_t pass) {
  return {context.dropout ? rate : 0.0, context.key(Purpose::dropout, static_cast<int>(pass))};
}

/// 1 for the weights that `inner.adapt` names, 0 for the others.
std::vector<double> adapt_mask(const Network& network, const std::vector<std::string>& globs);

/// The inner learning rate of a configuration: a number where all weights adapt, else a vector with
/// zeros for the weights that do not adapt.
class FixedRate {
 public:
  FixedRate(const Config& config, const Network& network);
  /// Uploads the vector at the first call, where there is one.
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
    bool per_tensor = false;  ///< false: one rate per weight
    int steps = 0;            ///< K: each of K steps has its own rates; 0: all steps share them
  };
  /// `name` is the name of the parameter group. Its tensors are "<name>.<tensor>", with the
  /// tensor's shape or [1], and with a leading dimension K where each step has its own rates.
  LearnedRates(std::string name, const Config& config, const Network& network,
               const Layout& layout);

  const ParameterGroup& group() const { return group_; }
  /// Initial rates, which are all inner.learning_rate.
  std::vector<double> initial() const { return std::vector<double>(group_.size, rate_); }
  /// Number of per-task gradients, each with one element per network weight: K or 1.
  std::size_t gradients() const { return index_.size(); }
  /// Expands `values` (the group's parameters) to one rate per network weight.
  void prepare(backend::Backend& backend, const backend::SharedVector& values);
  /// One rate per step, or one for all steps. Valid after prepare().
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
