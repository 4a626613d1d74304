// Sizes and factors of per-task vectors.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/runtime.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// Sizes of a per-task vector [tasks, width].
struct Extent {
  int tasks = 0;
  int width = 0;
  std::size_t count() const {
    return static_cast<std::size_t>(tasks) * static_cast<std::size_t>(width);
  }
};

/// A factor per task: `factor`, divided by the task's count if counts [tasks] is given.
template <class T>
struct TaskScale {
  T factor = 1;
  const std::int32_t* counts = nullptr;
};

/// Rows of features [tasks, rows, ...]. The first counts[t] rows of task t are its own; the others
/// are padding.
struct RowExtent {
  int tasks = 0;
  int rows = 0;
  /// [tasks], device memory; null: all rows are the tasks' own
  const std::int32_t* counts = nullptr;
};

/// A tensor of each task's weights. The tensor of task t is at data + t * stride; with stride 0 all
/// tasks share one tensor. data is null if an input does not exist or an output is not computed.
template <class T>
struct TaskTensor {
  T* data = nullptr;
  std::size_t stride = 0;
};

/// A vector and its directional derivative. dot is null if the derivative of an input is zero, or
/// if that of an output is not computed.
template <class T>
struct Tangent {
  T* value = nullptr;
  T* dot = nullptr;
};

/// A tensor of each task's weights and its directional derivative.
template <class T>
struct TensorTangent {
  TaskTensor<T> value, dot;
};

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
