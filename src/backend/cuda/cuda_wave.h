// Tasks of one wave in device memory. A per-task vector is [tasks, width] in flat order. Features
// are [task, row, features], NCHW for images, together with each task's own number of rows. A wave
// has one stream. The results of its operations are complete when something is downloaded or
// reduced.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/cuda_rows.h"
#include "backend/cuda/cuda_vector.h"
#include "backend/cuda/factored_gradient.h"
#include "backend/cuda/graph.h"
#include "backend/cuda/layer_operations.h"
#include "backend/cuda/memory.h"
#include "backend/cuda/perceptron_path.h"
#include "backend/cuda/split_layers.h"
#include "kernels/elementwise.h"
#include "kernels/loss.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// Bytes of device memory for a wave of `tasks` tasks, with what the reduction keeps for it.
template <class T>
std::size_t wave_bytes(const Device& device, const backend::WaveDemand& demand, int tasks);

template <class T>
class CudaWave final : public backend::Wave, private backend::FusedDescent {
 public:
  using Block = backend::Block;
  using Set = backend::Set;

  /// `shared` is the stream of the shared vectors that the wave reads.
  CudaWave(const Device& device, SharedStreamPointer shared, std::shared_ptr<const Network> network,
           const backend::Loss& loss, const backend::WaveShape& shape, int capacity,
           Arithmetic arithmetic);

  int capacity() const override { return capacity_; }
  void draw(const backend::Episodes& episodes, const TaskId& id, int count) override;
  /// The first call runs the work directly; later calls run it as a graph.
  void capture(const std::function<void()>& work) override;
  /// Only for small perceptrons.
  backend::FusedDescent* fused_descent() override { return perceptron_.open() ? this : nullptr; }
  int rows(Set set) const override { return shape_.rows(set); }
  std::unique_ptr<backend::Generator> generator(const backend::GeneratorSpec& spec) override;
  std::unique_ptr<backend::LinearAlgebra> linear_algebra() override;

  /// Allocates all memory that is otherwise allocated at first use, so that it can be counted.
  void take_memory(const backend::WaveDemand& demand);

  // ---- access for the reduction, generators and linear algebra ----
  const Stream& stream() const { return stream_; }
  /// Makes the wave's stream wait for all work on shared vectors so far.
  void follow_shared() const { shared_->follow(stream_, followed_); }
  /// Returns a shared vector for reading on the wave's stream.
  const T* shared(const backend::SharedVector& v) const {
    follow_shared();
    return on_device<T>(v).data();
  }
  const T* data(Block block) const { return with_values(block).values.data(); }
  Extent extent(Block block) const { return {count_, static_cast<int>(storage(block).width)}; }
  /// For writing, or for reading where it does not matter whether tasks share the values. Clears
  /// the mark that they do.
  T* at(Block block) {
    with_values(block);
    storage(block).is_shared = false;
    return storage(block).values.data();
  }
  /// A block for a gradient that is kept as factors. It takes fill with zero, multiply_fold with
  /// itself, downloads and the reduction.
  Block factored_block(std::unique_ptr<FactoredGradient<T>> gradient);
  /// Null for other blocks.
  FactoredGradient<T>* find_factored(Block block) const { return storage(block).factored.get(); }
  FactoredGradient<T>& factored(Block block) const;
  /// Same as at(block). Throws std::logic_error where the block has another width.
  T* at(Block block, std::size_t width);
  /// Same as at(block, width), or null for an empty block.
  T* at_or_null(Block block, std::size_t width) { return block ? at(block, width) : nullptr; }
  /// The tasks' support rows; rows beyond a task's own are zero.
  struct SupportRows {
    RowExtent extent;
    int features = 0, targets = 0;         ///< sizes of one row
    const T* x = nullptr;                  ///< [tasks, rows, features]
    const T* values = nullptr;             ///< [tasks, rows, targets]; null with labels
    const std::int32_t* labels = nullptr;  ///< [tasks, rows]; null with values
  };
  SupportRows support_rows() const;
  /// Own support rows [tasks] and labels [tasks, rows of the batch], on the host.
  std::span<const std::int32_t> support_counts() const { return rows_.support_counts(); }
  std::span<const std::int32_t> support_labels() const { return rows_.support_labels(); }
  /// Targets of a set's rows: labels [tasks, rows], or values [tasks, rows, targets].
  struct TargetRows {
    RowExtent extent;
    const T* values = nullptr;             ///< null with labels
    const std::int32_t* labels = nullptr;  ///< null with values
  };
  TargetRows target_rows(Set set) const;
  /// Numbers of classes [tasks]. Null where every task has all classes.
  const std::int32_t* ways() const { return rows_.ways(); }
  TaskScale<T> task_scale(const backend::Scale& scale) const;
  int outputs_of_network() const { return network_outputs_; }
  /// Number of loads and draws so far.
  std::uint64_t loads() const { return rows_.loads(); }

