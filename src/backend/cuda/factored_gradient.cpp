#include "backend/cuda/factored_gradient.h"

#include <algorithm>
#include <stdexcept>

#include "backend/values.h"
#include "kernels/product.h"
#include "kernels/reduction.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

using backend::count_of;

/// Number of tasks whose own gradients are computed together, where a caller asks for them.
constexpr int tasks_per_visit = 64;

}  // namespace

template <class T>
FactoredGradient<T>::FactoredGradient(std::size_t width, std::size_t size, int capacity)
    : width_(width),
      size_(size),
      capacity_(capacity),
      most_visited_(std::min(capacity, tasks_per_visit)),
      diverged_(count_of(capacity)),
      visited_(count_of(most_visited_) * width) {}

template <class T>
std::size_t FactoredGradient<T>::Terms::g_size(int tasks) const {
  return count_of(tasks) * count_of(matrix.rows) * count_of(matrix.out);
}
template <class T>
std::size_t FactoredGradient<T>::Terms::x_size(int tasks) const {
  return count_of(tasks) * count_of(matrix.rows) * count_of(matrix.in);
}

template <class T>
std::size_t FactoredGradient<T>::add_matrix(const Matrix& matrix) {
  terms_.emplace_back().matrix = matrix;
  return terms_.size() - 1;
}

template <class T>
void FactoredGradient<T>::reserve(std::size_t matrix, int copies) {
  Terms& t = terms_.at(matrix);
  while (t.copies.size() < count_of(copies)) {
    t.copies.emplace_back(t.g_size(capacity_) + t.x_size(capacity_));
  }
}

template <class T>
void FactoredGradient<T>::clear(const Stream& stream) {
  for (Terms& t : terms_) {
    t.pairs.clear();
    t.copied = 0;
  }
  pairs_.reset();
  has_terms_ = invalid_ = false;
  stream.clear(diverged_.data(), diverged_.size());
}

template <class T>
T* FactoredGradient<T>::place_of_g(std::size_t matrix, int ahead) {
  Terms& t = terms_.at(matrix);
  const std::size_t term = t.copied + count_of(ahead);
  reserve(matrix, static_cast<int>(term) + 1);
  return t.copies[term].data();
}

template <class T>
void FactoredGradient<T>::add_copy(std::size_t matrix, const FactorPair<T>& from, int tasks,
                                   const Stream& stream) {
  T* const g = place_of_g(matrix, 0);
  Terms& t = terms_.at(matrix);
  ++t.copied;
  T* const x = g + t.g_size(capacity_);
  keep_factors(diverged_.data(), from.g == g ? nullptr : g, x, from, t.size(tasks), stream.get());
  t.pairs.push_back({g, x, from.scale, from.to_bias});
  has_terms_ = true;
}

template <class T>
void FactoredGradient<T>::add(std::size_t matrix, const FactorPair<T>& from, int tasks,
                              const Stream& stream) {
  Terms& t = terms_.at(matrix);
  keep_factors<T>(diverged_.data(), nullptr, nullptr, from, t.size(tasks), stream.get());
  t.pairs.push_back(from);
  has_terms_ = true;
}

template <class T>
void FactoredGradient<T>::add(const Pairs<T>& pairs, const T* g_mean, const Stream& stream) {
  if (!pair_matrix_ || pairs_) throw std::logic_error("a gradient with one term of pairs at most");
  pairs_ = pairs;
  g_mean_ = g_mean;
  has_terms_ = true;
  // A pair's x is at most |left| + |right|, and each of n^2 pairs has g / n.
  for (const T* x : {pairs.left, pairs.right}) {
    keep_factors<T>(diverged_.data(), nullptr, nullptr, {g_mean, x},
                    {pairs.rows.tasks, pairs.rows.rows, pairs.outputs, pairs.inputs}, stream.get());
  }
}

template <class T>
void FactoredGradient<T>::check_valid() const {
  if (invalid_) throw std::logic_error("a gradient is read after its factors have changed");
}

