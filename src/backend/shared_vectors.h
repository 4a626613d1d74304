// The algebra of vectors that all tasks share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "backend/shared_vector.h"
#include "backend/step.h"

namespace kshot::backend {

/// Operations are done in the order of the calls, not always when they return.
class SharedVectors {
 public:
  virtual ~SharedVectors() = default;

  virtual Shared shared(std::size_t size) = 0;
  /// dst = src.
  virtual void assign(SharedVector& dst, const SharedVector& src) = 0;
  /// dst *= src, element by element.
  virtual void multiply(SharedVector& dst, const SharedVector& src) = 0;
  /// dst += a src.
  virtual void add(SharedVector& dst, double a, const SharedVector& src) = 0;
  /// dst = exp(src), element by element; dst may be src.
  virtual void exponential(SharedVector& dst, const SharedVector& src) = 0;
  /// Adds the sum of squares, in fixed order, in double precision; of elements first cut to +-clip
  /// where clip > 0.
  virtual void squared_norm(const SharedVector& v, double clip, Sum to) = 0;
  /// dst[i] = src[index[i]] (rates a tensor to rates a weight), and its transpose: dst[index[i]] +=
  /// src[i], after dst was set to zero unless `accumulate`.
  virtual void gather(SharedVector& dst, const SharedVector& src,
                      std::span<const std::uint32_t> index) = 0;
  virtual void scatter_add(SharedVector& dst, const SharedVector& src,
                           std::span<const std::uint32_t> index, bool accumulate = false) = 0;
  /// Gamma-Gaussian hyper-prior of ABML (Ravi & Beatson 2019, 3.3) on (mu, s = log sigma),
  /// tau = exp(-2 s): adds weight * [sum mu^2/2 - sum((a0 - 1) log tau - b0 tau)] to a statistic,
  /// and its gradient to (g_mu, g_s).
  virtual void hyper_prior(const SharedVector& mu, const SharedVector& s, double a0, double b0,
                           double weight, SharedVector& g_mu, SharedVector& g_s, Sum to) = 0;
  /// A run of a vector's elements.
  struct Segment {
    std::size_t offset = 0, size = 0;
  };
  /// Adds weight / 2 * the sum of squares of the segments' elements, and its gradient to g.
  virtual void l2_penalty(const SharedVector& v, std::span<const Segment> segments, double weight,
                          SharedVector& g, Sum to) = 0;
  /// Each element cut to +-value where value > 0; then each segment scaled down to a norm of at
  /// most `norm`.
  virtual void clip(SharedVector& v, double value, double norm,
                    std::span<const Segment> segments) = 0;
  /// With d_a the columns of the matrix [rows, columns] at `offset` of v: adds weight *
  /// mean over (a, b) of (cos(d_a, d_b) - [a = b])^2, and its gradient to g, at the same
  /// offset.
  virtual void column_orthogonality(const SharedVector& v, std::size_t offset, std::size_t rows,
                                    std::size_t columns, double weight, SharedVector& g,
                                    Sum to) = 0;
  /// gradient = factor * parameters, where the step's status is `guard`.
  virtual void guard(const Step& step, SharedVector& gradient, const SharedVector& parameters,
                     double factor) = 0;
  /// One step in place; m and v are the optimiser's state (v unused by sgd, may be null).
  virtual void optimizer_step(SharedVector& parameters, const SharedVector& gradient,
                              SharedVector& m, SharedVector* v, const OptimizerStep& step) = 0;
};

}  // namespace kshot::backend
