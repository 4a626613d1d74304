// The one check of the rows that come to a wave from outside, for every backend (TaskRows::load).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend/values.h"
#include "kshot/episode.h"
#include "kshot/network.h"

namespace kshot::backend {

/// What a wave can take.
struct RowLimits {
  const Network& network;
  LossKind loss = LossKind::cross_entropy;
  WaveShape shape;
  int tasks = 0;  ///< capacity
};

/// Checks tasks [first, first + count) of a batch: its shape against the network and the wave, the
/// lengths of its arrays, every task's numbers of rows and classes, and the labels of the valid
/// rows. Rows beyond a task's own number are not looked at. `global_first` is the meta-batch index
/// of the first task, for messages. Throws Error that names task, set and row.
void check_rows(const TaskBatch& batch, int first, int count, std::uint32_t global_first,
                const RowLimits& limits);

/// A flag per task, set where a valid row holds a feature or a target that is not finite; empty
/// where there is none. The tasks must have been checked.
std::vector<char> find_not_finite(const TaskBatch& batch, int first, int count);

}  // namespace kshot::backend
