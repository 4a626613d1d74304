// Device functions that find a task's matrix and its own rows (task_matrix.h).
#pragma once

#include "kernels/device.h"
#include "kernels/passes.h"
#include "kernels/task_matrix.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

constexpr int warps = threads / warp_lanes;  ///< warps per block

#if defined(KSHOT_SIMT) || defined(__CUDACC__)
/// The first element of a task's matrix.
template <class T>
__device__ T* of_task(const TaskMatrix<T>& m, int task) {
  return m.data + static_cast<std::size_t>(task) * m.stride;
}

/// True if a row is one of the task's own.
__device__ inline bool is_own(const RowsOfTask& rows, int task, int row) {
  if (!rows.first) return true;
  if (rows.second && row >= rows.second_row) return row - rows.second_row < rows.second[task];
  return row < rows.first[task];
}
#endif

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
