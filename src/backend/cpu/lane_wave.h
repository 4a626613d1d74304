// Plain multi-layer perceptrons, W tasks in the lanes of a vector. Every number is a vector of W
// floats. A transpose is therefore a change of strides, and tasks of different size are a mask in
// the loss. The forward pass, the backward pass and their tangents all run on one small matrix
// product (lane_gemm).
//
// Activations are [feature][row][W]. Weights are [out][in][W], in the flat order.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <vector>

#include "backend/cpu/cpu_wave.h"
#include "backend/cpu/lane_split.h"

namespace kshot::backend::cpu {

/// The rows of one pass: those of a Set, or `joint`, which is all rows of the support set (padding
/// included) followed by those of the query set. Where no layer mixes rows, one pass over both sets
/// does the work of two passes and reads the weights only once.
enum class PassRows { support, query, all, joint };
inline PassRows pass_rows(Set set) {
  return set == Set::support ? PassRows::support
         : set == Set::query ? PassRows::query
                             : PassRows::all;
}

/// The wave of small perceptrons.
class LaneWave final : public CpuWave {
 public:
  /// Runs the estimator `weight` in fused passes. The other estimators use the composed operations.
  class Sampled final : public GaussianPasses {
   public:
    explicit Sampled(LaneWave& wave) : GaussianPasses(wave), lanes_(wave) {}
    void gradient(const GaussianPass& pass, double a, Block g_mu, Block g_s, Block loss) override {
      if (pass.estimator != Estimator::weight) {
        return GaussianPasses::gradient(pass, a, g_mu, g_s, loss);
      }
      lanes_.sampled_gradient(pass, a, g_mu, g_s, loss);
    }
    void hessian_vector(const GaussianPass& pass, double a, Block v_mu, Block v_s, Block r_mu,
                        Block r_s) override {
      if (pass.estimator != Estimator::weight) {
        return GaussianPasses::hessian_vector(pass, a, v_mu, v_s, r_mu, r_s);
      }
      lanes_.sampled_hessian_vector(pass, a, v_mu, v_s, r_mu, r_s);
    }

   private:
    LaneWave& lanes_;
  };

  LaneWave(const Kernels& kernels, std::shared_ptr<const Network> network, const Loss& loss,
           const WaveShape& shape);

  int capacity() const override { return lanes_; }
  void read(Block src, int task, float* to) const override;
  void write(Block dst, int task, const float* from) override;
  void read_support(int task, int row, float* x, float* target) const override;

  void put_targets(Set set, Block dst) override {
    put_rows(set, targets(), data_[static_cast<int>(set)].target.data(), dst);
  }

  // The estimator `weight` keeps sigma eps of a draw rather than eps, because its sample, its
  // direction and its pull-back need nothing else. The pull-back is fused into the product that
  // computes the weight gradient.
  void sampled_gradient(const GaussianPass& pass, double a, Block g_mu, Block g_s, Block loss);

  void sampled_hessian_vector(const GaussianPass& pass, double a, Block v_mu, Block v_s, Block r_mu,
                              Block r_s);

  void sum_tasks(std::span<const Block> blocks, Block loss, float* out, double* losses,
                 char* diverged) override;

 protected:
  Block make_block(std::size_t width) override;
  Block make_weights() override {
    return store(network_->size() * static_cast<std::size_t>(lanes_), network_->size(), true);
  }

  void do_broadcast(Block dst, const SharedVector& src) override {
    kernels_.broadcast(at(dst), host<float>(src).data(), src.size());
  }
  void do_gradient(const Pass& pass, Block grad, bool accumulate, Block loss) override;
  void do_output_pullback(const Pass& pass, Block g_outputs, Block grad, bool accumulate) override;

  void do_gradient_step(const Pass& pass, Block dst, Block src, const Rate& rate,
                        Block scratch) override;

  void do_hessian_step(const Pass& pass, Block dst, Block v, const Rate& rate, Block grad,
                       Block scratch) override;

  void do_hessian_vector(const Pass& pass, Block direction, Block hv, bool accumulate,
                         Block grad) override {
    tangent_pass(pass, at(direction), {at(grad), nullptr, 1.0f},
                 {at(hv), accumulate ? at(hv) : nullptr, 1.0f});
  }

  void do_value(const Pass& pass, Block loss, Block outputs,
                NormStatistics /*statistics*/) override;