template <class T>
void FactoredGradient<T>::mark_diverged(std::int32_t* diverged, int tasks,
                                        const Stream& stream) const {
  merge_diverged(diverged, diverged_.data(), tasks, stream.get());
}

template <class T>
void FactoredGradient<T>::sum_runs(T* sums, std::size_t stride, const std::int32_t* diverged,
                                   int tasks, const Stream& stream) const {
  check_valid();
  const int runs = (tasks + run_tasks - 1) / run_tasks;
  for (const Terms& t : terms_) {
    FactorSums<T> p;
    p.size = t.size(tasks);
    p.diverged = diverged;
    p.sums = sums + t.matrix.weight;
    p.bias_sums = t.matrix.bias ? sums + *t.matrix.bias : nullptr;
    p.stride = stride;
    p.row = t.matrix.row;
    std::size_t first = 0;
    do {
      p.count = static_cast<int>(std::min(t.pairs.size() - first, count_of(most_factor_pairs)));
      std::copy_n(t.pairs.begin() + static_cast<std::ptrdiff_t>(first), p.count, p.pairs);
      sum_factors(p, stream.get());
      p.accumulate = true;
      first += count_of(p.count);
    } while (first < t.pairs.size());
  }
  if (pair_matrix_) {
    const PairMatrix& m = *pair_matrix_;
    T* const bias = m.bias ? sums + *m.bias : nullptr;
    if (pairs_) {
      pairs_run_gradient<T>({sums + m.weight, stride}, {bias, stride}, g_mean_, *pairs_, diverged,
                            stream.get());
    } else {
      const std::size_t size = count_of(m.out) * count_of(m.in);
      clear_columns(sums, stride, runs, m.weight, m.weight + size, stream.get());
      if (bias) clear_columns(sums, stride, runs, *m.bias, *m.bias + count_of(m.out), stream.get());
    }
  }
  clear_columns(sums, stride, runs, size_, width_, stream.get());
}

template <class T>
void FactoredGradient<T>::multiply(int first, int count, const Stream& stream) const {
  T* const to = visited_.data();
  stream.clear(to, count_of(count) * width_);
  for (const Terms& t : terms_) {
    const std::size_t of_g = t.g_size(1), of_x = t.x_size(1);
    for (const FactorPair<T>& pair : t.pairs) {
      Product<T> p;
      p.m = t.matrix.out;
      p.n = t.matrix.in;
      p.k = t.matrix.rows;
      p.batch = count;
      p.first = {{pair.g + count_of(first) * of_g, 1, count_of(t.matrix.out), of_g},
                 {pair.x + count_of(first) * of_x, count_of(t.matrix.in), 1, of_x}};
      p.c = to + t.matrix.weight;
      p.c_row = t.matrix.row;
      p.c_batch = width_;
      p.row_sums = t.matrix.bias && pair.to_bias ? to + *t.matrix.bias : nullptr;
      p.alpha = pair.scale;
      p.accumulate = true;
      multiply_matrices(p, stream.get());
    }
  }
  if (!pairs_) return;
  Pairs<T> some = *pairs_;
  const std::size_t rows = count_of(first) * count_of(some.rows.rows);
  some.left += rows * count_of(some.inputs);
  some.right += rows * count_of(some.inputs);
  some.open += rows * count_of(some.rows.rows) * count_of(open_words(some.outputs));
  if (some.rows.counts) some.rows.counts += first;
  some.rows.tasks = count;
  const PairMatrix& m = *pair_matrix_;
  pairs_weight_gradient<T>({to + m.weight, width_}, {m.bias ? to + *m.bias : nullptr, width_},
                           g_mean_ + rows * count_of(some.outputs), some, stream.get());
}

template <class T>
void FactoredGradient<T>::visit(
    int tasks, const Stream& stream,
    const std::function<void(int first, int count, const T* g)>& see) const {
  check_valid();
  for (int first = 0; first < tasks; first += most_visited_) {
    const int count = std::min(most_visited_, tasks - first);
    multiply(first, count, stream);
    see(first, count, visited_.data());
  }
}

template class FactoredGradient<float>;
template class FactoredGradient<double>;

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
