// The common part of the cpu backend's waves: the storage of blocks, and the algebra of per-task
// vectors. The algebra is element-wise and works for every layout:
//
//   lanes     [element][W], W tasks side by side in the lanes of a vector. For small multi-layer
//             perceptrons, whose whole inner loop stays in the second-level cache (lane_wave.cpp).
//   single    One task, channels last, channels padded to a multiple of W (single_wave.cpp).
//   heads     A few tasks, one after another. For generated softmax heads (head_wave.cpp).
//   features  W tasks with the same network weights, the rows of all tasks as one matrix. For
//             perceptrons below closed-form heads (feature_wave.cpp).
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "backend/cpu/kernels.h"
#include "backend/dense_kernels.h"
#include "backend/host.h"

namespace kshot::backend::cpu {

/// Zero-initialised floats on a cache-line boundary. Small arrays lie side by side in huge pages
/// where the system has them, because a wave reads a dozen vectors in turn and a page of 4 KiB
/// holds only 64 weights of 16 lanes.
class AlignedFloats {
 public:
  AlignedFloats() = default;
  explicit AlignedFloats(std::size_t size);
  float* data() { return data_.get(); }
  const float* data() const { return data_.get(); }
  std::size_t size() const { return size_; }

 private:
  std::shared_ptr<float> data_;  ///< Shares the ownership of its pages.
  std::size_t size_ = 0;
};

/// Base of the waves of all layouts. A subclass owns the rows and the network passes.
class CpuWave : public HostWave<float> {
 public:
  CpuWave(const Kernels& kernels, std::shared_ptr<const Network> network, const Loss& loss,
          const WaveShape& shape);

  int rows(Set set) const override { return shape_.rows(set); }
  std::unique_ptr<Generator> generator(const GeneratorSpec& spec) override;
  std::unique_ptr<LinearAlgebra> linear_algebra() override;

  // ---- access for generators: vectors of one task, in flat order ----
  virtual void read(Block src, int task, float* to) const = 0;
  virtual void write(Block dst, int task, const float* from) = 0;
  /// The task's contiguous vector in a block. Null where the block's tasks lie side by side.
  float* task_run(Block block, int task);
  /// Reads one row of the support set and its target.
  virtual void read_support(int task, int row, float* x, float* target) const = 0;
  int support_rows(int task) const { return task_rows(Set::support, task); }
  const Kernels& kernels() const { return kernels_; }
  bool labelled() const { return loss_.kind == LossKind::cross_entropy; }
  int largest_support() const { return shape_.support; }

  // ---- access for the linear algebra ----
  /// Number of runs in a block.
  int run_count() const { return static_cast<int>(runs()); }
  /// Number of tasks whose elements lie side by side in a run.
  int run_tasks() const { return static_cast<int>(tasks_per_run()); }
  float* run_data(Block block, int run) { return at(block, static_cast<std::size_t>(run)); }
  /// Sizes of the tasks in a run.
  DenseCounts run_counts(int run) const;
  /// Writes the targets of a set (one-hot labels, or real numbers) to dst [rows(set), targets()].
  /// Rows beyond the task's own are zero.
  virtual void put_targets(Set set, Block dst) = 0;

 protected:
  void do_upload(Block dst, const double* source, std::size_t stride) override;
  void do_download(Block src, std::span<double> values) const override;
  void do_fill(Block dst, double value) override;
  void do_copy(Block dst, Block src) override;
  void do_axpy(Block y, double a, Block x) override;
  void do_multiply_add(Block y, double a, Block x1, Block x2) override;
  void do_multiply_fold(Block y, double a, Block x1, Block x2) override;
  void do_exponential(Block dst, Block src) override;
  void do_normal(Block dst, const RandomKey& key) override;
  void do_mean_square(Block value, double weight, Block a, Block b, Block g_b) override;
  void do_rate_multiply(Block dst, const Rate& rate, Block x) override;
  void do_rate_step(Block dst, Block src, const Rate& rate, Block grad) override;
  void do_row_count(Block dst, Set set) override;
  void do_apply(Block dst, Function f, Block src) override;
  void do_scale_by(Block y, Block scalar) override;
  void do_adam_step(const AdamBlocks& blocks, const AdamRule& rule) override;
  void do_sample(Block phi, Block eps, Block mu, Block sigma, const RandomKey* key) override;
  void do_sample_pullback(Block g_mu, Block g_s, double a, Block g, Block eps,
                          Block sigma) override;
  void do_sample_direction(Block u, Block v_mu, Block v_s, Block eps, Block sigma) override;
  void do_sample_with_direction(Block phi, Block u, Block mu, Block v_mu, Block v_s, Block eps,
                                Block sigma) override;
  void do_kl(const KlTerms& terms, Block value, Block g_mu, Block g_s, Block gp_mu,
             Block gp_s) override;
  void do_kl_hvp(const KlTerms& terms, Block v_mu, Block v_s, Block r_mu, Block r_s, Block rp_mu,
                 Block rp_s) override;

