// Per-task vectors and their algebra. Each operation acts on all tasks of the wave, element by
// element.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <span>
#include <vector>

#include "backend/values.h"

namespace kshot::backend {

/// The public functions check widths, once for every backend, and then call the backend's do_...
/// function. A wrong width is a mistake in our own code: it throws std::logic_error, and nothing is
/// computed.
class TaskVectors {
 public:
  virtual ~TaskVectors() = default;

  /// Makes a per-task vector, which exists as long as the wave. Its contents are undefined.
  Block block(std::size_t width);
  /// Makes a vector with one number per network weight, [D]: weights, their gradients or noise. The
  /// backend stores its elements in its own order. Uploads, downloads, shared vectors and the
  /// reduction use the flat order of Network::parameters().
  Block weights();
  /// The width with which the block was made; D for weights.
  std::size_t width(Block block) const { return form(block).width; }

  // ---- algebra of per-task vectors ----
  // All arguments of an operation have the same width. Either all of them hold weights or none
  // does.
  void broadcast(Block dst, const SharedVector& src);                  // dst[b] = src
  void fill(Block dst, double value);                                  // dst = value
  void copy(Block dst, Block src);                                     // dst = src
  void axpy(Block y, double a, Block x);                               // y += a x
  void multiply_add(Block y, double a, Block x1, Block x2);            // y += a x1 * x2
  void exponential(Block dst, Block src);                              // dst = exp(src)
  void rate_multiply(Block dst, const Rate& rate, Block x);            // dst = rate * x
  void rate_step(Block dst, Block src, const Rate& rate, Block grad);  // dst = src - rate * grad
  /// dst ~ N(0, 1), drawn by key (its task is the task's global index). Not for blocks of weights.
  void normal(Block dst, const RandomKey& key);
  /// y[i mod n] += a x1[i] * x2[i], where the width n of y is a divisor of the width of x1 and x2.
  void multiply_fold(Block y, double a, Block x1, Block x2);
  /// value += weight * mean(d^2) and g_b -= 2 weight d / n, where d = a - b has n elements. `value`
  /// has width 1.
  void mean_square(Block value, double weight, Block a, Block b, Block g_b);

  // ---- scalars of a task (blocks of width 1), and operations of scalars on vectors ----
  /// dst[b] = the task's own number of rows in the set.
  void row_count(Block dst, Set set);
  /// dst[b] = f(src[b]), element by element. The blocks have the same width and do not hold
  /// weights. dst may be src.
  void apply(Block dst, Function f, Block src);
  /// y[b] *= scalar[b]. `scalar` has width 1.
  void scale_by(Block y, Block scalar);
  /// One step of Adam, for each task separately. `count`, of width 1, is the number of this step in
  /// the task's own count, which begins at 1. The other blocks have the same width.
  struct AdamBlocks {
    Block parameters, gradient;
    Block m, v;  ///< state of the optimizer
    Block count;
  };
  void adam_step(const AdamBlocks& blocks, const AdamRule& rule);

  /// dst[b] = the vector at host + t * stride, where t is the index of the task in the batch that
  /// the wave was loaded from.
  void upload(Block dst, const double* host, std::size_t stride);
  /// values[t * width + i] = element i of task t, t < count().
  void download(Block src, std::span<double> values) const;

  // ---- checks for functions that take blocks ----
  // They throw std::logic_error where a block does not fit. The message begins with `operation`.
  // Empty blocks in a list are skipped.
  void require_same(const char* operation, std::initializer_list<Block> blocks) const;
  void require_width(const char* operation, Block block, std::size_t width) const;
  void require_weights(const char* operation, std::initializer_list<Block> blocks) const;
  void require_no_weights(const char* operation, Block block) const;
  /// A vector of rates must have one rate per weight. For other blocks, the number of rates must be
  /// a divisor of the width.
  void require_rates(const char* operation, Block block, const Rate& rate) const;

 protected:
  virtual Block make_block(std::size_t width) = 0;
  virtual Block make_weights() = 0;
  /// Number of network weights.
  virtual std::size_t weight_count() const = 0;
  virtual int task_count() const = 0;

  virtual void do_broadcast(Block dst, const SharedVector& src) = 0;
  virtual void do_fill(Block dst, double value) = 0;
  virtual void do_copy(Block dst, Block src) = 0;
  virtual void do_axpy(Block y, double a, Block x) = 0;
  virtual void do_multiply_add(Block y, double a, Block x1, Block x2) = 0;
  virtual void do_exponential(Block dst, Block src) = 0;
  virtual void do_rate_multiply(Block dst, const Rate& rate, Block x) = 0;
  virtual void do_rate_step(Block dst, Block src, const Rate& rate, Block grad) = 0;
  virtual void do_normal(Block dst, const RandomKey& key) = 0;
  virtual void do_multiply_fold(Block y, double a, Block x1, Block x2) = 0;
  virtual void do_mean_square(Block value, double weight, Block a, Block b, Block g_b) = 0;
  virtual void do_row_count(Block dst, Set set) = 0;
  virtual void do_apply(Block dst, Function f, Block src) = 0;
  virtual void do_scale_by(Block y, Block scalar) = 0;
  virtual void do_adam_step(const AdamBlocks& blocks, const AdamRule& rule) = 0;
  virtual void do_upload(Block dst, const double* host, std::size_t stride) = 0;
  virtual void do_download(Block src, std::span<double> values) const = 0;

  /// Records a block that the backend made without block() or weights(), and returns it.
  Block note(Block block, std::size_t width, bool weights);

 private:
  struct Form {
    std::size_t width = 0;
    bool weights = false;
    bool made = false;
    bool operator==(const Form&) const = default;
  };
  const Form& form(Block block) const;

  std::vector<Form> forms_;  ///< by Block::id
};

}  // namespace kshot::backend