  void do_split_gradient(const SplitPass& pass, Block g_mean, Block g_spread, bool accumulate,
                         Block loss) override;
  void do_split_hessian_vector(const SplitPass& pass, Block u_mean, Block u_spread, Block h_mean,
                               Block h_spread) override;
  void do_split_value(const SplitPass& pass, Block loss, Block outputs,
                      NormStatistics /*statistics*/) override;

  std::unique_ptr<GaussianPasses> make_gaussian_passes() override {
    return std::make_unique<Sampled>(*this);
  }
  void do_load(const TaskBatch& batch, int first, int count, std::uint32_t global_first) override;
  void pattern(const Scale& scale, std::size_t /*run*/, float* out) const override {
    for (int lane = 0; lane < lanes_; ++lane) out[lane] = factor(scale, lane);
  }
  void draw_weights(Block phi, Block eps, Block mu, Block sigma, const RandomKey& key) override {
    kernels_.noise_lanes(noise_key(key, global_first_), at(eps), nullptr, at(phi), at(mu),
                         at(sigma), storage(eps).width);
  }
  const float* shared_rates(const SharedVector& rates, bool& splat) override {
    splat = true;
    return host<float>(rates).data();
  }
  void add_value(float* value, const float* sums) override {
    for (int lane = 0; lane < lanes_; ++lane) value[lane] += sums[lane];
  }

 private:
  /// Largest size of the activations of the last inner steps that a wave keeps for the adjoint. Up
  /// to about this size, next to the iterates in the cache, reading them back costs less than
  /// computing them again.
  static constexpr std::size_t kept_activation_bytes = std::size_t{768} << 10;
  static constexpr int most_slots = 16;
  static constexpr int places = 4 + most_slots;

  /// One layer, or a linear layer together with its activation.
  struct Step {
    bool is_activation = false;
    Activation activation = Activation::relu;
    /// True for a linear layer that also applies the piecewise linear activation after it.
    bool gated = false;
    float slope = 0.0f;  ///< slope of that activation where its argument is negative
    int in = 0, out = 0;
    std::size_t weight = 0, bias = 0;
    bool has_bias = false;
    // The values of the last pass on each set. delta is the derivative of the loss by y.
    AlignedFloats y[places], delta[places];
    AlignedFloats y_dot;
  };
  /// Rows of one set.
  struct Data {
    AlignedFloats x;       ///< [inputs][rows][W]
    AlignedFloats target;  ///< [outputs][rows][W]
    AlignedFloats valid;   ///< [rows][W], 1 or 0
  };

  /// Position of a task's element e: first + e * step.
  struct Strides {
    std::size_t first, step;
  };
  Strides strides(Block block, int task) const;

  /// The tree sum of lane_tree_sum over runs. Tasks that are not kept count as zero.
  void sum_runs(Block block, const float* keep, float* out);

  std::size_t size(int features, int n) const {
    return static_cast<std::size_t>(features) * static_cast<std::size_t>(n) *
           static_cast<std::size_t>(lanes_);
  }
  /// Index in the batch of a lane's task. Lanes beyond the last task repeat it.
  std::size_t task_of(int lane) const {
    return static_cast<std::size_t>(batch_first_ + std::min(lane, count_ - 1));
  }

  /// True where layer i is a piecewise linear activation between two linear layers. The products
  /// before and after it then apply it and its derivative to what they write.
  bool gates(std::size_t i) const;

  /// Number of rows in a pass's buffers: the largest over tasks.
  int rows_in(PassRows set) const;

  /// Allocates the buffers of a set's rows, without tangents.
  void allocate_rows(PassRows set);

  /// The buffers of a pass's activations: a set's own, or one of those kept for the adjoint.
  struct Place {
    PassRows rows;
    int store;
  };
  static Place own_place(PassRows rows) { return {rows, static_cast<int>(rows)}; }
  Place place_of(const Pass& pass);
  void keep(const Place& place, int number) { kept_[place.store] = place.store < 4 ? -1 : number; }

  /// Forward pass of a gradient. The values go to the place where the pass keeps its activations.
  Place values_of(const Pass& pass);

  /// Copies the support and the query set to data_[joint], once per load.
  void join_sets();

  static void clear(Data& data);

  /// Loads rows of the support or the query set. With `offset` 1 they follow the task's support
  /// rows.
  void load_rows(const TaskBatch& batch, bool support, int batch_rows, Data& data, int offset);

