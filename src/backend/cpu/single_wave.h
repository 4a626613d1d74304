// Any network, one task at a time, channels last. Convolution and linear layers, forward, backward
// and their tangents, are one matrix product whose left operand is gathered through offset tables
// (gather_gemm): no im2col. Images carry a border of zeros as wide as the convolutions beside them
// need; channels are padded to a multiple of W, and the pads stay zero throughout.
//
// A value is kept where a backward pass needs it and overwritten in place where none does: a block
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

/// An image batch in memory: [rows][h + 2 border][w + 2 border][stride], channels padded.
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

/// Layers of one geometry, joined by element-wise layers: they share delta buffers.
struct Group {
  Geometry geometry;
  std::vector<std::int32_t> pixel;  ///< offsets, row after row
  AlignedFloats delta, delta_dot;
};

/// One matrix product: offsets of the gathered side and of the result, for the largest batch.
struct Product {
  int m_per_row = 0;
  std::vector<std::int32_t> m_offset, c_offset;
  std::vector<GatherIndex> index;
};

struct Step {
  LayerType type = LayerType::linear;
  bool product = false;  ///< conv or linear
  Activation activation = Activation::relu;
  int group_in = 0, group_out = 0;
  int value_in = 0, value_out = 0;   ///< buffers
  std::size_t weight = 0, bias = 0;  ///< offsets in the layout of weights
  bool has_bias = false;
  int taps = 1, in = 0, out = 0, in_stride = 0, out_stride = 0;
  Product forward;
  std::vector<Product> backward;  ///< a class of input pixels each (conv: by phase of the stride)
  std::vector<std::int32_t> gradient_m, gradient_c;
  std::vector<GatherIndex> gradient_index;
  AlignedFloats transposed, transposed_dot;              ///< [tap][out][in_stride]
  AlignedFloats x_hat, x_hat_dot, mean, inverse, slope;  // norm
  std::vector<std::int32_t> winner, corner, window;      // max_pool
  /// Products under Gaussian weights by flipout or local, made when first asked for: what goes into
  /// the product with the spread and what comes out, in the geometries of the step's sides.
  /// flipout: xs = r_in x, y += r_out t; local: xs = x^2, y += sqrt(t) zeta.
  struct Split {
    AlignedFloats xs, xs_dot, back, back_dot, noise_in;
    AlignedFloats t, t_dot, inverse, delta, delta_dot, noise_out;
    AlignedFloats transposed, transposed_dot;
  } split;
};

}  // namespace single

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
  struct Placed {
    AlignedFloats values;
    std::uint64_t version = 0;
    bool valid = false;
  };

  int pad(int channels) const {
    return (channels + kernels_.lanes - 1) / kernels_.lanes * kernels_.lanes;
  }
  /// A shared vector in the layout of weights, kept while the vector does not change.
  const AlignedFloats& placed(const SharedVector& shared);
  void scatter(float* dst, const float* flat) const {
    for (std::size_t e = 0; e < place_.size(); ++e) dst[place_[e]] = flat[e];
  }

  // ---- plan ----

  /// Where each weight of the flat order lies: [tap][in][out padded], biases and norms padded.
  void plan_weights();

  static bool element_wise(LayerType type) {
    return type == LayerType::norm || type == LayerType::relu || type == LayerType::tanh ||
           type == LayerType::leaky_relu;
  }

  void plan_groups();

  /// Layers that keep the geometry of their input.
  static bool stays(const Layer& layer) {
    return element_wise(layer.type) || (layer.type == LayerType::flatten && !layer.in.spatial);
  }

  int new_value(int group);

  void plan_steps();

  void plan_product(const Layer& layer, Step& step, const Group& in, const Group& out);

  void plan_pool(const Layer& layer, Step& step, const Group& in, const Group& out);

  // ---- data ----

  void load_rows(const TaskBatch& batch, bool support, Data& data, int start);

  // ---- Gaussian weights ----

  /// The second vector of weights of a split pass (backend.h).
  struct Spread {
    bool local = false;
    const float* w = nullptr;
    const float* w_dot = nullptr;
    float* gradient = nullptr;  ///< or its tangent, as that of the mean
  };

  void make_split_buffers();

  /// Noise of a set's rows [rows][width], drawn by key.
  const float* draw_rows(const SplitPass& pass, Set set, std::size_t width);

  /// Puts the rows' noise beside the activations that it multiplies.
  Spread take_noise(const SplitPass& pass, Set set, Block u_spread, Block gradient);

  /// y += what the spread gives, and the tangent where wanted; `g` is the product with the mean.
  void split_forward(Step& step, GatherGemm g, int n, const Spread& spread, const float* x,
                     const float* x_dot, bool tangent);

  /// The spread's gradient (or its tangent), and its part of the input's; before the mean's part is
  /// written to dx, `back` holds it.
  void split_backward(Step& step, int n, const Spread& spread, const float* x_dot, const float* dy,
                      const float* dy_dot, bool tangent, bool accumulate);

  /// dx += dxs/dx * back, and its tangent.
  void split_input_gradient(const Step& step, int n, const Spread& spread, const float* x,
                            const float* x_dot, float* dx, float* dx_dot, bool tangent);

  // ---- passes ----

  void put_outputs(Set set, float* out) const;

  /// The gradient of a loss in the outputs, [rows, outputs], to where backward() takes it; padded
  /// channels are zero.
  void take_outputs(Set set, const float* in);

  /// The contiguous runs of n rows of a geometry: body(offset, floats).
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

  /// Under dropout a pass reads a copy of the set's rows.
  void take_input(const Pass& pass);

  const float* value_of(int value, Set set) const {
    return value < 0 ? (dropping_ ? dropped_.data() : data_[static_cast<int>(set)].x.data())
                     : values_[static_cast<std::size_t>(value)].data();
  }
  const float* tangent_of(int value) const {
    return value < 0 ? nullptr : values_dot_[static_cast<std::size_t>(value)].data();
  }

  NormArgs norm_args(Step& step, int n, const float* w, const float* w_dot);

  /// One forward pass: its rows, weights and, of a split pass, spreads.
  struct Forward {
    int n = 0;
    const float* w = nullptr;
    const float* w_dot = nullptr;  ///< null: no tangent is wanted
    bool given_statistics = false;
    const Spread* spread = nullptr;
  };
  /// What one layer reads and writes in it; x_dot is null for the data, which have no tangent.
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
  /// Layers without parameters that are linear: max_pool for its winners, mean, flatten.
  void fixed_forward(Step& step, const Forward& pass, const Values& v);
  void mean_forward(const Step& step, int n, const float* x, float* y);
  void mean_backward(const Step& step, int n, float* dx, const float* dy);
  /// [pixel][channel] to the vector's channel-major order and back.
  void flatten(const Step& step, int n, const float* x, float* y);
  void unflatten(const Step& step, int n, float* dx, const float* dy);

  void loss_and_delta(const Pass& pass, float* loss, bool delta, bool tangent);

  /// One backward pass, after the forward pass of the same: where gradients go. Plain: grad. With
  /// w_dot: hv, and grad where wanted (overwritten).
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
    /// Where the mean's gradient went, or its tangent.
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
  /// From delta at the output.
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
  std::ptrdiff_t target_stride_ = 0;    ///< floats from row to row of the targets
  std::vector<std::uint32_t> place_;    ///< flat order to layout
  std::vector<std::size_t> tensor_at_;  ///< a tensor's start in the layout
  std::size_t layout_size_ = 0;
  std::vector<Group> groups_;
  std::vector<Step> steps_;
  std::vector<AlignedFloats> values_, values_dot_;
  Data data_[3];
  AlignedFloats canonical_;
  std::map<const SharedVector*, Placed> placed_;
  std::vector<float> zero_;
  bool dropping_ = false;  ///< the pass at hand
  AlignedFloats dropped_;
  std::vector<float> factors_;
  AlignedFloats drawn_[2];  ///< noise by rows, of support and query
  std::vector<float> rows_noise_;
};

}  // namespace kshot::backend::cpu
