// The gradients of a wave's tasks by the matrices that all tasks share, kept as factors
// (kernels/factors.h). One task's gradient is longer than its factors, and the reduction needs only
// one sum for each run of 16 tasks. It therefore multiplies the factors of a run once it is known
// which tasks diverged. A single task's gradient is computed only when it is asked for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "backend/cuda/memory.h"
#include "kernels/factors.h"
#include "kernels/relation.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

template <class T>
class FactoredGradient {
 public:
  /// A matrix [out, in] of the shared vector, and the number of rows of each of its terms.
  struct Matrix {
    int rows = 0, out = 0, in = 0;
    /// Element (o, i) is element weight + o * row + i of the vector.
    std::size_t weight = 0, row = 0;
    std::optional<std::size_t> bias;  ///< [out]
  };
  /// A matrix whose rows are pairs of rows. It has at most one term.
  struct PairMatrix {
    int out = 0, in = 0;
    std::size_t weight = 0;
    std::optional<std::size_t> bias;
  };

  /// The gradient of a vector of `width` elements, for up to `capacity` tasks. The elements from
  /// `size` on belong to no matrix and are zero.
  FactoredGradient(std::size_t width, std::size_t size, int capacity);

  std::size_t width() const { return width_; }
  /// Numbers the matrices from 0.
  std::size_t add_matrix(const Matrix& matrix);
  void add_matrix(const PairMatrix& matrix) { pair_matrix_ = matrix; }
  std::size_t matrices() const { return terms_.size(); }
  /// Allocates memory for `copies` copied terms of a matrix.
  void reserve(std::size_t matrix, int copies);

  /// Sets the gradient to zero: it has no terms.
  void clear(const Stream& stream);
  /// The memory for the g of a matrix's next copied term, or of the term `ahead` places after it.
  T* place_of_g(std::size_t matrix, int ahead);
  /// += from. The factors are copied, except a g that is already in its place.
  void add_copy(std::size_t matrix, const FactorPair<T>& from, int tasks, const Stream& stream);
  /// += from. The factors must not change until the gradient is cleared. A caller who changes them
  /// before that calls `invalidate`.
  void add(std::size_t matrix, const FactorPair<T>& from, int tasks, const Stream& stream);
  void add(const Pairs<T>& pairs, const T* g_mean, const Stream& stream);
  /// Says that factors have changed, or belong to other tasks than the wave's. If there are terms,
  /// reading the gradient throws std::logic_error until it is cleared.
  void invalidate() { invalid_ = invalid_ || has_terms_; }

  /// diverged[task] |= 1 where the gradient is not finite, or is so large that the sum over 16
  /// tasks might not be finite.
  void mark_diverged(std::int32_t* diverged, int tasks, const Stream& stream) const;
  /// sums[run * stride + i] = the sum over the run's tasks that did not diverge.
  void sum_runs(T* sums, std::size_t stride, const std::int32_t* diverged, int tasks,
                const Stream& stream) const;
  /// Calls see(first, count, g) for all tasks, some of them per call. g [count, width] has the
  /// gradients of tasks [first, first + count), and is valid until the next call.
  void visit(int tasks, const Stream& stream,
             const std::function<void(int first, int count, const T* g)>& see) const;

 private:
  /// The terms of one matrix so far.
  struct Terms {
    Matrix matrix;
    std::vector<FactorPair<T>> pairs;
    std::vector<DeviceMemory<T>> copies;  ///< one term each: g, then x
    std::size_t copied = 0;               ///< number of copies in use
    FactorSize size(int tasks) const { return {tasks, matrix.rows, matrix.out, matrix.in}; }
    std::size_t g_size(int tasks) const;
    std::size_t x_size(int tasks) const;
  };
  void check_valid() const;
  /// Writes the gradients of tasks [first, first + count) to visited_.
  void multiply(int first, int count, const Stream& stream) const;

  std::size_t width_, size_;
  int capacity_, most_visited_;
  std::vector<Terms> terms_;
  std::optional<PairMatrix> pair_matrix_;
  std::optional<Pairs<T>> pairs_;
  const T* g_mean_ = nullptr;  ///< gradient by the mean over partners, for pairs_
  bool has_terms_ = false, invalid_ = false;
  DeviceMemory<std::int32_t> diverged_;  ///< [tasks], for the terms so far
  mutable DeviceMemory<T> visited_;      ///< [most_visited_, width_]
};

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
