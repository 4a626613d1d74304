// Softmax heads with generated weights: one linear layer without a bias on features. A wave holds a
// few tasks one after another. Weights are [class][feature], padded to a multiple of W, so that
// logits are dot products along features and gradients are sums of rows.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "backend/cpu/cpu_wave.h"
#include "backend/cpu/shared_network.h"

namespace kshot::backend::cpu {

/// A wave's gradient by what all tasks share, not yet multiplied out. Its sum over tasks costs one
/// pass over the result, where a gradient per task would cost several.
class SharedGradient {
 public:
  virtual ~SharedGradient() = default;
  virtual void clear() = 0;
  /// to [width] = the sum of these tasks' gradients (zero where there are none).
  virtual void sum(std::span<const int> tasks, float* to) = 0;
};

/// The wave of generated softmax heads. Each task is one run.
class HeadWave final : public CpuWave {
 public:
  HeadWave(const Kernels& kernels, std::shared_ptr<const Network> network, const Loss& loss,
           const WaveShape& shape);
  static bool supports(const Network& network, const Loss& loss, const WaveShape& shape);

  int capacity() const override { return tasks; }
  /// A block that represents `gradient`. A wave has at most one. The block takes fill with zero,
  /// multiply_fold, downloads and the reduction.
  Block shared_gradient(std::size_t width, SharedGradient& gradient);

  void read(Block src, int task, float* to) const override;
  void write(Block dst, int task, const float* from) override;
  void read_support(int task, int row, float* x, float* target) const override;
  void put_targets(Set set, Block dst) override;

  void sum_tasks(std::span<const Block> blocks, Block loss, float* out, double* losses,
                 char* diverged) override;
  std::unique_ptr<Generator> generator(const GeneratorSpec& spec) override;

  // ---- access for the wave's generator ----
  int classes() const { return network_outputs_; }
  int features() const { return features_; }
  /// Floats between consecutive rows of features and of weights.
  int stride() const { return stride_; }
  /// Floats between consecutive classes of a set's logits [class][row].
  int row_stride(Set set) const { return padded(rows(set)); }
  int padded(int floats) const { return products_.pad(floats); }
  int rows_of(Set set, int task) const { return task_rows(set, task); }
  const float* features_of(Set set, int task) const;
  const float* task_vector(Block block, int task) const {
    return at(block, static_cast<std::size_t>(task));
  }
  float* task_vector(Block block, int task) { return at(block, static_cast<std::size_t>(task)); }
  /// Multiplies x by the factors of a pass's dropout [rows, features], into `to` with stride().
  void drop(const Dropout& dropout, int task, int rows, const float* x, float* to);
  /// Computes from logits (with row_stride): the loss, added where `loss` is given, the gradient by
  /// the logits, and its tangent along z_dot where given. Pads of logits are cleared.
  void logits_loss(const Pass& pass, int task, float* z, float* z_dot, float* delta,
                   float* delta_dot, float* loss);
  Products& products() { return products_; }
  /// A number that changes with every load.
  std::uint64_t loads() const { return loads_; }

 protected:
  Block make_block(std::size_t width) override;
  Block make_weights() override;
  void do_fill(Block dst, double value) override;
  void do_multiply_fold(Block y, double a, Block x1, Block x2) override;
  void do_broadcast(Block dst, const SharedVector& src) override;
  void do_normal(Block dst, const RandomKey& key) override;
  void do_gradient(const Pass& pass, Block grad, bool accumulate, Block loss) override;
  void do_output_pullback(const Pass& pass, Block g_outputs, Block grad, bool accumulate) override;
  void do_hessian_vector(const Pass& pass, Block direction, Block hv, bool accumulate,
                         Block grad) override;
  void do_value(const Pass& pass, Block loss, Block outputs, NormStatistics statistics) override;
  void do_load(const TaskBatch& batch, int first, int count, std::uint32_t global_first) override;
  std::size_t runs() const override { return tasks; }
  void pattern(const Scale& scale, std::size_t run, float* out) const override;
  void draw_weights(Block phi, Block eps, Block mu, Block sigma, const RandomKey& key) override;
  const float* shared_rates(const SharedVector& rates, bool& splat) override;
  void add_value(float* value, const float* sums) override;

 private:
  /// Two tasks share the products' weights and halve the reduction. With more per wave, a dozen
  /// tasks would not keep two threads equally busy.
  static constexpr int tasks = 2;

  void copy_rows(const TaskBatch& batch);
  /// Copies rows of [class] vectors from flat order to rows with stride().
  void pad_rows(const float* flat, float* to) const;
  const float* pass_rows(const Pass& pass, int task);
  void logits(const float* w, int task, Set set, const float* x, float* z);
  /// Weight gradient [class][stride] (+)= delta^T x, with delta [class][row_stride] and x
  /// [rows][stride].
  void weight_gradient(const Pass& pass, int task, const float* delta, const float* x, Block to,
                       bool accumulate);

  int features_ = 0, stride_ = 0, rows_ = 0;
  Products products_;
  /// The support rows and the query rows, in the batch or in x_. Where there is Set::all, the query
  /// rows follow the support rows.
  const float* rows_of_set_[tasks][2] = {};
  AlignedFloats x_;          ///< [task][support, then query rows][stride], where rows are copied
  AlignedFloats target_[3];  ///< per set, [task][class][row_stride]
  AlignedFloats z_, z_dot_, delta_, delta_dot_, weight_, dropped_, rates_;
  std::vector<float> factors_;
  const SharedVector* rates_of_ = nullptr;
  std::uint64_t rates_version_ = 0, loads_ = 0;
  Block shared_gradient_;
  SharedGradient* source_ = nullptr;
};

}  // namespace kshot::backend::cpu
