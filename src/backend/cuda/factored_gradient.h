// The gradients of a wave's tasks by the matrices that all tasks share, kept as factors
// (kernels/factors.h). A task's own gradient is longer than its factors, and the reduction wants
// one sum for each run of 16 tasks: it multiplies the factors of a run once it is known which tasks
// diverged. A task's own gradient is there for whoever asks for it.
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
  /// A matrix [out, in] of the shared vector, and the rows of each of its terms.
  struct Matrix {
    int rows = 0, out = 0, in = 0;
    std::size_t weight = 0, row = 0;  ///< element (o, i) is the vector's weight + o * row + i
    std::optional<std::size_t> bias;  ///< [out]
  };
  /// A matrix whose rows are pairs of rows; it has at most one term.
  struct PairMatrix {
    int out = 0, in = 0;
    std::size_t weight = 0;
    std::optional<std::size_t> bias;
  };

  /// Of a vector of `width` elements, for up to `capacity` tasks. Elements that no matrix has are
  /// zero; they are the last ones, from `size` on.
  FactoredGradient(std::size_t width, std::size_t size, int capacity);

  std::size_t width() const { return width_; }
  /// Numbers the matrices from 0.
  std::size_t add_matrix(const Matrix& matrix);
  void add_matrix(const PairMatrix& matrix) { pair_matrix_ = matrix; }
  std::size_t matrices() const { return terms_.size(); }
  /// Takes the memory of so many copied terms.
  void reserve(std::size_t matrix, int copies);

  /// The gradient is zero: there are no terms.
  void clear(const Stream& stream);
  /// Where the next copied term but `ahead` of a matrix will have its g.
  T* place_of_g(std::size_t matrix, int ahead);
  /// += from. The factors are copied, but for a g that is in its place already.
  void add_copy(std::size_t matrix, const FactorPair<T>& from, int tasks, const Stream& stream);
  /// += from. The factors must stay as they are until the gradient is cleared. Whoever changes them
  /// before that calls `lose`.
  void add(std::size_t matrix, const FactorPair<T>& from, int tasks, const Stream& stream);
  void add(const Pairs<T>& pairs, const T* g_mean, const Stream& stream);
  /// Factors have changed, or are those of other tasks than the wave's. Where there are terms,
  /// reading the gradient throws std::logic_error until it is cleared.
  void lose() { lost_ = lost_ || has_terms_; }

  /// diverged[task] |= 1 where the gradient is not finite, or is so large that a sum of 16 might
  /// not be.
  void mark_diverged(std::int32_t* diverged, int tasks, const Stream& stream) const;
  /// sums[run * stride + i] = the sum over the run's tasks that did not diverge.
  void sum_runs(T* sums, std::size_t stride, const std::int32_t* diverged, int tasks,
                const Stream& stream) const;
  /// Calls see(first, count, g) for all tasks, some at a time: g [count, width] are the gradients
  /// of tasks first .. first + count, until the next call.
  void visit(int tasks, const Stream& stream,
             const std::function<void(int first, int count, const T* g)>& see) const;

 private:
  struct Terms {
    Matrix matrix;
    std::vector<FactorPair<T>> pairs;
    std::vector<DeviceMemory<T>> copies;  ///< of one term each: g, then x
    std::size_t copied = 0;               ///< of them in use
    FactorSize size(int tasks) const { return {tasks, matrix.rows, matrix.out, matrix.in}; }
    std::size_t g_size(int tasks) const;
    std::size_t x_size(int tasks) const;
  };
  void check_there() const;
  /// Puts the gradients of tasks first .. first + count into visited_.
  void multiply(int first, int count, const Stream& stream) const;

  std::size_t width_, size_;
  int capacity_, most_visited_;
  std::vector<Terms> terms_;
  std::optional<PairMatrix> pair_matrix_;
  std::optional<Pairs<T>> pairs_;
  const T* g_mean_ = nullptr;  ///< of pairs_
  bool has_terms_ = false, lost_ = false;
  DeviceMemory<std::int32_t> diverged_;  ///< [tasks], by the terms so far
  mutable DeviceMemory<T> visited_;      ///< [most_visited_, width_]
};

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
