// What every backend's waves check when they take tasks.
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "backend/backend.h"
#include "backend/linear_algebra.h"
#include "kshot/error.h"

namespace kshot::backend {

std::unique_ptr<LinearAlgebra> Wave::linear_algebra() {
  throw std::logic_error("linear_algebra is not there yet on this backend");
}

void Wave::check_classes(const TaskBatch& batch, int first, int count, const WaveShape& shape) {
  const TaskShape& tasks = batch.shape();
  if (!batch.ways.empty() && batch.ways.size() != static_cast<std::size_t>(batch.tasks())) {
    throw Error(fmt::format("task batch: {} numbers of classes for {} tasks", batch.ways.size(),
                            batch.tasks()));
  }
  ways_.assign(static_cast<std::size_t>(count), tasks.outputs);
  if (tasks.target != TargetKind::label) return;
  for (int t = 0; t < count; ++t) {
    const auto task = static_cast<std::size_t>(first + t);
    const int ways = batch.ways.empty() ? tasks.outputs : batch.ways[task];
    if (ways < 1 || ways > tasks.outputs) {
      throw Error(
          fmt::format("task {} has {} classes: expected 1 to {}", task, ways, tasks.outputs));
    }
    ways_[static_cast<std::size_t>(t)] = ways;
    std::vector<bool> seen(static_cast<std::size_t>(ways), false);
    const auto check = [&](const std::vector<std::int32_t>& labels, int most, int rows) {
      const auto* begin = labels.data() + task * static_cast<std::size_t>(most);
      for (int row = 0; row < rows; ++row) {
        if (begin[row] < 0 || begin[row] >= ways) {
          throw Error(fmt::format("task {} has the label {}: expected a class index in [0, {})",
                                  task, begin[row], ways));
        }
        seen[static_cast<std::size_t>(begin[row])] = true;
      }
    };
    check(batch.support_label, tasks.support, batch.support_n[task]);
    const auto missing = std::ranges::find(seen, false);
    if (shape.every_class && missing != seen.end()) {
      throw Error(fmt::format(
          "class {} of task {} has no support row: expected at least one row of each of its {} "
          "classes",
          missing - seen.begin(), task, ways));
    }
    check(batch.query_label, tasks.query, batch.query_n[task]);
  }
}

}  // namespace kshot::backend
