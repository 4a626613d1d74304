// The rows of a wave's tasks in device memory, as a load takes them from a batch or the device
// draws them from a source.
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

/// On the device that is current, as all functions here.
template <class T>
class CudaRows {
 public:
  using Set = backend::Set;
  /// One set's rows [tasks, rows, ...]: features, and targets as the loss takes them.
  struct OfSet {
    int rows = 0;  ///< the largest number over tasks
    DeviceMemory<T> x;
    DeviceMemory<T> values;             ///< none with labels
    DeviceMemory<std::int32_t> labels;  ///< none with values
    DeviceMemory<std::int32_t> counts;  ///< own rows [tasks]
  };

  /// `targets`: classes or values that a row has as its target.
  CudaRows(const Network& network, const backend::Loss& loss, const backend::WaveShape& shape,
           int targets, int capacity);
  /// Tasks [first, first + count) of the batch. The batch may change when this returns; the copies
  /// to the device come on `stream`.
  void load(const TaskBatch& batch, int first, int count, const Stream& stream);
  /// Tasks from `id` on, drawn on the device.
  void draw(const CudaEpisodes& episodes, const TaskId& id, int count, const Stream& stream);

  /// Throws where the wave was opened without Set::all and that is asked for.
  const OfSet& of(Set set) const;
  const std::int32_t* counts(Set set) const { return sets_[static_cast<int>(set)].counts.data(); }
  RowExtent extent(const OfSet& set) const { return {count_, set.rows, set.counts.data()}; }
  RowExtent extent(Set set) const { return extent(sets_[static_cast<int>(set)]); }
  /// Numbers of classes [tasks]; null where every task has as many as there are.
  const std::int32_t* ways() const { return own_ways_ ? ways_on_device_.data() : nullptr; }

  // ---- on the host ----
  /// First task at hand within the batch it was loaded from.
  std::size_t batch_first() const { return batch_first_; }
  /// Own rows of the tasks at hand.
  const std::vector<std::int32_t>& support_counts() const { return support_n_; }
  const std::vector<std::int32_t>& query_counts() const { return query_n_; }
  /// Labels [tasks, rows of the batch].
  std::span<const std::int32_t> support_labels() const { return support_labels_; }
  /// How often tasks were loaded or drawn.
  std::uint64_t loads() const { return loads_; }

 private:
  /// Host memory that one load is put together in, and fetched from while the host goes on.
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
  struct Staged {
    Staging<T> numbers;
    Staging<std::int32_t> integers;
    Event fetched;
  };

  template <class Number>
  void put_rows(OfSet& to, const std::vector<Number>& support_x,
                const std::vector<Number>& support_y, const std::vector<Number>& query_x,
                const std::vector<Number>& query_y, const TaskBatch& batch, Set set, Staged& staged,
                const Stream& stream);
  void put_counts(OfSet& to, const TaskBatch& batch, Set set, Staged& staged, const Stream& stream);
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
  DeviceMemory<std::int32_t> ways_on_device_;  ///< [tasks], of a batch that says them
  bool own_ways_ = false;                      ///< they are those of the tasks at hand
  OfSet sets_[3];
  DeviceMemory<std::uint32_t> stored_rows_;  ///< [tasks, all rows]: which ones draw() took
  Staged staged_[2];                         ///< in turn: one is filled while the other is fetched
};

template <class T>
const typename CudaRows<T>::OfSet& CudaRows<T>::of(Set set) const {
  if (set == Set::all && !shape_.with_all) throw std::logic_error("wave opened without Set::all");
  return sets_[static_cast<int>(set)];
}

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