  /// Destination of a gradient P: out = P, or base + scale * P where `base` is given. Without `out`
  /// it is not written. With `shift` (`base` is then `out`), out_s += scale * P * shift as well.
  struct Target {
    float* out = nullptr;
    const float* base = nullptr;
    float scale = 1.0f;
    float* out_s = nullptr;
    const float* shift = nullptr;
  };

  /// Writes sampled weights to phi_ and, where v_mu is given, the direction of (v_mu, v_s) to u_.
  /// Returns sigma eps, which is drawn now or was kept by an earlier pass.
  const float* draw_shift(const GaussianPass& pass, Block v_mu, Block v_s);

  /// Forward and backward pass with tangents: the gradient to `grad`, its derivative along w_dot to
  /// `hv`.
  void tangent_pass(const Pass& pass, const float* w_dot, const Target& grad, const Target& hv);

  /// Sets input_ to the rows that a pass reads: the set's own, or a copy of them under dropout.
  void take_input(const Pass& pass);

  /// Computes values where `fresh` is true (else those of the last pass are used) and, with w_dot,
  /// their tangents.
  void forward(const Place& place, const float* w, const float* w_dot, bool fresh);

  /// Calls visit(lane, element of [columns][rows][W], index in [rows, columns], valid) for every
  /// element of a set. `valid` is false in rows beyond the task's own.
  template <typename F>
  void visit_rows(Set set, int columns, const F& visit) const {
    const int n = rows(set);
    for (int r = 0; r < n; ++r) {
      for (int o = 0; o < columns; ++o) {
        for (int lane = 0; lane < lanes_; ++lane) {
          visit(lane,
                static_cast<std::size_t>(o * n + r) * static_cast<std::size_t>(lanes_) +
                    static_cast<std::size_t>(lane),
                static_cast<std::size_t>(r * columns + o), r < task_rows(set, lane));
        }
      }
    }
  }
  /// Copies outputs [outputs][rows][W] to a block [rows, outputs]. Rows beyond the task's own are
  /// zero.
  void put_outputs(Set set, const float* z, Block to) { put_rows(set, network_outputs_, z, to); }
  void put_rows(Set set, int columns, const float* z, Block to);
  /// The inverse of put_outputs, for the gradient of a loss by the outputs.
  void take_outputs(Set set, Block from, float* delta) const;

  /// The rows of a split pass. Also draws or takes their noise.
  LaneSplit::Rows split_rows(const SplitPass& pass);

  /// Targets and weights of a set's rows.
  LaneLoss loss_args(PassRows set, const Scale& factors);

  /// Computes the losses of the last forward pass, delta at the output, and the tangent of delta in
  /// delta_dot_[0].
  void loss_and_delta(const Place& place, const Scale& factors, float* loss, bool delta,
                      bool tangent);

  /// Backward pass from delta at the output: the gradient to `grad`, and with w_dot its tangent to
  /// `hv`. Without `fresh`, the deltas of the last pass at this place are used.
  void backward(const Place& place, const float* w, const float* w_dot, bool fresh,
                const Target& grad, const Target& hv);
  void activation_backward(const Place& place, std::size_t i, bool fresh, float* delta_dot);
  /// A layer's part of a gradient: dW[out][in] = sum over rows of delta[out][row] x[in][row]. `g`
  /// has the operands.
  void weight_gradient(const Step& step, LaneGemm g, const Target& target);
  /// dx[in][row] = sum over out of W[out][in] delta[out][row], and its tangent, which is computed
  /// from delta_dot and written to delta_dot_in.
  void input_gradient(const Place& place, std::size_t i, const float* w, const float* w_dot,
                      bool fresh, const float* delta_dot, float* delta_dot_in);

  int lanes_;
  std::vector<Step> steps_;
  Data data_[4];
  int slots_ = 0;
  int kept_[places] = {};  ///< the activation number that a place holds, or -1
  bool joined_ = false;    ///< data_[joint] holds the loaded tasks
  AlignedFloats weight_;
  AlignedFloats delta_dot_[2];
  AlignedFloats phi_, u_;  ///< sampled weights and their direction, [D][W]; made at first use
  Block shift_;            ///< sigma eps where the pass keeps none; made at first use
  const float* input_ = nullptr;  ///< input rows of the current pass
  AlignedFloats dropped_;
  std::unique_ptr<LaneSplit> split_;  ///< made at the first use of flipout or local
};

}  // namespace kshot::backend::cpu
