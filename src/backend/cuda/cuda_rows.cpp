#include "backend/cuda/cuda_rows.h"

#include <algorithm>
#include <stdexcept>
#include <type_traits>

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

using backend::count_of;

template <class T>
CudaRows<T>::CudaRows(const Network& network, const backend::Loss& loss,
                      const backend::WaveShape& shape, int targets, int capacity)
    : shape_(shape), labelled_(loss.kind == backend::LossKind::cross_entropy) {
  const std::size_t tasks = count_of(capacity);
  const auto inputs = count_of(network.input().size());
  for (const Set set : {Set::support, Set::query, Set::all}) {
    SetRows& rows_of_set = sets_[static_cast<int>(set)];
    rows_of_set.rows = shape.rows(set);
    rows_of_set.counts = DeviceMemory<std::int32_t>(tasks);
    if (set == Set::all && !shape.with_all) continue;  // only its counts, for factors
    const std::size_t all = tasks * count_of(rows_of_set.rows);
    rows_of_set.x = DeviceMemory<T>(all * inputs);
    if (labelled_) {
      rows_of_set.labels = DeviceMemory<std::int32_t>(all);
    } else {
      rows_of_set.values = DeviceMemory<T>(all * count_of(targets));
    }
  }
  if (!labelled_) return;
  stored_rows_ = DeviceMemory<std::uint32_t>(tasks * count_of(shape.support + shape.query));
  ways_on_device_ = DeviceMemory<std::int32_t>(tasks);
}

template <class T>
template <class Number>
void CudaRows<T>::put_rows(SetRows& to, const std::vector<Number>& support_x,
                           const std::vector<Number>& support_y, const std::vector<Number>& query_x,
                           const std::vector<Number>& query_y, const TaskBatch& batch, Set set,
                           Staged& staged, const Stream& stream) {
  const TaskShape& shape = batch.shape();
  const std::size_t tasks = count_of(count_), of_task = count_of(to.rows);
  // Own rows one after another, support first. Places beyond them are zero.
  const auto join_sets = [&](const auto& support, const auto& query, std::size_t width,
                             auto* host) {
    using To = std::remove_reference_t<decltype(*host)>;
    std::fill_n(host, tasks * of_task * width, To{});
    for (std::size_t t = 0; t < tasks; ++t) {
      const std::size_t task = batch_first_ + t;
      To* out = host + t * of_task * width;
      const auto add = [&](const auto& from, int largest, std::int32_t valid) {
        const auto* begin = from.data() + task * count_of(largest) * width;
        out = std::transform(begin, begin + count_of(valid) * width, out,
                             [](auto x) { return static_cast<To>(x); });
      };
      if (set != Set::query) add(support, shape.support, batch.support_n[task]);
      if (set != Set::support) add(query, shape.query, batch.query_n[task]);
    }
  };
  const std::size_t rows = tasks * of_task;
  const auto put_numbers = [&](const auto& support, const auto& query, int width, T* device) {
    T* const host = staged.numbers.take(rows * count_of(width));
    join_sets(support, query, count_of(width), host);
    stream.start_to_device(device, host, rows * count_of(width));
  };
  put_numbers(support_x, query_x, shape.input.size(), to.x.data());
  if (labelled_) {
    std::int32_t* const host = staged.integers.take(rows);
    join_sets(batch.support_label, batch.query_label, 1, host);
    stream.start_to_device(to.labels.data(), host, rows);
  } else {
    put_numbers(support_y, query_y, shape.outputs, to.values.data());
  }
}

template <class T>
void CudaRows<T>::put_counts(SetRows& to, const TaskBatch& batch, Set set, Staged& staged,
                             const Stream& stream) {
  std::int32_t* const host = staged.integers.take(count_of(count_));
  for (std::size_t t = 0; t < count_of(count_); ++t) {
    host[t] = 0;
    if (set != Set::query) host[t] += batch.support_n[batch_first_ + t];
    if (set != Set::support) host[t] += batch.query_n[batch_first_ + t];
  }
  stream.start_to_device(to.counts.data(), host, count_of(count_));
}

