// Any network, one task at a time, channels last. Convolution and linear layers, forward, backward
// and their tangents, are one matrix product whose left operand is gathered through offset tables
// (gather_gemm), without im2col. Images have a border of zeros that is as wide as the neighbouring
// convolutions need. Channels are padded to a multiple of W, and the pads are always zero.
//
// A value is kept where a backward pass needs it, and overwritten in place elsewhere: a block
// conv-norm-relu keeps its output and the normalised x_hat.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "backend/cpu/cpu_wave.h"

namespace kshot::backend::cpu {

namespace single {

/// Layout of a batch of images: [rows][h + 2 border][w + 2 border][stride], channels padded.
struct Geometry {
  int channels = 0, stride = 0, height = 1, width = 1, border = 0;
  std::size_t row_floats() const {
    return static_cast<std::size_t>(height + 2 * border) *
           static_cast<std::size_t>(width + 2 * border) * static_cast<std::size_t>(stride);
  }
  std::int32_t offset(int row, int y, int x) const {
    const std::size_t line = static_cast<std::size_t>(width + 2 * border);
    return static_cast<std::int32_t>(
        static_cast<std::ptrdiff_t>(static_cast<std::size_t>(row) * row_floats()) +
        ((y + border) * static_cast<std::ptrdiff_t>(line) + (x + border)) * stride);
  }
  int pixels() const { return height * width; }
};

/// Values of one geometry, connected by element-wise layers. They share delta buffers.
struct Group {
  Geometry geometry;
  std::vector<std::int32_t> pixel;  ///< offset of each pixel, row after row
  AlignedFloats delta, delta_dot;
};

/// Offset tables of one matrix product for the largest batch: the gathered operand and the result.
struct Product {
  int m_per_row = 0;
  std::vector<std::int32_t> m_offset, c_offset;
  std::vector<GatherIndex> index;
};

/// One layer: its buffers, offset tables and saved statistics.
struct Step {
  LayerType type = LayerType::linear;
  bool product = false;  ///< conv or linear
  Activation activation = Activation::relu;
  int group_in = 0, group_out = 0;
  int value_in = 0, value_out = 0;   ///< indices of buffers
  std::size_t weight = 0, bias = 0;  ///< offsets in the layout of weights
  bool has_bias = false;
  int taps = 1, in = 0, out = 0, in_stride = 0, out_stride = 0;
  Product forward;
  std::vector<Product> backward;  ///< one per class of input pixels (conv: per phase of the stride)
  std::vector<std::int32_t> gradient_m, gradient_c;
  std::vector<GatherIndex> gradient_index;
  AlignedFloats transposed, transposed_dot;              ///< [tap][out][in_stride]
  AlignedFloats x_hat, x_hat_dot, mean, inverse, slope;  // norm
  std::vector<std::int32_t> winner, corner, window;      // max_pool
  /// Buffers of a product under Gaussian weights by flipout or local, made at first use. xs is the
  /// input of the product with the spread and t its output, in the geometries of the step's input
  /// and output. flipout: xs = r_in x, y += r_out t. local: xs = x^2, y += sqrt(t) zeta.
  struct Split {
    AlignedFloats xs, xs_dot, back, back_dot, noise_in;
    AlignedFloats t, t_dot, inverse, delta, delta_dot, noise_out;
    AlignedFloats transposed, transposed_dot;
  } split;
};

}  // namespace single

/// The wave for any network. It holds one task.
class SingleWave final : public CpuWave {
 public:
  SingleWave(const Kernels& kernels, std::shared_ptr<const Network> network, const Loss& loss,
             const WaveShape& shape);

  int capacity() const override { return 1; }
  void read(Block src, int /*task*/, float* to) const override;
  void write(Block dst, int /*task*/, const float* from) override;
  void read_support(int /*task*/, int row, float* x, float* target) const override;
  void put_targets(Set set, Block dst) override;

  void sum_tasks(std::span<const Block> blocks, Block loss, float* out, double* losses,
                 char* diverged) override;

 protected:
  Block make_block(std::size_t width) override { return store(width, width, false); }
  Block make_weights() override { return store(layout_size_, network_->size(), true); }
  void do_broadcast(Block dst, const SharedVector& src) override;
  void do_gradient(const Pass& pass, Block grad, bool accumulate, Block loss) override;
  void do_output_pullback(const Pass& pass, Block g_outputs, Block grad, bool accumulate) override;
  void do_hessian_vector(const Pass& pass, Block direction, Block hv, bool accumulate,
                         Block grad) override;
  void do_value(const Pass& pass, Block loss, Block outputs, NormStatistics statistics) override;

  void do_split_gradient(const SplitPass& pass, Block g_mean, Block g_spread, bool accumulate,
                         Block loss) override;
  void do_split_hessian_vector(const SplitPass& pass, Block u_mean, Block u_spread, Block h_mean,
                               Block h_spread) override;
  void do_split_value(const SplitPass& pass, Block loss, Block outputs,
                      NormStatistics statistics) override;

