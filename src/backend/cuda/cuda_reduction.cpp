#include "backend/cuda/cuda_reduction.h"

#include <algorithm>
#include <bit>
#include <stdexcept>

#include "backend/cuda/cuda_step.h"
#include "kernels/compaction.h"
#include "kernels/elementwise.h"
#include "kernels/reduction.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

/// A run's counts: its loss, its tasks, and those that diverged, in the order of the statistics.
constexpr std::size_t counts = 3;

}  // namespace

template <class T>
CudaReduction<T>::CudaReduction(const Device& device, SharedStreamPointer shared,
                                std::span<const std::size_t> widths,
                                std::shared_ptr<NodeExchange> exchange)
    : device_(device),
      shared_(std::move(shared)),
      widths_(widths.begin(), widths.end()),
      exchange_(std::move(exchange)) {
  for (const std::size_t w : widths_) width_ += w;
}

template <class T>
void CudaReduction<T>::lay_out(const backend::TaskShares& shares) {
  struct Nothing {};
  shares_ = shares;
  const auto run_level = backend::run_level;
  const std::size_t runs = (shares.total + run_tasks - 1) / run_tasks;
  levels_ = std::bit_width(runs) + 1;
  const std::size_t width = width_ + counts;
  const auto ranks = static_cast<std::size_t>(shares.size);
  in_pieces_ = exchange_ && backend::exchanged_in_pieces(shares.size, width);
  columns_ = in_pieces_ ? (width + ranks - 1) / ranks : width;
  stride_ = in_pieces_ ? columns_ * ranks : width;
  nodes_.reserve(2 * static_cast<std::size_t>(levels_) * stride_);
  total_.reserve(stride_);
  // The tree without its values: which nodes each rank has, and when two of them are added.
  backend::TaskTree<Nothing> whole;
  std::vector<std::int32_t> merges;
  std::vector<std::size_t> nodes_of;
  std::int32_t merged = 0;
  const auto count_merge = [&](int, Nothing, Nothing) { ++merged; };
  rows_.clear();
  for (int r = 0; r < shares.size; ++r) {
    backend::TaskTree<Nothing> own;
    const std::int64_t first = static_cast<std::int64_t>(shares.first(r)) >> run_level;
    for (std::size_t task = shares.first(r); task < shares.first(r + 1); task += run_tasks) {
      own.push(0, task >> run_level, {}, [](int, Nothing, Nothing) {});
    }
    nodes_of.push_back(own.nodes().size());
    for (const auto& node : own.nodes()) {
      merged = 0;
      whole.push(node.level, node.index, {}, count_merge);
      merges.push_back(merged);
      if (r != shares.rank) continue;
      const auto index = static_cast<std::int64_t>(node.index);
      const bool alone = index % 2 != 0 && ((index - 1) << node.level) < first;
      rows_.push_back(alone ? levels_ + node.level : node.level);
    }
  }
  merged = 0;
  whole.close(count_merge);
  if (!merges.empty()) merges.back() += merged;
  most_rows_ = std::ranges::max(nodes_of);
  places_.clear();
  for (std::size_t r = 0; r < nodes_of.size(); ++r) {
    for (std::size_t n = 0; n < nodes_of[r]; ++n) places_.push_back(r * most_rows_ + n);
  }
  all_rows_ = places_.size();
  ordered_.reserve(all_rows_ * columns_);
  if (exchange_) {
    // What no node fills is sent as well: rows of ranks with fewer nodes, columns after the last.
    mine_.reserve(most_rows_ * stride_);
    gathered_.reserve(ranks * most_rows_ * columns_);
    shared_->get().clear(mine_.data(), most_rows_ * stride_);
  }
  if (in_pieces_) {
    part_.reserve(columns_);
    shared_->get().clear(nodes_.data(), 2 * static_cast<std::size_t>(levels_) * stride_);
  }
  merges_.reserve(merges.size());
  shared_->get().to_device(merges_.data(), merges.data(), merges.size());
}

template <class T>
void CudaReduction<T>::begin(std::size_t waves, const backend::TaskShares& shares,
                             backend::Step& step) {
  device_.activate();
  queue_.begin(waves);
  ++steps_;
  if (shares.unit % run_tasks != 0) throw std::logic_error("reduction: shares of part of a run");
  if (!(shares == shares_)) lay_out(shares);
  flags_.reserve(shares.total);
  statistics_ = dynamic_cast<CudaStep<T>&>(step).at(&backend::StepStatistics::loss);
  const Stream& stream = shared_->write();  // so that waves come after it
  stream.clear(flags_.data(), shares.total);
}

template <class T>
void CudaReduction<T>::add(backend::Wave& wave, std::size_t ordinal,
                           std::span<const backend::Block> gradients, backend::Block loss) {
  device_.activate();
  wave.exclude_not_finite(loss);
  Partial partial = queue_.take();
  take(partial, dynamic_cast<CudaWave<T>&>(wave), gradients, loss);
  queue_.put(ordinal, std::move(partial), [&](Partial& next) { commit(next); });
}