 protected:
  void do_load(const TaskBatch& batch, int first, int count, std::uint32_t global_first) override;
  Block make_block(std::size_t width) override;
  Block make_weights() override { return make_block(network_->size()); }

  void do_broadcast(Block dst, const backend::SharedVector& src) override;
  void do_fill(Block dst, double value) override;
  void do_copy(Block dst, Block src) override;
  void do_axpy(Block y, double a, Block x) override;
  void do_multiply_add(Block y, double a, Block x1, Block x2) override;
  void do_multiply_fold(Block y, double a, Block x1, Block x2) override;
  void do_exponential(Block dst, Block src) override;
  void do_normal(Block dst, const RandomKey& key) override;
  void do_mean_square(Block value, double weight, Block a, Block b, Block g_b) override;
  void do_rate_multiply(Block dst, const backend::Rate& rate, Block x) override;
  void do_rate_step(Block dst, Block src, const backend::Rate& rate, Block grad) override;
  void do_row_count(Block dst, Set set) override;
  void do_apply(Block dst, backend::Function f, Block src) override;
  void do_scale_by(Block y, Block scalar) override;
  void do_adam_step(const AdamBlocks& blocks, const backend::AdamRule& rule) override;
  void do_upload(Block dst, const double* host, std::size_t stride) override;

  void do_sample(Block phi, Block eps, Block mu, Block sigma, const RandomKey* key) override;
  void do_sample_pullback(Block g_mu, Block g_s, double a, Block g, Block eps,
                          Block sigma) override;
  void do_sample_direction(Block u, Block v_mu, Block v_s, Block eps, Block sigma) override;
  void do_kl(const KlTerms& terms, Block value, Block g_mu, Block g_s, Block gp_mu,
             Block gp_s) override;
  void do_kl_hvp(const KlTerms& terms, Block v_mu, Block v_s, Block r_mu, Block r_s, Block rp_mu,
                 Block rp_s) override;

  void do_gradient(const Pass& pass, Block grad, bool accumulate, Block loss) override;
  void do_output_pullback(const Pass& pass, Block g_outputs, Block grad, bool accumulate) override;
  void do_hessian_vector(const Pass& pass, Block direction, Block hv, bool accumulate,
                         Block grad) override;
  void do_gradient_step(const Pass& pass, Block dst, Block src, const backend::Rate& rate,
                        Block scratch) override;
  void do_value(const Pass& pass, Block loss, Block outputs,
                backend::NormStatistics statistics) override;
  void do_split_gradient(const SplitPass& pass, Block g_mean, Block g_spread, bool accumulate,
                         Block loss) override;
  void do_split_hessian_vector(const SplitPass& pass, Block u_mean, Block u_spread, Block h_mean,
                               Block h_spread) override;
  void do_split_value(const SplitPass& pass, Block loss, Block outputs,
                      backend::NormStatistics statistics) override;
  void do_download(Block src, std::span<double> values) const override;

 private:
  bool run(const backend::Descent& descent) override;
  bool run(const backend::GaussianDescent& descent) override;

  /// One block: its values, or the factored gradient in their place.
  struct Storage {
    DeviceMemory<T> values;
    std::size_t width = 0;
    bool is_shared = false;  ///< all tasks have the same values: broadcast, not written since
    std::unique_ptr<FactoredGradient<T>> factored = {};  ///< replaces `values`
  };
  using SetRows = typename CudaRows<T>::SetRows;
  /// Values and their tangents.
  struct Dual {
    DeviceMemory<T> value, dot;
  };

  /// Called when the tasks change. Factors that were kept for the tasks before become invalid.
  void begin_tasks() {
    for (Storage& block : blocks_) {
      if (block.factored) block.factored->invalidate();
    }
  }
  Storage& storage(Block block) { return blocks_.at(static_cast<std::size_t>(block.id)); }
  const Storage& storage(Block block) const {
    return blocks_.at(static_cast<std::size_t>(block.id));
  }
  /// Throws std::logic_error for a block of factors.
  const Storage& with_values(Block block) const;
  std::size_t elements(Block block) const {
    return static_cast<std::size_t>(count_) * width(block);
  }