template <class T>
void CudaRows<T>::put_ways(const TaskBatch& batch, Staged& staged, const Stream& stream) {
  own_ways_ = !batch.ways.empty() && ways_on_device_.size() > 0;
  if (!own_ways_) return;
  std::int32_t* const host = staged.integers.take(count_of(count_));
  std::copy_n(batch.ways.begin() + static_cast<std::ptrdiff_t>(batch_first_), count_, host);
  stream.start_to_device(ways_on_device_.data(), host, count_of(count_));
}

template <class T>
typename CudaRows<T>::Staged& CudaRows<T>::begin_staging() {
  Staged& staged = staged_[loads_ % 2];
  staged.fetched.wait();  // the copies of two loads ago
  std::size_t numbers = 0, integers = ways_on_device_.size();
  for (const SetRows& set : sets_) {
    numbers += set.x.size() + set.values.size();
    integers += set.labels.size() + set.counts.size();
  }
  staged.numbers.begin(numbers);
  staged.integers.begin(integers);
  return staged;
}

template <class T>
void CudaRows<T>::load(const TaskBatch& batch, int first, int count, const Stream& stream) {
  const TaskShape& shape = batch.shape();
  count_ = count;
  batch_first_ = count_of(first);
  const auto own = [&](const std::vector<std::int32_t>& n) {
    const auto begin = n.begin() + first;
    return std::vector<std::int32_t>(begin, begin + count);
  };
  support_n_ = own(batch.support_n);
  query_n_ = own(batch.query_n);
  ++loads_;
  if (!batch.support_label.empty()) {
    const auto begin =
        batch.support_label.begin() + static_cast<std::ptrdiff_t>(first) * shape.support;
    support_labels_.assign(begin, begin + static_cast<std::ptrdiff_t>(count) * shape.support);
  }
  Staged& staged = begin_staging();
  try {
    put_sets(batch, staged, stream);
  } catch (...) {
    stream.wait();  // for the copies already queued
    throw;
  }
  stream.record(staged.fetched);
}

template <class T>
void CudaRows<T>::draw(const CudaEpisodes& episodes, const TaskId& id, int count,
                       const Stream& stream) {
  const TaskShape& shape = episodes.shape();
  const auto tasks = count_of(count);
  count_ = count;
  batch_first_ = 0;
  ++loads_;
  support_n_.assign(tasks, shape.support);
  query_n_.assign(tasks, shape.query);
  own_ways_ = false;
  if (const int shots = episodes.shots(); shots > 0) {
    support_labels_.resize(tasks * count_of(shape.support));
    for (std::size_t i = 0; i < support_labels_.size(); ++i) {
      support_labels_[i] = static_cast<std::int32_t>(i) % shape.support / shots;
    }
  }
  const auto arrays = [this](Set set) {
    SetRows& rows_of_set = sets_[static_cast<int>(set)];
    return EpisodeSet<T>{rows_of_set.x.data(), rows_of_set.values.data(), rows_of_set.labels.data(),
                         rows_of_set.counts.data()};
  };
  const EpisodeArrays<T> to{
      count,           shape.support, shape.query, arrays(Set::support), arrays(Set::query),
      arrays(Set::all)};
  episodes.draw(to, stored_rows_.data(), id, stream.get());
}

template <class T>
void CudaRows<T>::put_sets(const TaskBatch& batch, Staged& staged, const Stream& stream) {
  put_ways(batch, staged, stream);
  for (const Set set : {Set::support, Set::query, Set::all}) {
    SetRows& to = sets_[static_cast<int>(set)];
    put_counts(to, batch, set, staged, stream);
    if (set == Set::all && !shape_.with_all) continue;
    if (batch.is_double()) {
      put_rows(to, batch.support_x64, batch.support_value64, batch.query_x64, batch.query_value64,
               batch, set, staged, stream);
    } else {
      put_rows(to, batch.support_x, batch.support_value, batch.query_x, batch.query_value, batch,
               set, staged, stream);
    }
  }
}

template class CudaRows<float>;
template class CudaRows<double>;

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
