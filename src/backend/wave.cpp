#include "backend/wave.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "backend/linear_algebra.h"
#include "backend/row_checks.h"
#include "kshot/error.h"

namespace kshot::backend {

void TaskRows::load(const TaskBatch& batch, int first, int count, std::uint32_t global_first) {
  check_rows(batch, first, count, global_first, {*network_, loss_.kind, shape_, capacity()});
  std::vector<char> not_finite = find_not_finite(batch, first, count);
  ways_.clear();
  for (int t = 0; t < count; ++t) ways_.push_back(batch.ways_of(first + t));
  do_load(batch, first, count, global_first);
  not_finite_ = std::move(not_finite);
  if (!not_finite_.empty()) mark_not_finite(first);
}

Block Wave::outputs(Set set) {
  Block& block = output_blocks_[static_cast<int>(set)];
  if (!block) {
    block = this->block(static_cast<std::size_t>(rows(set)) *
                        static_cast<std::size_t>(network_outputs_));
  }
  return block;
}

GaussianPasses& Wave::gaussian_passes() {
  if (!gaussian_passes_) gaussian_passes_ = make_gaussian_passes();
  return *gaussian_passes_;
}

std::unique_ptr<GaussianPasses> Wave::make_gaussian_passes() {
  return std::make_unique<GaussianPasses>(*this);
}

void Wave::mark_not_finite(int first) {
  // The marks are uploaded here, because reductions may run in captured work, where nothing can
  // come from the host.
  if (!exclusion_) exclusion_ = block(1);
  std::vector<double> marks(static_cast<std::size_t>(first + count()), 0.0);
  for (int t = 0; t < count(); ++t) {
    if (rows_finite(t)) continue;
    marks[static_cast<std::size_t>(first + t)] = std::numeric_limits<double>::quiet_NaN();
  }
  upload(exclusion_, marks.data(), 1);
}

void Wave::exclude_not_finite(Block loss) {
  if (!all_rows_finite()) axpy(loss, 1.0, exclusion_);
}

std::unique_ptr<LinearAlgebra> Wave::linear_algebra() {
  throw DeviceError(
      "this backend does not have the small matrices that closed-form heads are composed of yet; "
      "expected --device reference");
}

}  // namespace kshot::backend
