#include "backend/host.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <numeric>
#include <stdexcept>

namespace kshot::backend {
namespace {

void check_sizes(std::size_t a, std::size_t b) {
  if (a != b) throw std::logic_error("shared vectors of different size");
}

/// y += sum over i of a[i] x[i], x [terms, n].
template <typename T>
void add_rows(T* __restrict y, const T* __restrict a, const T* __restrict x, std::size_t terms,
              std::size_t n) {
  std::size_t t = 0;
  for (; t + 4 <= terms; t += 4, x += 4 * n) {
    for (std::size_t i = 0; i < n; ++i) {
      y[i] += a[t] * x[i] + a[t + 1] * x[n + i] + a[t + 2] * x[2 * n + i] + a[t + 3] * x[3 * n + i];
    }
  }
  for (; t < terms; ++t, x += n) {
    for (std::size_t i = 0; i < n; ++i) y[i] += a[t] * x[i];
  }
}

/// Number of elements of a vector that a thread takes at a time.
constexpr std::size_t part_elements = 1 << 14;

/// Calls work(first, last) for all parts of 0 ... n - 1 in the pool's threads.
template <typename F>
void in_parts(ThreadPool& pool, std::size_t n, const F& work) {
  const std::size_t parts = (n + part_elements - 1) / part_elements;
  if (parts == 1) return work(std::size_t{0}, n);
  pool.run(parts, [&](std::size_t, std::size_t part) {
    work(part * part_elements, std::min(n, (part + 1) * part_elements));
  });
}

/// The sum of f(0) ... f(n - 1), part after part. Each part is summed as eight sums side by side.
template <typename F>
double sum_of(ThreadPool& pool, std::size_t n, const F& f) {
  constexpr std::size_t side = 8;
  std::vector<double> parts((n + part_elements - 1) / part_elements);
  in_parts(pool, n, [&](std::size_t first, std::size_t last) {
    double sums[side] = {};
    std::size_t i = first;
    for (; i + side <= last; i += side) {
      for (std::size_t j = 0; j < side; ++j) sums[j] += f(i + j);
    }
    for (; i < last; ++i) sums[0] += f(i);
    parts[first / part_elements] = std::accumulate(sums, sums + side, 0.0);
  });
  return std::accumulate(parts.begin(), parts.end(), 0.0);
}

/// Number of elements for which a tree is computed at a time, so that its partial sums stay in the
/// cache.
constexpr std::size_t tree_elements = 512;

/// Elements first ... first + count - 1 of the sum of waves, as a binary tree that is filled from
/// the left. The result is in `scratch` (tree_elements per level of the tree), or is the wave's own
/// memory if there is only one wave.
template <typename T>
const T* tree_sum(std::span<const std::vector<T>> waves, std::size_t first, std::size_t count,
                  T* scratch) {
  if (waves.size() == 1) return waves.front().data() + first;
  const std::size_t half = std::bit_ceil(waves.size()) / 2;
  const T* const left = tree_sum(waves.first(half), first, count, scratch);
  const T* const right = tree_sum(waves.subspan(half), first, count, scratch + tree_elements);
  for (std::size_t i = 0; i < count; ++i) scratch[i] = left[i] + right[i];
  return scratch;
}

/// Calls visit(first, count, sums) for pieces of the sum of a run, from element `from` to element
/// `to`.
template <typename T, typename F>
void for_tree_sums(std::span<const std::vector<T>> waves, std::size_t from, std::size_t to,
                   const F& visit) {
  std::array<T, std::bit_width(unsigned{run_tasks}) * tree_elements> scratch;
  for (; from < to; from += tree_elements) {
    const std::size_t count = std::min(tree_elements, to - from);
    visit(from, count, tree_sum(waves, from, count, scratch.data()));
  }
}

}  // namespace

std::uint64_t next_version() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

void dropout_factors(const Dropout& dropout, std::uint32_t task, std::span<float> factors) {
  RandomKey key = dropout.key;
  key.task = task;
  const auto kept = static_cast<float>(1.0 / (1.0 - dropout.rate));
  const auto rate = static_cast<float>(dropout.rate);
  // The generator gives four elements per call, in the order of noise_address.
  for (std::size_t block = 0; block < factors.size(); block += 64) {
    for (std::size_t j = 0; j < 16; ++j) {
      const auto words = philox4x32(key.counter(noise_address(block + j).quad), key.key());
      for (std::size_t r = 0; r < 4; ++r) {
        const std::size_t e = block + r * 16 + j;
        if (e >= factors.size()) continue;
        factors[e] = uniform_of(words[r]) < rate ? 0.0f : kept;
      }
    }
  }
}

template <typename T>
void HostVector<T>::upload(std::span<const double> values) {
  check_sizes(values.size(), values_.size());
  version_ = next_version();
  std::transform(values.begin(), values.end(), values_.begin(),
                 [](double x) { return static_cast<T>(x); });
}

template <typename T>
void HostVector<T>::download(std::span<double> values) const {
  check_sizes(values.size(), values_.size());
  std::copy(values_.begin(), values_.end(), values.begin());
}

// ---- reduction ----

template <typename T>
HostReduction<T>::HostReduction(ThreadPool& pool, std::span<const std::size_t> widths,
                                std::shared_ptr<Communicator> ranks)
    : pool_(pool), widths_(widths.begin(), widths.end()), ranks_(std::move(ranks)) {
  for (const std::size_t w : widths_) width_ += w;
}

template <typename T>
void HostReduction<T>::begin(std::size_t waves, const TaskShares& shares, Step& step) {
  queue_.begin(waves);
  step_ = &step;
  shares_ = shares;
  recycle();
  sums_.clear();
  losses_.clear();
  diverged_.clear();
  tasks_ = diverged_count_ = 0.0;
}

template <typename T>
void HostReduction<T>::add(Wave& wave, std::size_t ordinal, std::span<const Block> gradients,
                           Block loss) {
  auto& host_wave = dynamic_cast<HostWave<T>&>(wave);
  wave.exclude_not_finite(loss);
  Partial partial = queue_.take();
  const auto count = static_cast<std::size_t>(wave.count());
  partial.sums.resize(width_);
  partial.losses.assign(count, 0.0);
  partial.diverged.assign(count, 0);
  partial.first = wave.global_first();
  partial.capacity = wave.capacity();
  host_wave.sum_tasks(gradients, loss, partial.sums.data(), partial.losses.data(),
                      partial.diverged.data());
  queue_.put(ordinal, std::move(partial), [&](Partial& next) { commit(next); });
}

template <typename T>
void HostReduction<T>::commit(Partial& partial) {
  for (std::size_t t = 0; t < partial.losses.size(); ++t) {
    const std::uint32_t task = partial.first + static_cast<std::uint32_t>(t);
    if (partial.diverged[t]) {
      diverged_.push_back(task);
      diverged_count_ += 1.0;
    } else {
      tasks_ += 1.0;
    }
    losses_.push(0, task, partial.diverged[t] ? 0.0 : partial.losses[t], add_doubles);
  }
  if (run_.empty()) run_first_ = partial.first;
  run_.push_back(std::move(partial.sums));
  wave_tasks_ = partial.capacity;
  run_tasks_ += partial.capacity;
  const std::size_t next = run_first_ + static_cast<std::size_t>(run_tasks_);
  if (next % run_tasks == 0) add_run();
  if (!spare_.empty()) {
    partial.sums = std::move(spare_.back());  // reuses memory
    spare_.pop_back();
  }
}

template <typename T>
void HostReduction<T>::add_run() {
  const std::size_t end = run_first_ + static_cast<std::size_t>(run_tasks_);
  if (run_first_ % run_tasks == 0 && (end % run_tasks == 0 || end >= shares_.total)) {
    sums_.push_pieces(run_level, run_first_ >> run_level, width_,
                      [&](const auto& put) { for_tree_sums<T>(run_, 0, width_, put); });
  } else {  // other ranks have the rest of the run
    const int level = std::countr_zero(static_cast<unsigned>(wave_tasks_));
    for (std::size_t w = 0; w < run_.size(); ++w) {
      sums_.push(level, (run_first_ >> level) + w, run_[w]);
    }
  }
  recycle();
}

template <typename T>
void HostReduction<T>::recycle() {
  for (auto& sums : run_) spare_.push_back(std::move(sums));
  run_.clear();
  run_tasks_ = 0;
}

template <typename T>
void HostReduction<T>::exchange() {
  if (!run_.empty()) add_run();
  if (shares_.last()) {
    sums_.close();
    losses_.close(add_doubles);
  }
  if (!ranks_) return;
  std::vector<double> mine = {tasks_, diverged_count_};
  for (const auto& node : losses_.nodes()) mine.push_back(node.value);
  const std::vector<std::vector<double>> all = ranks_->all_gather(mine, "losses of the tasks");
  tasks_ = diverged_count_ = 0.0;
  losses_.clear();
  for (int r = 0; r < shares_.size; ++r) {
    const std::vector<double>& of = all[static_cast<std::size_t>(r)];
    const std::vector<TreePlace> places = places_of(shares_, r, 0);
    if (of.size() != places.size() + 2) throw std::logic_error("reduction: other tasks' losses");
    tasks_ += of[0];
    diverged_count_ += of[1];
    for (std::size_t i = 0; i < places.size(); ++i) {
      losses_.push(places[i].level, places[i].index, of[i + 2], add_doubles);
    }
  }
  losses_.close(add_doubles);
  sums_.exchange(*ranks_, shares_, width_);
}

template <typename T>
void HostReduction<T>::finish(std::span<const Shared> means) {
  queue_.check_complete();
  if (means.size() != widths_.size()) throw std::logic_error("reduction: wrong number of vectors");
  // A single run of one process needs no tree.
  const bool alone = !ranks_ && sums_.empty() && run_first_ == 0 && !run_.empty();
  if (alone) {
    losses_.close(add_doubles);
  } else {
    exchange();
  }
  step_->add(&StepStatistics::loss, losses_.nodes().empty() ? 0.0 : losses_.nodes().front().value);
  step_->add(&StepStatistics::tasks, tasks_);
  step_->add(&StepStatistics::diverged, diverged_count_);
  const double scale = tasks_ > 0.0 ? 1.0 / tasks_ : 0.0;
  std::size_t offset = 0;
  for (std::size_t g = 0; g < means.size(); offset += widths_[g++]) {
    check_sizes(means[g]->size(), widths_[g]);
    T* const mean = host<T>(*means[g]).data();
    const auto put = [&](std::size_t first, std::size_t count, const auto* sums) {
      T* const __restrict to = mean + (first - offset);
      for (std::size_t i = 0; i < count; ++i) {
        to[i] = static_cast<T>(static_cast<double>(sums[i]) * scale);
      }
    };
    in_parts(pool_, widths_[g], [&](std::size_t first, std::size_t last) {
      first += offset, last += offset;
      if (alone) return for_tree_sums<T>(run_, first, last, put);
      put(first, last - first, sums_.root(width_).data() + first);
    });
  }
}

// ---- shared vectors ----

template <typename T>
Shared HostBackend<T>::shared(std::size_t size) {
  return std::make_shared<HostVector<T>>(size);
}

template <typename T>
std::unique_ptr<Reduction> HostBackend<T>::reduction(std::span<const std::size_t> widths) {
  return std::make_unique<HostReduction<T>>(this->pool(), widths, this->ranks());
}

template <typename T>
void HostBackend<T>::assign(SharedVector& dst, const SharedVector& src) {
  check_sizes(dst.size(), src.size());
  const T* const from = host<T>(src).data();
  T* const to = host<T>(dst).data();
  in_parts(this->pool(), src.size(), [&](std::size_t first, std::size_t last) {
    std::copy(from + first, from + last, to + first);
  });
}

template <typename T>
void HostBackend<T>::multiply(SharedVector& dst, const SharedVector& src) {
  check_sizes(dst.size(), src.size());
  T* d = host<T>(dst).data();
  const T* s = host<T>(src).data();
  const std::size_t n = dst.size();
  for (std::size_t i = 0; i < n; ++i) d[i] *= s[i];
}

template <typename T>
void HostBackend<T>::add(SharedVector& dst, double a, const SharedVector& src) {
  check_sizes(dst.size(), src.size());
  T* const __restrict d = host<T>(dst).data();
  const T* const __restrict s = host<T>(src).data();
  const auto factor = static_cast<T>(a);
  for (std::size_t i = 0; i < dst.size(); ++i) d[i] += factor * s[i];
}

template <typename T>
void HostBackend<T>::exponential(SharedVector& dst, const SharedVector& src) {
  check_sizes(dst.size(), src.size());
  T* const d = host<T>(dst).data();
  const T* const s = host<T>(src).data();
  for (std::size_t i = 0; i < dst.size(); ++i) d[i] = std::exp(s[i]);
}

template <typename T>
void HostBackend<T>::squared_norm(const SharedVector& v, double clip, Sum to) {
  const T* x = host<T>(v).data();
  const T limit = static_cast<T>(clip);
  to.step.add(to.statistic, sum_of(this->pool(), v.size(), [&](std::size_t i) {
                const auto element =
                    static_cast<double>(limit > T(0) ? std::clamp(x[i], -limit, limit) : x[i]);
                return element * element;
              }));
}

template <typename T>
void HostBackend<T>::l2_penalty(const SharedVector& v, std::span<const Backend::Segment> segments,
                                double weight, SharedVector& g, Sum to) {
  const T factor = static_cast<T>(weight);
  double sum = 0.0;
  T* const gradient = host<T>(g).data();
  for (const Backend::Segment& segment : segments) {
    const T* const __restrict x = host<T>(v).data() + segment.offset;
    T* const __restrict d = gradient + segment.offset;
    sum += sum_of(this->pool(), segment.size, [&](std::size_t i) {
      const T element = x[i];
      d[i] += factor * element;
      return static_cast<double>(element) * static_cast<double>(element);
    });
  }
  to.step.add(to.statistic, 0.5 * weight * sum);
}

template <typename T>
void HostBackend<T>::gather(SharedVector& dst, const SharedVector& src,
                            std::span<const std::uint32_t> index) {
  check_sizes(dst.size(), index.size());
  T* d = host<T>(dst).data();
  const T* s = host<T>(src).data();
  for (std::size_t i = 0; i < index.size(); ++i) d[i] = s[index[i]];
}

template <typename T>
void HostBackend<T>::scatter_add(SharedVector& dst, const SharedVector& src,
                                 std::span<const std::uint32_t> index, bool accumulate) {
  check_sizes(src.size(), index.size());
  T* d = host<T>(dst).data();
  const T* s = host<T>(src).data();
  if (!accumulate) std::fill_n(d, dst.size(), T(0));
  if (index.empty()) return;
  const auto [low, high] = std::ranges::minmax(index);
  std::vector<double> sums(high - low + std::size_t{1}, 0.0);
  for (std::size_t i = 0; i < index.size(); ++i) sums[index[i] - low] += static_cast<double>(s[i]);
  for (std::size_t i = 0; i < sums.size(); ++i) d[low + i] += static_cast<T>(sums[i]);
}

template <typename T>
void HostBackend<T>::hyper_prior(const SharedVector& mu, const SharedVector& s, double a0,
                                 double b0, double weight, SharedVector& g_mu, SharedVector& g_s,
                                 Sum to) {
  const T* m = host<T>(mu).data();
  const T* ls = host<T>(s).data();
  T* gm = host<T>(g_mu).data();
  T* gs = host<T>(g_s).data();
  double value = 0.0;
  for (std::size_t i = 0; i < mu.size(); ++i) {
    const double x = static_cast<double>(m[i]);
    const double log_sigma = static_cast<double>(ls[i]);
    const double tau = std::exp(-2.0 * log_sigma);
    value += 0.5 * x * x - ((a0 - 1.0) * (-2.0 * log_sigma) - b0 * tau);
    gm[i] += static_cast<T>(weight * x);
    gs[i] += static_cast<T>(weight * (2.0 * (a0 - 1.0) - 2.0 * b0 * tau));
  }
  to.step.add(to.statistic, weight * value);
}

template <typename T>
void HostBackend<T>::clip(SharedVector& v, double value, double norm,
                          std::span<const Backend::Segment> segments) {
  T* x = host<T>(v).data();
  const T limit = static_cast<T>(value);
  for (const Backend::Segment& segment : segments) {
    T* const begin = x + segment.offset;
    double sum = 0.0;
    for (std::size_t i = 0; i < segment.size; ++i) {
      if (value > 0.0) begin[i] = std::clamp(begin[i], -limit, limit);
      sum += static_cast<double>(begin[i]) * static_cast<double>(begin[i]);
    }
    const double length = std::sqrt(sum);
    if (length <= norm) continue;
    const T factor = static_cast<T>(norm / length);
    for (std::size_t i = 0; i < segment.size; ++i) begin[i] *= factor;
  }
}

// With unit columns n_a and C = n^T n, the gradient by n_a is 4 weight / columns^2 * sum_b (C_ab -
// I_ab) n_b. The gradient by d_a is the part of it that is orthogonal to n_a, divided by |d_a|. The
// two products of rows x columns x columns are computed in T; the first one sums runs of 64 rows in
// double.
template <typename T>
void HostBackend<T>::column_orthogonality(const SharedVector& v, std::size_t offset,
                                          std::size_t rows, std::size_t columns, double weight,
                                          SharedVector& g, Sum sum_to) {
  constexpr std::size_t run = 64;
  const T* d = host<T>(v).data() + offset;
  T* to = host<T>(g).data() + offset;
  std::vector<double> length(columns, 0.0), cosine(columns * columns, 0.0);
  std::vector<T> unit(rows * columns), part(columns * columns), inverse(columns), sum(columns);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t a = 0; a < columns; ++a) {
      const auto x = static_cast<double>(d[r * columns + a]);
      length[a] += x * x;
    }
  }
  for (std::size_t a = 0; a < columns; ++a) inverse[a] = static_cast<T>(1.0 / std::sqrt(length[a]));
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t a = 0; a < columns; ++a) {
      unit[r * columns + a] = d[r * columns + a] * inverse[a];
    }
  }
  T column[run];
  for (std::size_t first = 0; first < rows; first += run) {
    std::fill(part.begin(), part.end(), T(0));
    const std::size_t count = std::min(run, rows - first);
    const T* block = unit.data() + first * columns;
    for (std::size_t a = 0; a < columns; ++a) {
      for (std::size_t r = 0; r < count; ++r) column[r] = block[r * columns + a];
      add_rows(part.data() + a * columns, column, block, count, columns);
    }
    for (std::size_t i = 0; i < part.size(); ++i) cosine[i] += static_cast<double>(part[i]);
  }
  const double share = weight / static_cast<double>(columns * columns);
  double value = 0.0;
  // `part` becomes the factors of n_b in the part that is orthogonal to n_a.
  for (std::size_t a = 0; a < columns; ++a) {
    double along = 0.0;
    for (std::size_t b = 0; b < columns; ++b) {
      const double c = cosine[a * columns + b];
      const double off = c - (a == b ? 1.0 : 0.0);
      value += share * off * off;
      along += off * c;
      part[b * columns + a] = static_cast<T>(4.0 * share * off);
    }
    part[a * columns + a] -= static_cast<T>(4.0 * share * along);
  }
  for (std::size_t r = 0; r < rows; ++r) {
    const T* row = unit.data() + r * columns;
    std::fill(sum.begin(), sum.end(), T(0));
    add_rows(sum.data(), row, part.data(), columns, columns);
    for (std::size_t a = 0; a < columns; ++a) to[r * columns + a] += sum[a] * inverse[a];
  }
  sum_to.step.add(sum_to.statistic, value);
}

