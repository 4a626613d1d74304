// Perceptrons whose weights all tasks share, with a head beside them that is fitted to each task
// (closed-form heads). The rows of a wave's tasks stand one below the other and go through the
// network as one matrix; so do the gradients on the way back, whose products with the rows give the
// wave's sum of weight gradients at once. A task's own weight gradient is made when it is asked
// for.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "backend/cpu/cpu_wave.h"
#include "backend/cpu/shared_network.h"

namespace kshot::backend::cpu {

/// Blocks of weights have no memory of their own: such a block is either what was broadcast into
/// it, the weights of the network, or the gradient that output_pullback made. No other operation
/// takes one.
class FeatureWave final : public CpuWave {
 public:
  FeatureWave(const Kernels& kernels, std::shared_ptr<const Network> network, const Loss& loss,
              const WaveShape& shape);
  static bool serves(const Network& network, const WaveShape& shape);

  int capacity() const override { return kernels_.lanes; }

  void read(Block src, int task, float* to) const override;
  void write(Block dst, int task, const float* from) override;
  void read_support(int task, int row, float* x, float* target) const override;
  void put_targets(Set set, Block dst) override;

  void sum_tasks(std::span<const Block> blocks, Block loss, float* out, double* losses,
                 char* diverged) override;

 protected:
  Block make_block(std::size_t width) override;
  Block make_weights() override { return store(0, network_->size(), true); }
  void do_fill(Block dst, double value) override;
  void do_broadcast(Block dst, const SharedVector& src) override;
  void do_value(const Pass& pass, Block loss, Block outputs, NormStatistics statistics) override;
  void do_output_pullback(const Pass& pass, Block g_outputs, Block grad, bool accumulate) override;
  /// A head beside the network has the loss: these throw std::logic_error.
  void do_gradient(const Pass& pass, Block grad, bool accumulate, Block loss) override;
  void do_hessian_vector(const Pass& pass, Block direction, Block hv, bool accumulate,
                         Block grad) override;
  void do_load(const TaskBatch& batch, int first, int count, std::uint32_t global_first) override;
  std::size_t runs() const override {
    return in_lanes_ ? 1 : static_cast<std::size_t>(kernels_.lanes);
  }
  void pattern(const Scale& scale, std::size_t run, float* out) const override;
  void draw_weights(Block phi, Block eps, Block mu, Block sigma, const RandomKey& key) override;
  const float* shared_rates(const SharedVector& rates, bool& splat) override;
  void add_value(float* value, const float* sums) override;

 private:
  /// Which elements a Dropout drops: the same for equal ones.
  struct DropoutMask {
    double rate = 0.0;
    std::array<std::uint32_t, 2> key = {};
    std::array<std::uint32_t, 4> counter = {};
    bool operator==(const DropoutMask&) const = default;
  };
  /// The rows of the support or the query sets of the wave's tasks.
  struct Rows {
    Rows(Products& products, std::shared_ptr<const Network> shared, int most)
        : network(products, std::move(shared), most) {}
    SharedNetwork network;
    const float* x = nullptr;  ///< [rows, in_stride], task after task: the batch's own, or copies
    AlignedFloats copies;
    AlignedFloats dropped;      ///< the same under dropout, made when first asked for
    AlignedFloats g;            ///< gradient of the outputs, [rows, out_stride]
    std::vector<float> target;  ///< [rows, targets]
    std::vector<int> first;     ///< of each task, and the number of rows behind them
    bool forwarded = false;     ///< the network holds the values of these rows, ...
    DropoutMask mask;           ///< ... under this dropout
    bool pulled = false;        ///< the network holds gradients that are part of gradient_
  };
  Rows& rows_of(Set set) { return *rows_[set == Set::query]; }
  const Rows& rows_of(Set set) const { return *rows_[set == Set::query]; }

  void load_rows(const TaskBatch& batch, Set set);
  void forward(Rows& rows, const Pass& pass);
  const float* drop(Rows& rows, const Dropout& dropout);
  /// From the rows' layout, [rows, stride] task after task, to that of a block [most, width], and
  /// back. Rows beyond a task's own are zero in the block.
  void to_block(const Rows& rows, const float* from, std::size_t stride, std::size_t width,
                int most, Block dst);
  void from_block(const Rows& rows, Block src, std::size_t width, float* to,
                  std::size_t stride) const;
  /// Whether the wave is full and all its tasks have the same number of these rows.
  bool same_rows(const Rows& rows) const;
  /// Where element e of a task lies in a block: first + e * step.
  struct Strides {
    std::size_t first, step;
  };
  Strides strides(Block block, int task) const;
  void require_weights(Block block) const;
  void require_gradient(Block block) const;
  /// Makes every task's own gradient of what the networks hold of it: they are about to take other
  /// values.
  void keep_gradient();
  /// flat [D] += the weight gradient of tasks [first, last).
  void add_gradient(int first, int last, float* flat) const;
  /// Sums of the tasks that did not diverge.
  void sum_valid(std::span<const Block> blocks, const char* diverged, float* out) const;

  bool in_lanes_;  ///< blocks have the tasks side by side, else one after another
  Products products_;
  std::unique_ptr<Rows> rows_[2];  ///< support, query
  std::vector<float> values_;      ///< the network's weights, in flat order
  const SharedVector* values_of_ = nullptr;
  std::uint64_t values_version_ = 0;
  std::vector<int> value_blocks_;  ///< that stand for values_
  Block gradient_;                 ///< that stands for the gradient; none: there is none
  std::vector<float> kept_;        ///< a part of the gradient, [tasks, D], or nothing
};

}  // namespace kshot::backend::cpu
