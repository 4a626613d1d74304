// The rows of a wave's tasks in device memory, loaded from a batch or drawn by the device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/cuda_episodes.h"
#include "backend/cuda/memory.h"
#include "kernels/extent.h"
#include "kshot/episode.h"
#include "kshot/network.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// All functions act on the current device.
template <class T>
class CudaRows {
 public:
  using Set = backend::Set;
  /// Rows of one set, [tasks, rows, ...]: features, and targets in the form that the loss takes.
  struct SetRows {
    int rows = 0;  ///< largest number over tasks
    DeviceMemory<T> x;
    DeviceMemory<T> values;             ///< empty with labels
    DeviceMemory<std::int32_t> labels;  ///< empty with values
    DeviceMemory<std::int32_t> counts;  ///< own rows, [tasks]
  };

  /// `targets` is the number of classes, or of values in a row's target.
  CudaRows(const Network& network, const backend::Loss& loss, const backend::WaveShape& shape,
           int targets, int capacity);
  /// Loads tasks [first, first + count) of the batch. The batch may change after the call. The
  /// copies to the device are queued on `stream`.
  void load(const TaskBatch& batch, int first, int count, const Stream& stream);
  /// Draws `count` tasks from `id` on, on the device.
  void draw(const CudaEpisodes& episodes, const TaskId& id, int count, const Stream& stream);

  /// Throws std::logic_error for Set::all where the wave was opened without it.
  const SetRows& of(Set set) const;
  const std::int32_t* counts(Set set) const { return sets_[static_cast<int>(set)].counts.data(); }
  RowExtent extent(const SetRows& set) const { return {count_, set.rows, set.counts.data()}; }
  RowExtent extent(Set set) const { return extent(sets_[static_cast<int>(set)]); }
  /// Numbers of classes [tasks]. Null where every task has all classes.
  const std::int32_t* ways() const { return own_ways_ ? ways_on_device_.data() : nullptr; }

  // ---- on the host ----
  /// Index of the first loaded task in its batch.
  std::size_t batch_first() const { return batch_first_; }
  /// Own rows of the loaded tasks.
  const std::vector<std::int32_t>& support_counts() const { return support_n_; }
  const std::vector<std::int32_t>& query_counts() const { return query_n_; }
  /// Labels [tasks, rows of the batch].
  std::span<const std::int32_t> support_labels() const { return support_labels_; }
  /// Number of loads and draws so far.
  std::uint64_t loads() const { return loads_; }

 private:
  /// Host memory for one load, from which the device copies while the host goes on.
  template <class Number>
  class Staging {
   public:
    void begin(std::size_t most) {
      memory_.reserve(most);
      used_ = 0;
    }
    Number* take(std::size_t count) {
      Number* const at = memory_.data() + used_;
      used_ += count;
      return at;
    }

   private:
    HostMemory<Number> memory_;
    std::size_t used_ = 0;
  };
  /// Host buffers of one load. `fetched` is recorded when the device has copied them.
  struct Staged {
    Staging<T> numbers;
    Staging<std::int32_t> integers;
    Event fetched;
  };

  template <class Number>
  void put_rows(SetRows& to, const std::vector<Number>& support_x,
                const std::vector<Number>& support_y, const std::vector<Number>& query_x,
                const std::vector<Number>& query_y, const TaskBatch& batch, Set set, Staged& staged,
                const Stream& stream);
  void put_counts(SetRows& to, const TaskBatch& batch, Set set, Staged& staged,
                  const Stream& stream);
  void put_ways(const TaskBatch& batch, Staged& staged, const Stream& stream);
  void put_sets(const TaskBatch& batch, Staged& staged, const Stream& stream);
  Staged& begin_staging();

  backend::WaveShape shape_;
  bool labelled_;
  int count_ = 0;
  std::size_t batch_first_ = 0;
  std::vector<std::int32_t> support_n_, query_n_;
  std::uint64_t loads_ = 0;
  std::vector<std::int32_t> support_labels_;
  /// [tasks], for batches that have numbers of classes.
  DeviceMemory<std::int32_t> ways_on_device_;
  bool own_ways_ = false;  ///< true if ways_on_device_ holds those of the loaded tasks
  SetRows sets_[3];
  /// [tasks, all rows]: indices of the rows that draw() took.
  DeviceMemory<std::uint32_t> stored_rows_;
  Staged staged_[2];  ///< alternate: one is filled while the device copies from the other
};

template <class T>
const typename CudaRows<T>::SetRows& CudaRows<T>::of(Set set) const {
  if (set == Set::all && !shape_.with_all) throw std::logic_error("wave opened without Set::all");
  return sets_[static_cast<int>(set)];
}

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