template <class T>
void CudaReduction<T>::take(Partial& partial, CudaWave<T>& wave,
                            std::span<const backend::Block> gradients, backend::Block loss) {
  if (gradients.size() != widths_.size()) {
    throw std::logic_error("reduction: wrong number of blocks");
  }
  const std::size_t first = wave.global_first();
  if (first + static_cast<std::size_t>(wave.count()) > shares_.total) {
    throw std::logic_error("reduction: more tasks than were said");
  }
  if (!partial.summed) {
    partial.summed = std::make_unique<Event>();
    partial.added = std::make_unique<Event>();
  }
  const auto most = static_cast<std::size_t>((wave.capacity() + run_tasks - 1) / run_tasks);
  partial.sums.reserve(most * width_);
  partial.counts.reserve(most * counts);
  partial.runs = (wave.count() + run_tasks - 1) / run_tasks;
  partial.first_run = static_cast<std::int64_t>(first) / run_tasks;
  const Stream& stream = wave.stream();
  wave.follow_shared();
  std::int32_t* const flags = flags_.data() + first;
  mark_diverged(flags, wave.data(loss), wave.extent(loss), stream.get());
  for (const backend::Block block : gradients) {
    if (const FactoredGradient<T>* factored = wave.find_factored(block)) {
      factored->mark_diverged(flags, wave.count(), stream);
    } else {
      mark_diverged(flags, wave.data(block), wave.extent(block), stream.get());
    }
  }
  if (partial.step == steps_) stream.wait_for(*partial.added);  // its memory is free again
  std::size_t offset = 0;
  for (std::size_t g = 0; g < gradients.size(); ++g) {
    const Extent extent = wave.extent(gradients[g]);
    check_sizes(static_cast<std::size_t>(extent.width), widths_[g]);
    T* const sums = partial.sums.data() + offset;
    if (const FactoredGradient<T>* factored = wave.find_factored(gradients[g])) {
      factored->sum_runs(sums, width_, flags, wave.count(), stream);
    } else {
      sum_runs<T>(sums, width_, wave.data(gradients[g]), flags, extent, stream.get());
    }
    offset += widths_[g];
  }
  count_runs(partial.counts.data(), wave.data(loss), flags, wave.count(), stream.get());
  stream.record(*partial.summed);
}

template <class T>
void CudaReduction<T>::commit(Partial& partial) {
  const Stream& stream = shared_->get();
  stream.wait_for(*partial.summed);
  RunTree tree{nodes_.data(), stride_, levels_,
               static_cast<std::int64_t>(shares_.first()) / run_tasks};
  push_runs(tree, partial.sums.data(), partial.first_run, partial.runs, width_, stream.get());
  tree.nodes += width_;
  push_runs(tree, partial.counts.data(), partial.first_run, partial.runs, counts, stream.get());
  stream.record(*partial.added);
  partial.step = steps_;
}

template <class T>
void CudaReduction<T>::finish(std::span<const backend::Shared> means) {
  device_.activate();
  queue_.check_complete();
  if (means.size() != widths_.size()) throw std::logic_error("reduction: wrong number of vectors");
  const Stream& stream = shared_->write();
  double* const mine = exchange_ ? mine_.data() : ordered_.data();
  for (std::size_t n = 0; n < rows_.size(); ++n) {
    const double* const node = nodes_.data() + static_cast<std::size_t>(rows_[n]) * stride_;
    stream.copy_rows(mine + n * columns_, most_rows_ * columns_, node, stride_ / columns_,
                     columns_);
  }
  if (exchange_) {
    if (in_pieces_) {
      exchange_->all_to_all(gathered_.data(), mine_.data(), most_rows_ * columns_, stream);
    } else {
      exchange_->all_gather(gathered_.data(), mine_.data(), most_rows_ * columns_, stream);
    }
    for (std::size_t n = 0; n < all_rows_; ++n) {
      stream.copy(ordered_.data() + n * columns_, gathered_.data() + places_[n] * columns_,
                  columns_);
    }
  }
  fold_nodes(in_pieces_ ? part_.data() : total_.data(), ordered_.data(), columns_, merges_.data(),
             static_cast<int>(all_rows_), columns_, stream.get());
  if (in_pieces_) exchange_->all_gather(total_.data(), part_.data(), columns_, stream);
  const double* const totals = total_.data() + width_;
  axpy(statistics_, 1.0, totals, counts, stream.get());
  std::size_t offset = 0;
  for (std::size_t g = 0; g < means.size(); ++g) {
    check_sizes(means[g]->size(), widths_[g]);
    mean_of_total(on_device<T>(*means[g]).data(), total_.data() + offset, totals + 1, widths_[g],
                  stream.get());
    offset += widths_[g];
  }
}

template <class T>
std::vector<std::uint32_t> CudaReduction<T>::diverged_tasks() const {
  device_.activate();
  const Stream& stream = shared_->get();
  const std::size_t total = shares_.total;
  DeviceMemory<std::uint32_t> list(total);
  std::vector<std::uint32_t> tasks(set_indices(list.data(), flags_.data(), total, stream.get()));
  stream.to_host(tasks.data(), list.data(), tasks.size());
  return tasks;
}

template class CudaReduction<float>;
template class CudaReduction<double>;

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