  void do_load(const TaskBatch& batch, int first, int count, std::uint32_t global_first) override;
  void pattern(const Scale& scale, std::size_t /*run*/, float* out) const override {
    std::fill_n(out, kernels_.lanes, factor(scale, 0));
  }
  void draw_weights(Block phi, Block eps, Block mu, Block sigma, const RandomKey& key) override;
  const float* shared_rates(const SharedVector& rates, bool& splat) override {
    splat = false;
    return placed(rates).data();
  }
  void add_value(float* value, const float* sums) override {
    for (int i = 0; i < kernels_.lanes; ++i) value[0] += sums[i];
  }

 private:
  using Geometry = single::Geometry;
  using Group = single::Group;
  using Product = single::Product;
  using Step = single::Step;
  struct Data {
    AlignedFloats x, target;
  };
  /// A shared vector in the layout of weights, and the version that it was copied from.
  struct Placed {
    AlignedFloats values;
    std::uint64_t version = 0;
    bool valid = false;
  };

  int pad(int channels) const {
    return (channels + kernels_.lanes - 1) / kernels_.lanes * kernels_.lanes;
  }
  /// A shared vector in the layout of weights. It is cached until the vector changes.
  const AlignedFloats& placed(const SharedVector& shared);
  void scatter(float* dst, const float* flat) const {
    for (std::size_t e = 0; e < place_.size(); ++e) dst[place_[e]] = flat[e];
  }

  // ---- plan ----

  /// Computes the position of each weight of the flat order: [tap][in][out padded] for products,
  /// padded vectors for biases and norms.
  void plan_weights();

  static bool element_wise(LayerType type) {
    return type == LayerType::norm || type == LayerType::relu || type == LayerType::tanh ||
           type == LayerType::leaky_relu;
  }

  void plan_groups();

  /// True for layers that keep the geometry of their input.
  static bool keeps_geometry(const Layer& layer) {
    return element_wise(layer.type) || (layer.type == LayerType::flatten && !layer.in.spatial);
  }

  int new_value(int group);

  void plan_steps();

  void plan_product(const Layer& layer, Step& step, const Group& in, const Group& out);

  void plan_pool(const Layer& layer, Step& step, const Group& in, const Group& out);

  // ---- data ----

  void load_rows(const TaskBatch& batch, bool support, Data& data, int start);

  // ---- Gaussian weights ----

  /// The second vector of weights of a split pass (network_passes.h).
  struct Spread {
    bool local = false;
    const float* w = nullptr;
    const float* w_dot = nullptr;
    /// The spread's gradient, or the gradient's tangent where the mean's tangent is computed.
    float* gradient = nullptr;
  };

  void make_split_buffers();

  /// Noise of a set's rows [rows][width], drawn by key.
  const float* draw_rows(const SplitPass& pass, Set set, std::size_t width);

  /// Copies the rows' noise to the layout of the activations that it multiplies.
  Spread take_noise(const SplitPass& pass, Set set, Block u_spread, Block gradient);

  /// Adds the spread's part to y, and to its tangent where asked for. `g` is the product with the
  /// mean.
  void split_forward(Step& step, GatherGemm g, int n, const Spread& spread, const float* x,
                     const float* x_dot, bool tangent);

  /// Computes the spread's gradient (or its tangent). Also computes the product that carries dy
  /// back to xs, and keeps it in `back`, because the mean's part of dx is written first.
  void split_backward(Step& step, int n, const Spread& spread, const float* x_dot, const float* dy,
                      const float* dy_dot, bool tangent, bool accumulate);

  /// dx += dxs/dx * back, and its tangent.
  void split_input_gradient(const Step& step, int n, const Spread& spread, const float* x,
                            const float* x_dot, float* dx, float* dx_dot, bool tangent);

  // ---- passes ----

  void put_outputs(Set set, float* out) const;

  /// Copies the gradient of a loss by the outputs, [rows, outputs], to where backward() reads it.
  /// Padded channels become zero.
  void take_outputs(Set set, const float* in);

  /// Calls body(offset, floats) for each contiguous run of n rows of a geometry.
  template <typename F>
  void runs(const Geometry& g, int n, F&& body) {
    if (g.border == 0) {
      body(std::size_t{0}, static_cast<std::size_t>(n) * g.row_floats());
      return;
    }
    const auto floats = static_cast<std::size_t>(g.width) * static_cast<std::size_t>(g.stride);
    for (int r = 0; r < n; ++r) {
      for (int y = 0; y < g.height; ++y) {
        body(static_cast<std::size_t>(g.offset(r, y, 0)), floats);
      }
    }
  }

  /// Prepares the input of a pass. Under dropout the pass reads a copy of the set's rows.
  void take_input(const Pass& pass);

