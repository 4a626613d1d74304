// Vectors that every task of a wave has for itself, and their algebra: element by element, all
// tasks at once.
#pragma once

#include <cstddef>
#include <span>

#include "backend/values.h"

namespace kshot::backend {

class TaskVectors {
 public:
  virtual ~TaskVectors() = default;

  /// A new per-task vector; lives as long as the wave. Contents are undefined.
  virtual Block block(std::size_t width) = 0;
  /// A new vector with one number per network weight, [D]: weights, their gradients or noise. The
  /// backend keeps it in an order of its own. Uploads, downloads, shared vectors and the reduction
  /// use the flat order of Network::parameters().
  virtual Block weights() = 0;

  // ---- algebra of per-task vectors; all arguments of one operation have the same width ----
  virtual void broadcast(Block dst, const SharedVector& src) = 0;        // dst[b] = src
  virtual void fill(Block dst, double value) = 0;                        // dst = value
  virtual void copy(Block dst, Block src) = 0;                           // dst = src
  virtual void axpy(Block y, double a, Block x) = 0;                     // y += a x
  virtual void multiply_add(Block y, double a, Block x1, Block x2) = 0;  // y += a x1 * x2
  virtual void multiply_fold(Block y, double a, Block x1,
                             Block x2) = 0;  // y[i mod n] += a x1[i] * x2[i], y of width n
  virtual void exponential(Block dst, Block src) = 0;      // dst = exp(src)
  virtual void normal(Block dst, const Noise& noise) = 0;  // dst ~ N(0, 1); not for weights
  /// With d = a - b over n elements: value += weight * mean(d^2), g_b -= 2 weight d / n.
  virtual void mean_square(Block value, double weight, Block a, Block b, Block g_b) = 0;
  virtual void rate_multiply(Block dst, const Rate& rate, Block x) = 0;  // dst = rate * x
  virtual void rate_step(Block dst, Block src, const Rate& rate,
                         Block grad) = 0;  // src - rate*grad
  // ---- scalars of a task: blocks of width 1, and what they do to vectors ----
  /// dst[b] = the task's own number of rows of the set.
  virtual void row_count(Block dst, Set set) = 0;
  /// dst[b] = f(src[b]), for blocks of one width made by block(); dst may be src.
  virtual void apply(Block dst, Function f, Block src) = 0;
  /// y[b] *= scalar[b], a block of width 1.
  virtual void scale_by(Block y, Block scalar) = 0;
  /// A step of Adam for every task by itself: `count`, of width 1, is the number of this step in
  /// the task's own counting, from 1. Vectors have one width.
  struct AdamBlocks {
    Block parameters, gradient;
    Block m, v;  ///< the optimiser's state
    Block count;
  };
  virtual void adam_step(const AdamBlocks& blocks, const AdamRule& rule) = 0;

  /// Task t's vector from host + t * stride of the batch the wave was loaded from.
  virtual void upload(Block dst, const double* host, std::size_t stride) = 0;

  /// values[t * width + i], t < count().
  virtual void download(Block src, std::span<double> values) const = 0;
};

}  // namespace kshot::backend