  /// Number of classes, or of values in a row's target.
  int targets() const { return shape_.targets > 0 ? shape_.targets : network_outputs_; }
  RateArgument<T> rate_argument(const backend::Rate& rate, Extent& extent) const;
  GaussianPair<T> gaussian_pair(const KlTerms& terms);

  /// Inputs of a forward pass.
  struct Run {
    const SetRows* rows = nullptr;
    const T* x = nullptr;          ///< the set's features, or a copy of them under dropout
    TaskTensor<const T> weights;   ///< [tasks, D]; stride 0 where tasks share them
    const T* direction = nullptr;  ///< same layout as `weights`, or null
    Tangent<const T> spread = {};  ///< split passes only; their means are `weights`
  };
  Run enter(const Pass& pass, const T* direction);
  /// A block of weights, for reading.
  TaskTensor<const T> weights_in(Block block) const;
  Run enter(const SplitPass& pass, Set set, Block u_mean, Block u_spread);
  LayerCall<T> call(const Run& pass, std::size_t layer);
  /// A parameter's part of vectors of weights. Null where the layer has no such parameter or the
  /// vectors are null.
  template <class U>
  TensorTangent<U> tensors(int parameter, Tangent<U> flat) const;
  /// Features that enter a layer. Those past the last layer are the outputs.
  Tangent<const T> input(const Run& pass, std::size_t layer) const;
  /// With `given`, norm layers use the statistics in given_.
  void forward(const Run& pass, bool given);
  /// Moves the norm layers' statistics of the last forward pass to given_.
  void give_statistics();
  Tangent<const T> outputs_of(const Run& pass) const {
    return input(pass, network_->layers().size());
  }
  LossTarget<T> target_of(const SetRows& rows) const;
  PerceptronRows<T> perceptron_rows(Set set, const backend::Scale& scale) const;
  /// Reads the rates of a descent. False where there are more than a kernel takes.
  template <class To>
  bool take_rates(std::span<const backend::Rate> rates, To& to) const;
  PerceptronNoise<T> perceptron_noise(const backend::GaussianDescent::Draws& draws,
                                      int steps) const;
  void loss_of(const Run& pass, const backend::Scale& scale, Block loss, Tangent<T> g);
  /// Writes the outputs of the set's rows, after the forward pass `run`, and their loss.
  void put_value(const Run& run, const backend::Scale& scale, Block loss, Block outputs);
  /// Backward pass from the gradient in g_[0]. Gradients are overwritten or accumulated.
  /// `by_spread` is used in split passes.
  void backward(const Run& pass, Tangent<T> gradient, Tangent<T> by_spread, Accumulate to);
  /// The work of a split pass at a layer, after the layer's own backward.
  void split_backward(const Run& pass, std::size_t layer, const LayerCall<T>& call, Tangent<T> g,
                      Tangent<T> g_in, Tangent<T> gradient, Tangent<T> by_spread, Accumulate to);
  /// Forward and backward pass, layer by layer. output_gradient(run) writes the gradient by the
  /// outputs of the forward pass to g_[0]. It must be zero in rows beyond a task's own.
  template <class OutputGradient>
  void layered_gradient(const Pass& pass, Block grad, bool accumulate,
                        const OutputGradient& output_gradient);
  /// Allocates the tangents of features and gradients at first use.
  void prepare_tangents();
  SplitLayers<T>& split_layers();
  /// Memory for features. Rows beyond a task's own may hold any values: no layer lets them affect a
  /// task's own rows, so that values of earlier tasks are harmless. Flat passes read these rows all
  /// the same, and therefore the memory starts as zero.
  DeviceMemory<T> features(std::size_t count) const;

  Device device_;
  SharedStreamPointer shared_;
  mutable SharedStream::Followed followed_;
  Stream stream_;
  int capacity_;
  Arithmetic arithmetic_;
  std::vector<Storage> blocks_;
  CudaRows<T> rows_;
  DeviceMemory<T> dropped_, row_loss_;
  std::vector<int> source_;     ///< layer i's input is the output of layer source_[i]; -1: rows
  std::vector<Dual> features_;  ///< output of each layer
  std::vector<Dual> kept_;
  std::vector<DeviceMemory<T>> given_;
  Dual g_[2];
  PerceptronPath<T> perceptron_;
  bool tangents_ = false;
  std::unique_ptr<SplitLayers<T>> split_;  ///< made at first use
  mutable std::vector<T> staging_;         ///< for uploads and downloads
  Graph graph_;
  /// The first call runs the work directly, because memory is allocated at first use. Later calls
  /// run it as a graph, until a graph cannot hold the work.
  enum class CaptureState {
    first_call,
    enabled,
    unsupported
  } capture_state_ = CaptureState::first_call;
};

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
