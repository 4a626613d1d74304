// Tasks that the device draws. The rows from which they are drawn lie in its memory, in stored
// form.
#pragma once

#include <cstdint>
#include <variant>

#include "backend/backend.h"
#include "backend/cuda/memory.h"
#include "base/episode_recipe.h"
#include "kernels/episodes.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// A source of which the device draws the tasks of one split.
class CudaEpisodes final : public backend::Episodes {
 public:
  CudaEpisodes(const Stream& stream, const EpisodeRecipe& recipe, Split split);

  const TaskShape& shape() const { return shape_; }
  Split split() const { return split_; }
  /// The labels of a task's support rows are 0, 1, ..., each this often. 0 where there are no
  /// labels.
  int shots() const;
  /// Draws tasks [id.task, id.task + to.tasks) on the stream. stored_rows [tasks, support + query]
  /// is used where there are labels.
  template <class T>
  void draw(const EpisodeArrays<T>& to, std::uint32_t* stored_rows, const TaskId& id,
            cudaStream_t stream) const;

 private:
  /// The stored rows of a split's classes, and how tasks are drawn from them.
  struct Classes {
    DeviceMemory<std::uint8_t> pixels;  ///< [rows, features]; one of `pixels` and `numbers` is used
    DeviceMemory<float> numbers;
    DeviceMemory<float> factors;  ///< [rows], or empty
    DeviceMemory<RowGroup> groups;
    ClassDraw draw;
    int features = 0;
  };
  static Classes load_classes(const Stream& stream, const ClassRecipe& recipe, Split split);

  TaskShape shape_;
  Split split_;
  std::variant<SinusoidRanges, Classes> method_;
};

/// Backend::place, with `available` bytes of free device memory.
backend::EpisodePlace place_episodes(const Stream& stream, const EpisodeRecipe& recipe, Split split,
                                     std::size_t available);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
