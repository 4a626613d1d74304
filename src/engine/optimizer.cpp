#include "engine/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace kshot {
namespace {

/// The factor of a group's learning rate. ABML's inner rates begin at inner.learning_rate, which is
/// small compared with an Adam step of the size of optimizer.learning_rate: one such step could
/// change a rate's sign. With this factor, the rates at first move as their logarithms would.
double rate_factor(const Config& config, const ParameterGroup& group) {
  if (config.algorithm != AlgorithmKind::abml || !group.name.starts_with("alpha_")) return 1.0;
  const double rate = config.inner.learning_rate;
  return config.optimizer.type == OptimizerKind::adam ? rate : rate * rate;
}

}  // namespace

double learning_rate(const Config::OptimizerTable& optimizer, std::uint64_t step, int steps) {
  const double rate = optimizer.learning_rate;
  switch (optimizer.schedule) {
    case ScheduleKind::constant:
      return rate;
    case ScheduleKind::cosine: {
      const double done = std::min(1.0, static_cast<double>(step) / std::max(1, steps));
      const double low = optimizer.final_learning_rate;
      return low + 0.5 * (rate - low) * (1.0 + std::cos(std::numbers::pi * done));
    }
    case ScheduleKind::step: {
      const auto decays = step / static_cast<std::uint64_t>(optimizer.decay_every);
      return rate * std::pow(optimizer.decay_factor, static_cast<double>(decays));
    }
  }
  return rate;
}

Optimizer::Optimizer(const Config& config, backend::Backend& backend,
                     const std::vector<ParameterGroup>& groups)
    : table_(config.optimizer), backend_(backend), groups_(groups) {
  for (const ParameterGroup& group : groups) {
    factors_.push_back(rate_factor(config, group));
    m_.push_back(backend.shared(group.size));
    v_.push_back(adam() ? backend.shared(group.size) : nullptr);
  }
}

void Optimizer::apply(std::span<const backend::Shared> parameters,
                      std::span<const backend::Shared> gradients, backend::Step& training_step,
                      std::uint64_t step, double rate) {
  backend::OptimizerStep s;
  s.kind = adam() ? backend::OptimizerStep::Kind::adam : backend::OptimizerStep::Kind::sgd;
  s.momentum = table_.momentum;
  s.beta1 = table_.beta1;
  s.beta2 = table_.beta2;
  s.epsilon = table_.epsilon;
  s.step = step + 1;
  s.clip_value = table_.clip_value;
  s.weight_decay = table_.weight_decay;
  s.training_step = &training_step;
  if (table_.clip_norm > 0.0 && table_.clip_norm_of == ClipNormOf::tensor) {
    for (std::size_t g = 0; g < gradients.size(); ++g) {
      std::vector<backend::Backend::Segment> tensors;
      for (const ParameterTensor& t : groups_[g].tensors) tensors.push_back({t.offset, t.size});
      backend_.clip(*gradients[g], table_.clip_value, table_.clip_norm, tensors);
    }
  } else if (table_.clip_norm > 0.0) {
    s.clip_norm = table_.clip_norm;
    squared_norm(gradients, table_.clip_value,
                 {training_step, &backend::StepStatistics::clipped_squares});
  }
  for (std::size_t g = 0; g < parameters.size(); ++g) {
    s.learning_rate = rate * factors_[g];
    backend_.optimizer_step(*parameters[g], *gradients[g], *m_[g], v_[g].get(), s);
  }
}

void Optimizer::squared_norm(std::span<const backend::Shared> gradients, double clip,
                             backend::Sum to) const {
  for (const backend::Shared& gradient : gradients) backend_.squared_norm(*gradient, clip, to);
}

void Optimizer::load(const Checkpoint& checkpoint) {
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    checkpoint.load("optimizer.m.", groups_[g], *m_[g]);
    if (v_[g]) checkpoint.load("optimizer.v.", groups_[g], *v_[g]);
  }
}

}  // namespace kshot