  enum class Layout {
    elements,  ///< Element by element, each element for all tasks.
    weights,   ///< The network's order of weights.
    tasks,     ///< Task after task.
  };
  /// The values of one block, and their layout.
  struct Storage {
    AlignedFloats values;
    std::size_t width = 0;  ///< the width that was asked for
    bool weights = false;   ///< true if the block has the layout of weights
    Layout layout = Layout::elements;
  };
  Block store(std::size_t floats, std::size_t width, bool weights);
  /// Blocks of at least this width are kept task after task. They are the blocks to which
  /// generators pull gradients back.
  static constexpr std::size_t wide = 8192;
  Block store_by_task(std::size_t width);
  float* at(Block block, std::size_t run = 0);
  const float* at(Block block, std::size_t run = 0) const;
  std::size_t block_vectors(Block block) const;
  std::size_t run_vectors(Block block) const { return block_vectors(block) / runs(); }
  const Storage& storage(Block block) const { return blocks_[static_cast<std::size_t>(block.id)]; }

  /// Number of classes or of target values. Without a head beside the network, it is the number of
  /// the network's outputs.
  int targets() const { return shape_.targets > 0 ? shape_.targets : network_outputs_; }
  /// Valid rows of a set for one task of the wave.
  int task_rows(Set set, int task) const;
  /// The per-task factor of a Scale.
  float factor(const Scale& scale, int task) const;
  /// Writes the factors of a run's tasks as a pattern of W floats.
  virtual void pattern(const Scale& scale, std::size_t run, float* out) const = 0;
  /// Draws eps and computes phi = mu + sigma eps.
  virtual void draw_weights(Block phi, Block eps, Block mu, Block sigma, const RandomKey& key) = 0;
  /// Shared rates in the layout of weights. `splat` becomes true if the result has one float per
  /// element, which the caller must copy to all lanes.
  virtual const float* shared_rates(const SharedVector& rates, bool& splat) = 0;
  /// Writes task scalars (a block of width 1, one run) as a pattern of W floats.
  void scalar_pattern(const float* scalar, float* out) const;
  /// Number of runs in a block. The runs have equal size and lie one after another.
  virtual std::size_t runs() const { return 1; }
  /// Number of tasks whose vectors lie side by side in a run: W in lanes, else 1.
  std::size_t tasks_per_run() const { return static_cast<std::size_t>(capacity()) / runs(); }
  std::size_t run_floats(Block block) const { return storage(block).values.size() / runs(); }
  /// Adds KL's per-lane sums [W] to a run of the value block.
  virtual void add_value(float* value, const float* sums) = 0;

  KlArgs kl_args(const KlTerms& terms, std::size_t run, const float* scale) const;
  static NoiseKey noise_key(const RandomKey& key, std::uint32_t task);
  bool all_finite(const float* x, std::size_t n) const;
  LossType loss_type() const;
  /// A squared loss is coefficient * sum (z - y)^2 + constant.
  float loss_coefficient() const;
  float loss_constant() const;

  const Kernels& kernels_;
  std::vector<int> support_n_, query_n_;  ///< rows of the loaded tasks
  int batch_first_ = 0;                   ///< index of the wave's first task in its batch

 private:
  /// dst = src - rate * grad for a block that is not of weights, or rate * grad where `src` is
  /// empty.
  void repeated_rate(Block dst, Block src, const Rate& rate, Block grad);

  std::vector<Storage> blocks_;
};

std::unique_ptr<Wave> make_lane_wave(const Kernels& kernels, std::shared_ptr<const Network> network,
                                     const Loss& loss, const WaveShape& shape);
std::unique_ptr<Wave> make_single_wave(const Kernels& kernels,
                                       std::shared_ptr<const Network> network, const Loss& loss,
                                       const WaveShape& shape);

}  // namespace kshot::backend::cpu
