// The algebra of vectors that all tasks share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "backend/shared_vector.h"
#include "backend/step.h"

namespace kshot::backend {

/// Operations run in the order of their calls. They are not always finished when a call returns.
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
  /// Adds the sum of the squares of the elements of v, in a fixed order and in double precision.
  /// Where clip > 0, elements are first limited to [-clip, clip].
  virtual void squared_norm(const SharedVector& v, double clip, Sum to) = 0;
  /// gather: dst[i] = src[index[i]] (rates per tensor become rates per weight). scatter_add is its
  /// transpose: dst[index[i]] += src[i]; dst is first set to zero unless `accumulate`.
  virtual void gather(SharedVector& dst, const SharedVector& src,
                      std::span<const std::uint32_t> index) = 0;
  virtual void scatter_add(SharedVector& dst, const SharedVector& src,
                           std::span<const std::uint32_t> index, bool accumulate = false) = 0;
  /// Gamma-Gaussian hyper-prior of ABML (Ravi & Beatson 2019, 3.3) on (mu, s = log sigma), with tau
  /// = exp(-2 s). Adds weight * [sum mu^2/2 - sum((a0 - 1) log tau - b0 tau)] to a statistic, and
  /// its gradient to (g_mu, g_s).
  virtual void hyper_prior(const SharedVector& mu, const SharedVector& s, double a0, double b0,
                           double weight, SharedVector& g_mu, SharedVector& g_s, Sum to) = 0;
  /// A range of a vector's elements.
  struct Segment {
    std::size_t offset = 0, size = 0;
  };
  /// Adds weight / 2 * the sum of squares of the elements in the segments to a statistic, and its
  /// gradient to g.
  virtual void l2_penalty(const SharedVector& v, std::span<const Segment> segments, double weight,
                          SharedVector& g, Sum to) = 0;
  /// Limits each element to [-value, value] where value > 0. Then scales each segment down so that
  /// its norm is at most `norm`.
  virtual void clip(SharedVector& v, double value, double norm,
                    std::span<const Segment> segments) = 0;
  /// Adds weight * mean over (a, b) of (cos(d_a, d_b) - [a = b])^2 to a statistic, and its gradient
  /// to g, where d_a are the columns of the matrix [rows, columns] at `offset` of v. The gradient
  /// is at the same offset of g.
  virtual void column_orthogonality(const SharedVector& v, std::size_t offset, std::size_t rows,
                                    std::size_t columns, double weight, SharedVector& g,
                                    Sum to) = 0;
  /// Sets gradient = factor * parameters if the status of the step is `guard`.
  virtual void guard(const Step& step, SharedVector& gradient, const SharedVector& parameters,
                     double factor) = 0;
  /// Makes one step of the optimizer in place. m and v are its state; sgd does not use v, which may
  /// then be null.
  virtual void optimizer_step(SharedVector& parameters, const SharedVector& gradient,
                              SharedVector& m, SharedVector* v, const OptimizerStep& step) = 0;
};

}  // namespace kshot::backend
