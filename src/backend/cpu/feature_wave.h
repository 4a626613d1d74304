// Perceptrons whose weights all tasks share, below a head that is fitted to each task (closed-form
// heads). The rows of all tasks of a wave are stacked and go through the network as one matrix. The
// gradients go back in the same way: their products with the rows give the wave's sum of weight
// gradients directly. A single task's weight gradient is computed only when it is asked for.
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

/// Blocks of weights have no memory of their own. Such a block is either the network's weights, as
/// broadcast into it, or the gradient that output_pullback made. No other operation takes one.
class FeatureWave final : public CpuWave {
 public:
  FeatureWave(const Kernels& kernels, std::shared_ptr<const Network> network, const Loss& loss,
              const WaveShape& shape);
  static bool supports(const Network& network, const WaveShape& shape);

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
  /// The head beside the network has the loss, so these throw std::logic_error.
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
  /// Identifies the elements that a Dropout drops: equal masks drop the same elements.
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
    /// [rows, in_stride], task after task, in the batch itself or in `copies`.
    const float* x = nullptr;
    AlignedFloats copies;
    AlignedFloats dropped;      ///< x under dropout, made at first use
    AlignedFloats g;            ///< gradient by the outputs, [rows, out_stride]
    std::vector<float> target;  ///< [rows, targets]
    std::vector<int> first;     ///< index of each task's first row, then the number of all rows
    bool forwarded = false;     ///< the network holds the values of these rows under `mask`
    DropoutMask mask;           ///< dropout of the last forward pass
    bool pulled = false;        ///< the network holds gradients that are part of gradient_
  };
  Rows& rows_of(Set set) { return *rows_[set == Set::query]; }
  const Rows& rows_of(Set set) const { return *rows_[set == Set::query]; }

  void load_rows(const TaskBatch& batch, Set set);
  void forward(Rows& rows, const Pass& pass);
  const float* drop(Rows& rows, const Dropout& dropout);
  /// Copies from the rows' layout, [rows, stride] task after task, to that of a block [most,
  /// width]. from_block is the inverse. Rows beyond a task's own are zero in the block.
  void to_block(const Rows& rows, const float* from, std::size_t stride, std::size_t width,
                int most, Block dst);
  void from_block(const Rows& rows, Block src, std::size_t width, float* to,
                  std::size_t stride) const;
  /// True if the wave is full and all its tasks have the same number of these rows.
  bool same_rows(const Rows& rows) const;
  /// Position of a task's element e in a block: first + e * step.
  struct Strides {
    std::size_t first, step;
  };
  Strides strides(Block block, int task) const;
  void require_weights(Block block) const;
  void require_gradient(Block block) const;
  /// Computes every task's own gradient from the values that the networks hold, and stores it in
  /// kept_. Called before the networks take other values.
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
  std::vector<int> value_blocks_;  ///< the blocks whose value is values_
  Block gradient_;                 ///< the block whose value is the gradient, if any
  /// The part of the gradient that is multiplied out, [tasks, D], or empty.
  std::vector<float> kept_;
};

}  // namespace kshot::backend::cpu
