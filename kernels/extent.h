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

/// A per-task factor: `factor`, divided by the task's count where counts [tasks] are given.
template <class T>
struct TaskScale {
  T factor = 1;
  const std::int32_t* counts = nullptr;
};

/// Rows of features [tasks, rows, ...], of which task t has its own first counts[t].
struct RowExtent {
  int tasks = 0;
  int rows = 0;
  const std::int32_t* counts = nullptr;  ///< [tasks], device memory; null: all rows are its own
};

/// A tensor of each task's weights: task t's at data + t * stride (0: all tasks share it). Null:
/// not wanted, or not there.
template <class T>
struct TaskTensor {
  T* data = nullptr;
  std::size_t stride = 0;
};

/// A vector and its directional derivative, null where there is none (it is zero then, or not
/// wanted).
template <class T>
struct Tangent {
  T* value = nullptr;
  T* dot = nullptr;
};

template <class T>
struct TensorTangent {
  TaskTensor<T> value, dot;
};

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
