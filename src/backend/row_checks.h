// Checks of the rows that a wave loads. Every backend uses these checks (TaskRows::load).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend/values.h"
#include "kshot/episode.h"
#include "kshot/network.h"

namespace kshot::backend {

/// What a wave can load.
struct RowLimits {
  const Network& network;
  LossKind loss = LossKind::cross_entropy;
  WaveShape shape;
  int tasks = 0;  ///< capacity of the wave
};

/// Checks tasks [first, first + count) of a batch: the shape against the network and the wave, the
/// lengths of the arrays, each task's numbers of rows and classes, and the labels of the valid
/// rows. Rows beyond a task's own number are not read. `global_first` is the meta-batch index of
/// the first task, for messages. Throws Error that names task, set and row.
void check_rows(const TaskBatch& batch, int first, int count, std::uint32_t global_first,
                const RowLimits& limits);

/// Returns one flag per task, which is set where a valid row has a feature or a target that is not
/// finite. The result is empty where no flag is set. The tasks must have been checked by
/// check_rows.
std::vector<char> find_not_finite(const TaskBatch& batch, int first, int count);

}  // namespace kshot::backend
