// The meta-optimiser of all parameter groups.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "algorithms/algorithm.h"
#include "backend/backend.h"
#include "engine/checkpoint.h"
#include "kshot/config.h"

namespace kshot {

/// The learning rate of meta-step `step`, counted from 0, of `steps`.
double learning_rate(const Config::OptimizerTable& optimizer, std::uint64_t step, int steps);

/// The state of the optimiser, and a step with clipping by value and then by norm.
class Optimizer {
 public:
  /// `groups` must outlive the optimiser.
  Optimizer(const Config& config, backend::Backend& backend,
            const std::vector<ParameterGroup>& groups);

  /// Updates the parameters within the step `training_step`, whose status decides. `step` counts
  /// from 0.
  void apply(std::span<const backend::Shared> parameters,
             std::span<const backend::Shared> gradients, backend::Step& training_step,
             std::uint64_t step, double rate);
  /// Adds the sum of squares over all groups to `to`. Where clip > 0, elements are first cut to
  /// +-clip.
  void squared_norm(std::span<const backend::Shared> gradients, double clip, backend::Sum to) const;

  /// Visits the current state: put(prefix of its names, group, values) for each group.
  template <class Put>
  void each_state(const Put& put) const {
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      put("optimizer.m.", groups_[g], *m_[g]);
      if (v_[g]) put("optimizer.v.", groups_[g], *v_[g]);
    }
  }
  void load(const Checkpoint& checkpoint);

 private:
  bool adam() const { return table_.type == OptimizerKind::adam; }

  Config::OptimizerTable table_;
  backend::Backend& backend_;
  const std::vector<ParameterGroup>& groups_;
  std::vector<double> factors_;  ///< factor of the learning rate, per group
  std::vector<backend::Shared> m_, v_;
};

}  // namespace kshot