  const float* value_of(int value, Set set) const {
    return value < 0 ? (dropping_ ? dropped_.data() : data_[static_cast<int>(set)].x.data())
                     : values_[static_cast<std::size_t>(value)].data();
  }
  const float* tangent_of(int value) const {
    return value < 0 ? nullptr : values_dot_[static_cast<std::size_t>(value)].data();
  }

  NormArgs norm_args(Step& step, int n, const float* w, const float* w_dot);

  /// Arguments of one forward pass: rows, weights and, in a split pass, the spread.
  struct Forward {
    int n = 0;
    const float* w = nullptr;
    const float* w_dot = nullptr;  ///< null: no tangent
    bool given_statistics = false;
    const Spread* spread = nullptr;
  };
  /// The values that one layer reads and writes. x_dot is null for the data, which have no tangent.
  struct Values {
    const float* x = nullptr;
    const float* x_dot = nullptr;
    float* y = nullptr;
    float* y_dot = nullptr;
  };
  void forward(Set set, const float* w, const float* w_dot, bool given_statistics,
               const Spread* spread = nullptr);
  void product_forward(Step& step, const Forward& pass, const Values& v);
  void norm_forward(Step& step, const Forward& pass, const Values& v);
  void activation_forward(const Step& step, const Forward& pass, const Values& v);
  /// Layers without parameters: mean, flatten, and max_pool, which is linear once its winners are
  /// known.
  void fixed_forward(Step& step, const Forward& pass, const Values& v);
  void mean_forward(const Step& step, int n, const float* x, float* y);
  void mean_backward(const Step& step, int n, float* dx, const float* dy);
  /// Copies [pixel][channel] to the vector's channel-major order; unflatten is the inverse.
  void flatten(const Step& step, int n, const float* x, float* y);
  void unflatten(const Step& step, int n, float* dx, const float* dy);

  void loss_and_delta(const Pass& pass, float* loss, bool delta, bool tangent);

  /// Arguments of one backward pass, which follows the forward pass of the same rows. Without
  /// w_dot, the gradient goes to `grad`. With w_dot, the Hessian-vector product goes to `hv`, and
  /// the gradient to `grad` where given (overwritten).
  struct Backward {
    int n = 0;
    const float* w = nullptr;
    const float* w_dot = nullptr;
    float* grad = nullptr;
    float* hv = nullptr;
    bool accumulate = false;
    const Spread* spread = nullptr;
    bool tangent() const { return w_dot != nullptr; }
    bool grad_accumulates() const { return accumulate && !tangent(); }
    /// The gradient of the mean, or its tangent.
    const float* of_mean() const { return tangent() ? hv : grad; }
  };
  /// A layer's values and the derivatives by them.
  struct Deltas {
    const float* x = nullptr;
    const float* x_dot = nullptr;
    const float* y = nullptr;
    const float* y_dot = nullptr;
    const float* dy = nullptr;
    const float* dy_dot = nullptr;
    float* dx = nullptr;
    float* dx_dot = nullptr;
  };
  /// Backward pass from delta at the output.
  void backward(Set set, const float* w, const float* w_dot, float* grad, float* hv,
                bool accumulate, const Spread* spread = nullptr);
  void product_backward(Step& step, const Backward& pass, const Deltas& d);
  void norm_backward(Step& step, const Backward& pass, const Deltas& d);
  void activation_backward(const Step& step, const Backward& pass, const Deltas& d);
  void fixed_backward(Step& step, int n, const float* dy, float* dx);
  void transpose_weights(const Step& step, const float* w, AlignedFloats& to);
  /// dx (+)= the transposed product of dy.
  void input_gradient(const Step& step, int n, const float* dy, const AlignedFloats& transposed,
                      float* dx, bool accumulate);
  void product_gradient(const Step& step, int n, const float* x, const float* dy, float* dw,
                        bool accumulate);
  void channel_gradient(const Step& step, int n, const float* dy, float* dw, bool accumulate);

  int max_rows_ = 0;
  std::ptrdiff_t target_stride_ = 0;        ///< floats between consecutive rows of the targets
  std::vector<std::uint32_t> place_;        ///< maps the flat order to the layout
  std::vector<std::size_t> tensor_offset_;  ///< start of each tensor in the layout
  std::size_t layout_size_ = 0;
  std::vector<Group> groups_;
  std::vector<Step> steps_;
  std::vector<AlignedFloats> values_, values_dot_;
  Data data_[3];
  AlignedFloats canonical_;
  std::map<const SharedVector*, Placed> placed_;
  std::vector<float> zero_;
  bool dropping_ = false;  ///< the current pass has dropout
  AlignedFloats dropped_;
  std::vector<float> factors_;
  AlignedFloats drawn_[2];  ///< noise by rows, for support and query
  std::vector<float> rows_noise_;
};

}  // namespace kshot::backend::cpu
