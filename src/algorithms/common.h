// Small things the algorithms share.
#pragma once

#include <memory>
#include <vector>

#include "algorithms/adaptation.h"
#include "algorithms/algorithm.h"

namespace kshot {

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
  return loss;
}

/// A group with one value a network weight.
inline ParameterGroup network_group(std::string name, const Network& network) {
  return {std::move(name), network.parameters(), network.size()};
}

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

}  // namespace kshot