template <typename T>
void HostBackend<T>::guard(const Step& step, SharedVector& gradient, const SharedVector& parameters,
                           double factor) {
  if (static_cast<StepStatus>(step.read().status) != StepStatus::guard) return;
  check_sizes(gradient.size(), parameters.size());
  T* const g = host<T>(gradient).data();
  const T* const p = host<T>(parameters).data();
  for (std::size_t i = 0; i < gradient.size(); ++i) g[i] = static_cast<T>(factor) * p[i];
}

template <typename T>
void HostBackend<T>::optimizer_step(SharedVector& parameters, const SharedVector& gradient,
                                    SharedVector& m, SharedVector* v, const OptimizerStep& step) {
  double scale = 1.0;
  if (step.training_step) {
    const StepStatistics statistics = step.training_step->read();
    if (static_cast<StepStatus>(statistics.status) == StepStatus::stop) return;
    const double length = std::sqrt(statistics.clipped_squares);
    if (step.clip_norm > 0.0 && length > step.clip_norm) scale = step.clip_norm / length;
  }
  T* p = host<T>(parameters).data();
  const T* g = host<T>(gradient).data();
  T* first = host<T>(m).data();
  if (step.kind == OptimizerStep::Kind::adam && v == nullptr) {
    throw std::logic_error("adam without its second moment");
  }
  T* second = v != nullptr ? host<T>(*v).data() : nullptr;
  const auto n = static_cast<double>(step.step);
  const double correction1 = 1.0 - std::pow(step.beta1, n);
  const double correction2 = 1.0 - std::pow(step.beta2, n);
  const T factor = static_cast<T>(scale);
  const T clip = static_cast<T>(step.clip_value);
  const T rate = static_cast<T>(step.learning_rate);
  const T decay = static_cast<T>(step.weight_decay);
  const auto update = [&](std::size_t i) {
    T x = g[i];
    if (clip > T(0)) x = std::clamp(x, -clip, clip);
    x *= factor;
    x += decay * p[i];
    if (step.kind == OptimizerStep::Kind::sgd) {
      first[i] = static_cast<T>(step.momentum) * first[i] + x;
      p[i] -= rate * first[i];
    } else {
      const T b1 = static_cast<T>(step.beta1);
      const T b2 = static_cast<T>(step.beta2);
      first[i] = b1 * first[i] + (T(1) - b1) * x;
      second[i] = b2 * second[i] + (T(1) - b2) * x * x;
      const T m_hat = first[i] / static_cast<T>(correction1);
      const T v_hat = second[i] / static_cast<T>(correction2);
      p[i] -= rate * m_hat / (std::sqrt(v_hat) + static_cast<T>(step.epsilon));
    }
  };
  in_parts(this->pool(), parameters.size(), [&](std::size_t from, std::size_t to) {
    for (std::size_t i = from; i < to; ++i) update(i);
  });
}

template class HostVector<float>;
template class HostVector<double>;
template class HostReduction<float>;
template class HostReduction<double>;
template class HostBackend<float>;
template class HostBackend<double>;

}  // namespace kshot::backend
