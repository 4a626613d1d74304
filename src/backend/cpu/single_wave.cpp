// Any network, one task at a time, channels last. Convolution and linear layers, forward, backward
// and their tangents, are one matrix product whose left operand is gathered through offset tables
// (gather_gemm): no im2col. Images carry a border of zeros as wide as the convolutions beside them
// need; channels are padded to a multiple of W, and the pads stay zero throughout.
//
// A value is kept where a backward pass needs it and overwritten in place where none does: a block
// conv-norm-relu keeps its output and the normalised x_hat.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "backend/cpu/cpu_wave.h"
#include "backend/row_noise.h"
#include "kshot/error.h"

namespace kshot::backend::cpu {
namespace {

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

class SingleWave final : public CpuWave {
 public:
  SingleWave(const Kernels& kernels, std::shared_ptr<const Network> network, const Loss& loss,
             const WaveShape& shape)
      : CpuWave(kernels, std::move(network), loss, shape) {
    max_rows_ = std::max(shape.support, shape.query);
    if (shape.with_all) max_rows_ = shape.support + shape.query;
    plan_weights();
    plan_groups();
    plan_steps();
    const Geometry& input = groups_.front().geometry;
    target_stride_ = shape.targets > 0 ? pad(shape.targets) : groups_.back().geometry.stride;
    for (int s = 0; s < 3; ++s) {
      if (s == 2 && !shape.with_all) continue;
      const auto n = static_cast<std::size_t>(rows(static_cast<Set>(s)));
      data_[s].x = AlignedFloats(n * input.row_floats());
      data_[s].target = AlignedFloats(n * static_cast<std::size_t>(target_stride_));
    }
    canonical_ = AlignedFloats((network_->size() + 63) / 64 * 64);
  }

  int capacity() const override { return 1; }
  Block block(std::size_t width) override { return store(width, width, false); }
  Block weights() override { return store(layout_size_, network_->size(), true); }

  void broadcast(Block dst, const SharedVector& src) override {
    if (!storage(dst).weights) {  // a head's parameters, say
      std::copy_n(host<float>(src).data(), src.size(), at(dst));
      return;
    }
    const AlignedFloats& values = placed(src);
    std::copy_n(values.data(), values.size(), at(dst));
  }

  void read(Block src, int /*task*/, float* to) const override {
    const Storage& s = storage(src);
    const float* from = at(src);
    if (!s.weights) {
      std::copy_n(from, s.width, to);
    } else {
      for (std::size_t e = 0; e < s.width; ++e) to[e] = from[place_[e]];
    }
  }
  void write(Block dst, int /*task*/, const float* from) override {
    const Storage& s = storage(dst);
    float* to = at(dst);
    if (!s.weights) {
      std::copy_n(from, s.width, to);
    } else {
      for (std::size_t e = 0; e < s.width; ++e) to[place_[e]] = from[e];
    }
  }
  void read_support(int /*task*/, int row, float* x, float* target) const override {
    const Geometry& g = groups_.front().geometry;
    std::copy_n(data_[0].x.data() + g.offset(row, 0, 0), g.channels, x);
    std::copy_n(data_[0].target.data() + row * target_stride_, targets(), target);
  }
  void put_targets(Set set, Block dst) override {
    float* to = at(dst);
    for (int r = 0; r < rows(set); ++r, to += targets()) {
      const float* from = data_[static_cast<int>(set)].target.data() + r * target_stride_;
      if (r < task_rows(set, 0)) {
        std::copy_n(from, targets(), to);
      } else {
        std::fill_n(to, targets(), 0.0f);
      }
    }
  }

  void gradient(const Pass& pass, Block grad, bool accumulate, Block loss) override {
    take_input(pass);
    forward(pass.set, at(pass.weights), nullptr, false);
    loss_and_delta(pass, at(loss), true, false);
    backward(pass.set, at(pass.weights), nullptr, at(grad), nullptr, accumulate);
  }
  void output_pullback(const Pass& pass, Block g_outputs, Block grad, bool accumulate) override {
    if (task_rows(pass.set, 0) == 0) {  // there are no batch statistics either
      if (!accumulate) fill(grad, 0.0);
      return;
    }
    take_input(pass);
    forward(pass.set, at(pass.weights), nullptr, false);
    take_outputs(pass.set, at(g_outputs));
    backward(pass.set, at(pass.weights), nullptr, at(grad), nullptr, accumulate);
  }
  void hessian_vector(const Pass& pass, Block direction, Block hv, bool accumulate,
                      Block grad) override {
    take_input(pass);
    forward(pass.set, at(pass.weights), at(direction), false);
    loss_and_delta(pass, nullptr, true, true);
    backward(pass.set, at(pass.weights), at(direction), at(grad), at(hv), accumulate);
  }
  void value(const Pass& pass, Block loss, Block outputs, NormStatistics statistics) override {
    const bool given = statistics == NormStatistics::support && pass.set != Set::support;
    take_input(pass);
    if (given) forward(Set::support, at(pass.weights), nullptr, false);
    forward(pass.set, at(pass.weights), nullptr, given);
    if (loss) loss_and_delta(pass, at(loss), false, false);
    if (outputs) put_outputs(pass.set, at(outputs));
  }

  void split_gradient(const SplitPass& pass, Block g_mean, Block g_spread, bool accumulate,
                      Block loss) override {
    take_input({pass.set, {}, {}});
    const Spread spread = take_noise(pass, pass.set, {}, g_spread);
    forward(pass.set, at(pass.mean), nullptr, false, &spread);
    loss_and_delta({pass.set, {}, pass.scale}, at(loss), true, false);
    backward(pass.set, at(pass.mean), nullptr, at(g_mean), nullptr, accumulate, &spread);
  }
  void split_hessian_vector(const SplitPass& pass, Block u_mean, Block u_spread, Block h_mean,
                            Block h_spread) override {
    take_input({pass.set, {}, {}});
    const Spread spread = take_noise(pass, pass.set, u_spread, h_spread);
    forward(pass.set, at(pass.mean), at(u_mean), false, &spread);
    loss_and_delta({pass.set, {}, pass.scale}, nullptr, true, true);
    backward(pass.set, at(pass.mean), at(u_mean), nullptr, at(h_mean), false, &spread);
  }
  void split_value(const SplitPass& pass, Block loss, Block outputs,
                   NormStatistics statistics) override {
    const bool given = statistics == NormStatistics::support && pass.set != Set::support;
    take_input({pass.set, {}, {}});
    if (given) {
      const Spread spread = take_noise(pass, Set::support, {}, {});
      forward(Set::support, at(pass.mean), nullptr, false, &spread);
    }
    const Spread spread = take_noise(pass, pass.set, {}, {});
    forward(pass.set, at(pass.mean), nullptr, given, &spread);
    if (loss) loss_and_delta({pass.set, {}, pass.scale}, at(loss), false, false);
    if (outputs) put_outputs(pass.set, at(outputs));
  }

  void sum_tasks(std::span<const Block> blocks, Block loss, float* out, double* losses,
                 char* diverged) override {
    float keep[max_lanes];
    std::fill_n(keep, max_lanes, 1.0f);
    for (const Block b : blocks) kernels_.lane_finite(at(b), block_vectors(b), keep);
    diverged[0] = !std::isfinite(at(loss)[0]) ||
                  std::any_of(keep, keep + kernels_.lanes, [](float k) { return k == 0.0f; });
    losses[0] = diverged[0] ? 0.0 : static_cast<double>(at(loss)[0]);
    for (const Block b : blocks) {
      const std::size_t width = storage(b).width;
      if (diverged[0]) {
        std::fill_n(out, width, 0.0f);
      } else {
        const float* from = at(b);
        if (storage(b).weights) {
          for (std::size_t e = 0; e < width; ++e) out[e] = from[place_[e]];
        } else {
          std::copy_n(from, width, out);
        }
      }
      out += width;
    }
  }

 protected:
  void do_load(const TaskBatch& batch, int first, int count, std::uint32_t global_first) override {
    count_ = count;
    global_first_ = global_first;
    batch_first_ = first;
    const auto task = static_cast<std::size_t>(first);
    support_n_ = {batch.support_n[task]};
    query_n_ = {batch.query_n[task]};
    load_rows(batch, true, data_[0], 0);
    load_rows(batch, false, data_[1], 0);
    if (shape_.with_all) {
      load_rows(batch, true, data_[2], 0);
      load_rows(batch, false, data_[2], support_n_[0]);
    }
  }
  void pattern(const Scale& scale, std::size_t /*run*/, float* out) const override {
    std::fill_n(out, kernels_.lanes, factor(scale, 0));
  }
  void draw_weights(Block phi, Block eps, Block mu, Block sigma, const RandomKey& key) override {
    kernels_.noise_single(noise_key(key, global_first_), canonical_.data(), network_->size());
    scatter(at(eps), canonical_.data());
    kernels_.reparameterise(at(phi), at(mu), at(sigma), at(eps), block_vectors(phi));
  }
  const float* shared_rates(const SharedVector& rates, bool& splat) override {
    splat = false;
    return placed(rates).data();
  }
  void add_value(float* value, const float* sums) override {
    for (int i = 0; i < kernels_.lanes; ++i) value[0] += sums[i];
  }

 private:
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
  const AlignedFloats& placed(const SharedVector& shared) {
    const auto& vector = host<float>(shared);
    Placed& entry = placed_[&shared];
    if (entry.values.size() == 0) entry.values = AlignedFloats(layout_size_);
    if (!entry.valid || entry.version != vector.version()) {
      scatter(entry.values.data(), vector.data());
      entry.version = vector.version();
      entry.valid = true;
    }
    return entry.values;
  }
  void scatter(float* dst, const float* flat) const {
    for (std::size_t e = 0; e < place_.size(); ++e) dst[place_[e]] = flat[e];
  }

  // ---- plan ----

  /// Where each weight of the flat order lies: [tap][in][out padded], biases and norms padded.
  void plan_weights() {
    place_.resize(network_->size());
    const auto& parameters = network_->parameters();
    tensor_at_.resize(parameters.size());
    std::size_t next = 0;
    for (std::size_t t = 0; t < parameters.size(); ++t) {
      const ParameterTensor& p = parameters[t];
      tensor_at_[t] = next;
      const auto out_stride = static_cast<std::size_t>(pad(p.shape[0]));
      if (p.shape.size() == 1) {
        for (std::size_t e = 0; e < p.size; ++e) {
          place_[p.offset + e] = static_cast<std::uint32_t>(next + e);
        }
        next += out_stride;
        continue;
      }
      const auto out = static_cast<std::size_t>(p.shape[0]);
      const auto in = static_cast<std::size_t>(p.shape[1]);
      const std::size_t taps = p.size / (out * in);
      for (std::size_t o = 0; o < out; ++o) {
        for (std::size_t i = 0; i < in; ++i) {
          for (std::size_t tap = 0; tap < taps; ++tap) {
            place_[p.offset + (o * in + i) * taps + tap] =
                static_cast<std::uint32_t>(next + (tap * in + i) * out_stride + o);
          }
        }
      }
      next += taps * in * out_stride;
    }
    layout_size_ = next;
  }

  static bool element_wise(LayerType type) {
    return type == LayerType::norm || type == LayerType::relu || type == LayerType::tanh ||
           type == LayerType::leaky_relu;
  }

  void plan_groups() {
    const FeatureShape& input = network_->input();
    Group first;
    first.geometry = {input.channels, input.channels, input.height, input.width, 0};
    // the data's channels are read one by one unless an element-wise layer comes first
    if (element_wise(network_->layers().front().type) ||
        network_->layers().front().type == LayerType::max_pool ||
        network_->layers().front().type == LayerType::mean) {
      first.geometry.stride = pad(input.channels);
    }
    groups_.push_back(std::move(first));
    for (const Layer& layer : network_->layers()) {
      Geometry& in = groups_.back().geometry;
      if (layer.type == LayerType::conv) in.border = std::max(in.border, layer.padding);
      if (stays(layer)) continue;
      Group next;
      next.geometry = {layer.out.channels, pad(layer.out.channels), layer.out.height,
                       layer.out.width, 0};
      if (layer.type == LayerType::conv) {
        // the transposed convolution reads deltas this far outside
        const int low = (layer.kernel - 1) / layer.stride;
        const int high_y =
            (layer.in.height - 1 + layer.padding) / layer.stride - (layer.out.height - 1);
        const int high_x =
            (layer.in.width - 1 + layer.padding) / layer.stride - (layer.out.width - 1);
        next.geometry.border = std::max({low, high_y, high_x});
      }
      groups_.push_back(std::move(next));
    }
    for (Group& group : groups_) {
      const std::size_t floats = static_cast<std::size_t>(max_rows_) * group.geometry.row_floats();
      if (floats > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
        throw Error(
            "network: one task's activations exceed 2^31 numbers; use fewer rows or "
            "smaller images");
      }
      const Geometry& g = group.geometry;
      for (int r = 0; r < max_rows_; ++r) {
        for (int y = 0; y < g.height; ++y) {
          for (int x = 0; x < g.width; ++x) group.pixel.push_back(g.offset(r, y, x));
        }
      }
    }
  }

  /// Layers that keep the geometry of their input.
  static bool stays(const Layer& layer) {
    return element_wise(layer.type) || (layer.type == LayerType::flatten && !layer.in.spatial);
  }

  int new_value(int group) {
    values_.emplace_back(static_cast<std::size_t>(max_rows_) *
                         groups_[static_cast<std::size_t>(group)].geometry.row_floats());
    values_dot_.emplace_back(values_.back().size());
    return static_cast<int>(values_.size()) - 1;
  }

  void plan_steps() {
    int group = 0;
    int value = -1;      // the data
    bool needed = true;  // a backward pass reads the value as it stands
    for (const Layer& layer : network_->layers()) {
      if (layer.type == LayerType::flatten && !layer.in.spatial) continue;
      Step step;
      step.type = layer.type;
      step.group_in = group;
      step.value_in = value;
      if (!stays(layer)) ++group;
      step.group_out = group;
      Group& in = groups_[static_cast<std::size_t>(step.group_in)];
      Group& out = groups_[static_cast<std::size_t>(step.group_out)];
      if (layer.weight >= 0) {
        step.weight = tensor_at_[static_cast<std::size_t>(layer.weight)];
        step.has_bias = layer.bias >= 0;
        if (step.has_bias) step.bias = tensor_at_[static_cast<std::size_t>(layer.bias)];
      }
      const bool in_place = stays(layer) && !needed;
      step.value_out = in_place ? value : new_value(group);
      needed = false;
      switch (layer.type) {
        case LayerType::conv:
        case LayerType::linear:
          plan_product(layer, step, in, out);
          break;
        case LayerType::norm: {
          const auto floats = static_cast<std::size_t>(max_rows_) * out.geometry.row_floats();
          step.x_hat = AlignedFloats(floats);
          step.x_hat_dot = AlignedFloats(floats);
          const auto channels = static_cast<std::size_t>(out.geometry.stride);
          step.mean = AlignedFloats(channels);
          step.inverse = AlignedFloats(channels);
          step.slope = AlignedFloats(channels);
          break;
        }
        case LayerType::max_pool:
          plan_pool(layer, step, in, out);
          break;
        case LayerType::relu:
          step.activation = Activation::relu;
          needed = true;
          break;
        case LayerType::tanh:
          step.activation = Activation::tanh;
          needed = true;
          break;
        case LayerType::leaky_relu:
          step.activation = Activation::leaky_relu;
          needed = true;
          break;
        case LayerType::mean:
        case LayerType::flatten:
          break;
      }
      value = step.value_out;
      steps_.push_back(std::move(step));
    }
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      const std::size_t floats =
          static_cast<std::size_t>(max_rows_) * groups_[g].geometry.row_floats();
      if (g == 0 && !element_wise(network_->layers().front().type)) continue;  // never asked for
      groups_[g].delta = AlignedFloats(floats);
      groups_[g].delta_dot = AlignedFloats(floats);
    }
  }

  void plan_product(const Layer& layer, Step& step, const Group& in, const Group& out) {
    step.product = true;
    const bool conv = layer.type == LayerType::conv;
    const int kernel = conv ? layer.kernel : 1;
    const int stride = conv ? layer.stride : 1;
    const int padding = conv ? layer.padding : 0;
    const Geometry& gi = in.geometry;
    const Geometry& go = out.geometry;
    step.taps = kernel * kernel;
    step.in = conv ? layer.in.channels : layer.in.size();
    step.out = layer.out.channels;
    step.in_stride = gi.stride;
    step.out_stride = go.stride;
    const std::int32_t line_in = (gi.width + 2 * gi.border) * gi.stride;
    const std::int32_t line_out = (go.width + 2 * go.border) * go.stride;

    step.forward.m_per_row = go.pixels();
    for (int r = 0; r < max_rows_; ++r) {
      for (int y = 0; y < go.height; ++y) {
        for (int x = 0; x < go.width; ++x) {
          step.forward.m_offset.push_back(gi.offset(r, y * stride - padding, x * stride - padding));
        }
      }
    }
    step.forward.c_offset = out.pixel;
    for (int ky = 0; ky < kernel; ++ky) {
      for (int kx = 0; kx < kernel; ++kx) {
        for (int c = 0; c < step.in; ++c) {
          const auto k = static_cast<std::int32_t>(step.forward.index.size());
          const std::int32_t a = ky * line_in + kx * gi.stride + c;
          step.forward.index.push_back({a, k * go.stride});
          step.gradient_m.push_back(a);
          step.gradient_c.push_back(k * go.stride);
        }
      }
    }
    for (std::size_t p = 0; p < out.pixel.size(); ++p) {
      step.gradient_index.push_back({step.forward.m_offset[p], out.pixel[p]});
    }
    if (step.value_in < 0) return;  // the data want no gradient

    const auto transposed = static_cast<std::size_t>(step.taps) *
                            static_cast<std::size_t>(step.out) *
                            static_cast<std::size_t>(gi.stride);
    step.transposed = AlignedFloats(transposed);
    step.transposed_dot = AlignedFloats(transposed);
    // Input pixels by phase: those of one phase see the same taps.
    for (int py = 0; py < stride; ++py) {
      for (int px = 0; px < stride; ++px) {
        Product product;
        for (int r = 0; r < max_rows_; ++r) {
          for (int y = 0; y < gi.height; ++y) {
            if ((y + padding) % stride != py) continue;
            for (int x = 0; x < gi.width; ++x) {
              if ((x + padding) % stride != px) continue;
              product.m_offset.push_back(
                  go.offset(r, (y + padding) / stride, (x + padding) / stride));
              product.c_offset.push_back(gi.offset(r, y, x));
              if (r == 0) ++product.m_per_row;
            }
          }
        }
        for (int ky = py; ky < kernel; ky += stride) {
          for (int kx = px; kx < kernel; kx += stride) {
            const std::int32_t back = -((ky / stride) * line_out + (kx / stride) * go.stride);
            for (int o = 0; o < step.out; ++o) {
              product.index.push_back({back + o, ((ky * kernel + kx) * step.out + o) * gi.stride});
            }
          }
        }
        if (product.m_per_row > 0) step.backward.push_back(std::move(product));
      }
    }
  }

  void plan_pool(const Layer& layer, Step& step, const Group& in, const Group& out) {
    const Geometry& gi = in.geometry;
    for (int y = 0; y < layer.size; ++y) {
      for (int x = 0; x < layer.size; ++x) {
        step.window.push_back(gi.offset(0, y, x) - gi.offset(0, 0, 0));
      }
    }
    for (int r = 0; r < max_rows_; ++r) {
      for (int y = 0; y < out.geometry.height; ++y) {
        for (int x = 0; x < out.geometry.width; ++x) {
          step.corner.push_back(gi.offset(r, y * layer.size, x * layer.size));
        }
      }
    }
    step.winner.resize(step.corner.size() * static_cast<std::size_t>(out.geometry.stride));
  }

  // ---- data ----

  void load_rows(const TaskBatch& batch, bool support, Data& data, int start) {
    const auto& x = support ? batch.support_x : batch.query_x;
    const auto& x64 = support ? batch.support_x64 : batch.query_x64;
    const auto& value = support ? batch.support_value : batch.query_value;
    const auto& value64 = support ? batch.support_value64 : batch.query_value64;
    const auto& label = support ? batch.support_label : batch.query_label;
    const auto batch_rows =
        static_cast<std::size_t>(support ? batch.shape().support : batch.shape().query);
    const int valid = support ? support_n_[0] : query_n_[0];
    const Geometry& g = groups_.front().geometry;
    const auto inputs = static_cast<std::size_t>(network_->input().size());
    const auto outputs = static_cast<std::size_t>(targets());
    const auto stride = static_cast<std::size_t>(target_stride_);
    for (int row = 0; row < valid; ++row) {
      const std::size_t from =
          static_cast<std::size_t>(batch_first_) * batch_rows + static_cast<std::size_t>(row);
      std::size_t e = from * inputs;
      if (g.pixels() == 1 && !batch.is_double()) {
        std::copy_n(x.data() + e, inputs, data.x.data() + g.offset(start + row, 0, 0));
      }
      for (int c = 0; c < g.channels && (g.pixels() > 1 || batch.is_double()); ++c) {
        for (int y = 0; y < g.height; ++y) {
          float* to = data.x.data() + g.offset(start + row, y, 0) + c;
          for (int i = 0; i < g.width; ++i, ++e) {
            to[i * g.stride] = batch.is_double() ? static_cast<float>(x64[e]) : x[e];
          }
        }
      }
      float* target = data.target.data() + static_cast<std::size_t>(start + row) * stride;
      for (std::size_t o = 0; o < outputs; ++o) {
        if (loss_.kind == LossKind::cross_entropy) {
          target[o] = static_cast<std::size_t>(label[from]) == o ? 1.0f : 0.0f;
        } else {
          const std::size_t v = from * outputs + o;
          target[o] = batch.is_double() ? static_cast<float>(value64[v]) : value[v];
        }
      }
    }
  }

  // ---- Gaussian weights ----

  /// The second vector of weights of a split pass (backend.h).
  struct Spread {
    bool local = false;
    const float* w = nullptr;
    const float* w_dot = nullptr;
    float* gradient = nullptr;  ///< or its tangent, as that of the mean
  };

  void make_split_buffers() {
    for (Step& step : steps_) {
      if (!step.product || step.split.xs.size() != 0) continue;
      const auto floats = [&](int group) {
        return static_cast<std::size_t>(max_rows_) *
               groups_[static_cast<std::size_t>(group)].geometry.row_floats();
      };
      Step::Split& s = step.split;
      const std::size_t in = floats(step.group_in), out = floats(step.group_out);
      for (AlignedFloats* a : {&s.xs, &s.xs_dot, &s.noise_in}) *a = AlignedFloats(in);
      for (AlignedFloats* a : {&s.t, &s.t_dot, &s.inverse, &s.delta, &s.delta_dot, &s.noise_out}) {
        *a = AlignedFloats(out);
      }
      if (step.value_in < 0) continue;  // the data want no gradient
      for (AlignedFloats* a : {&s.back, &s.back_dot}) *a = AlignedFloats(in);
      for (AlignedFloats* a : {&s.transposed, &s.transposed_dot}) {
        *a = AlignedFloats(step.transposed.size());
      }
    }
  }

  /// Noise of a set's rows [rows][width], drawn by key.
  const float* draw_rows(const SplitPass& pass, Set set, std::size_t width) {
    const auto draw = [&](bool query, int n, std::size_t first) {
      const RandomKey key = row_key(pass.noise->key, query);
      const std::size_t elements = static_cast<std::size_t>(n) * width;
      const NoiseKey at = noise_key(key, global_first_);
      AlignedFloats& own = drawn_[query ? 1 : 0];
      const std::size_t whole = (elements + 63) / 64 * 64;
      if (own.size() < whole) own = AlignedFloats(whole);
      if (pass.estimator == Estimator::flipout) {
        kernels_.row_signs_single(at, own.data(), elements);
      } else {
        kernels_.noise_single(at, own.data(), elements);
      }
      rows_noise_.resize(first + elements);
      std::copy_n(own.data(), elements, rows_noise_.data() + first);
      return first + elements;
    };
    std::size_t next = 0;
    if (set != Set::query) next = draw(false, support_n_[0], next);
    if (set != Set::support) draw(true, query_n_[0], next);
    return rows_noise_.data();
  }

  /// Puts the rows' noise beside the activations that it multiplies.
  Spread take_noise(const SplitPass& pass, Set set, Block u_spread, Block gradient) {
    make_split_buffers();
    const RowNoiseLayout layout = row_noise_layout(*network_, pass.estimator);
    const GaussianNoise& noise = *pass.noise;
    const bool local = pass.estimator == Estimator::local;
    const float* drawn = noise.layers.empty() ? draw_rows(pass, set, layout.width) : nullptr;
    const int skip = set == Set::query && noise.support_first ? support_n_[0] : 0;
    const int n = task_rows(set, 0);
    // one number a channel and row, or one an element
    const auto place = [&](const Geometry& g, bool elements, std::size_t offset, std::size_t width,
                           const double* host, std::size_t stride, float* to) {
      if (width == 0) return;
      for (int r = 0; r < n; ++r) {
        const auto number = [&](int e) {
          const auto at = static_cast<std::size_t>(e);
          if (drawn != nullptr) {
            return drawn[static_cast<std::size_t>(r) * layout.width + offset + at];
          }
          return static_cast<float>(host[static_cast<std::size_t>(batch_first_) * stride +
                                         static_cast<std::size_t>(skip + r) * width + at]);
        };
        for (int y = 0; y < g.height; ++y) {
          for (int x = 0; x < g.width; ++x) {
            float* const pixel = to + g.offset(r, y, x);
            for (int c = 0; c < g.channels; ++c) {
              pixel[c] = number(elements ? (c * g.height + y) * g.width + x : c);
            }
          }
        }
      }
    };
    std::size_t i = 0;
    for (Step& step : steps_) {
      if (!step.product) continue;
      while (layout.layers[i].out_width == 0) ++i;
      const RowNoiseLayout::Part& part = layout.layers[i];
      const GaussianNoise::Layer host = drawn != nullptr ? GaussianNoise::Layer{} : noise.layers[i];
      place(groups_[static_cast<std::size_t>(step.group_in)].geometry, false, part.in,
            part.in_width, host.in, host.in_stride, step.split.noise_in.data());
      place(groups_[static_cast<std::size_t>(step.group_out)].geometry, local, part.out,
            part.out_width, host.out, host.out_stride, step.split.noise_out.data());
      ++i;
    }
    return {local, at(pass.spread), at(u_spread), at(gradient)};
  }

  /// y += what the spread gives, and the tangent where wanted; `g` is the product with the mean.
  void split_forward(Step& step, GatherGemm g, int n, const Spread& spread, const float* x,
                     const float* x_dot, bool tangent) {
    Step::Split& s = step.split;
    const Geometry& gi = groups_[static_cast<std::size_t>(step.group_in)].geometry;
    const Geometry& go = groups_[static_cast<std::size_t>(step.group_out)].geometry;
    const std::size_t in = static_cast<std::size_t>(n) * gi.row_floats();
    const std::size_t vectors =
        static_cast<std::size_t>(n) * go.row_floats() / static_cast<std::size_t>(kernels_.lanes);
    float* y = values_[static_cast<std::size_t>(step.value_out)].data();
    float* y_dot = values_dot_[static_cast<std::size_t>(step.value_out)].data();
    const float* const into = spread.local ? x : s.noise_in.data();
    kernels_.product(s.xs.data(), 1.0f, x, into, in);
    g.x = s.xs.data();
    g.b = spread.w + step.weight;
    g.c = s.t.data();
    g.init = spread.local && step.has_bias ? spread.w + step.bias : nullptr;
    g.accumulate = false;
    kernels_.gather_gemm(g);
    const float* const noise = s.noise_out.data();
    if (spread.local) {
      kernels_.deviation(y, s.inverse.data(), s.t.data(), noise, vectors);
    } else {
      kernels_.multiply_add(y, 1.0f, noise, s.t.data(), vectors);
    }
    if (!tangent) return;
    g.b = spread.w_dot + step.weight;
    g.c = s.t_dot.data();
    g.init = spread.local && step.has_bias ? spread.w_dot + step.bias : nullptr;
    kernels_.gather_gemm(g);
    if (x_dot != nullptr) {
      kernels_.product(s.xs_dot.data(), spread.local ? 2.0f : 1.0f, x_dot, into, in);
      g.x = s.xs_dot.data();
      g.b = spread.w + step.weight;
      g.accumulate = true;
      kernels_.gather_gemm(g);
    }
    if (spread.local) {
      kernels_.deviation_tangent(y_dot, s.t_dot.data(), s.inverse.data(), noise, vectors);
    } else {
      kernels_.multiply_add(y_dot, 1.0f, noise, s.t_dot.data(), vectors);
    }
  }

  /// The spread's gradient (or its tangent), and its part of the input's; before the mean's part is
  /// written to dx, `back` holds it.
  void split_backward(Step& step, int n, const Spread& spread, const float* x_dot, const float* dy,
                      const float* dy_dot, bool tangent, bool accumulate) {
    Step::Split& s = step.split;
    const Group& out = groups_[static_cast<std::size_t>(step.group_out)];
    const std::size_t floats = static_cast<std::size_t>(n) * out.geometry.row_floats();
    if (spread.local) {
      kernels_.deviation_backward(s.delta.data(), tangent ? s.delta_dot.data() : nullptr, dy,
                                  dy_dot, s.t_dot.data(), s.inverse.data(), s.noise_out.data(),
                                  floats / static_cast<std::size_t>(kernels_.lanes));
    } else {
      kernels_.product(s.delta.data(), 1.0f, dy, s.noise_out.data(), floats);
      if (tangent) kernels_.product(s.delta_dot.data(), 1.0f, dy_dot, s.noise_out.data(), floats);
    }
    product_gradient(step, n, s.xs.data(), tangent ? s.delta_dot.data() : s.delta.data(),
                     spread.gradient, accumulate);
    if (tangent && x_dot != nullptr) {
      product_gradient(step, n, s.xs_dot.data(), s.delta.data(), spread.gradient, true);
    }
    if (spread.local && step.has_bias) {
      kernels_.channel_sum(spread.gradient + step.bias,
                           tangent ? s.delta_dot.data() : s.delta.data(), out.pixel.data(),
                           n * out.geometry.pixels(), step.out_stride, accumulate);
    }
    if (step.value_in < 0) return;
    transpose_weights(step, spread.w, s.transposed);
    product_backward(step, n, s.delta.data(), s.transposed, s.back.data(), false);
    if (!tangent) return;
    transpose_weights(step, spread.w_dot, s.transposed_dot);
    product_backward(step, n, s.delta_dot.data(), s.transposed, s.back_dot.data(), false);
    product_backward(step, n, s.delta.data(), s.transposed_dot, s.back_dot.data(), true);
  }

  /// dx += dxs/dx * back, and its tangent.
  void split_input_gradient(const Step& step, int n, const Spread& spread, const float* x,
                            const float* x_dot, float* dx, float* dx_dot, bool tangent) {
    const Step::Split& s = step.split;
    const Geometry& g = groups_[static_cast<std::size_t>(step.group_in)].geometry;
    const std::size_t vectors =
        static_cast<std::size_t>(n) * g.row_floats() / static_cast<std::size_t>(kernels_.lanes);
    const float* const into = spread.local ? x : s.noise_in.data();
    const float factor = spread.local ? 2.0f : 1.0f;
    kernels_.multiply_add(dx, factor, into, s.back.data(), vectors);
    if (!tangent) return;
    kernels_.multiply_add(dx_dot, factor, into, s.back_dot.data(), vectors);
    if (spread.local) kernels_.multiply_add(dx_dot, factor, x_dot, s.back.data(), vectors);
  }

  // ---- passes ----

  void put_outputs(Set set, float* out) const {
    const int n = task_rows(set, 0);
    const int stride = groups_.back().geometry.stride;
    const float* z = values_[static_cast<std::size_t>(steps_.back().value_out)].data();
    for (int r = 0; r < rows(set); ++r) {
      for (int o = 0; o < network_outputs_; ++o) {
        *out++ = r < n ? z[static_cast<std::ptrdiff_t>(r) * stride + o] : 0.0f;
      }
    }
  }

  /// The gradient of a loss in the outputs, [rows, outputs], to where backward() takes it; padded
  /// channels are zero.
  void take_outputs(Set set, const float* in) {
    const int stride = groups_.back().geometry.stride;
    float* to = groups_.back().delta.data();
    for (int r = 0; r < task_rows(set, 0); ++r, in += network_outputs_, to += stride) {
      std::copy_n(in, network_outputs_, to);
      std::fill(to + network_outputs_, to + stride, 0.0f);
    }
  }

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
  void take_input(const Pass& pass) {
    dropping_ = static_cast<bool>(pass.dropout);
    if (!dropping_) return;
    const AlignedFloats& x = data_[static_cast<int>(pass.set)].x;
    if (dropped_.size() < x.size()) dropped_ = AlignedFloats(x.size());
    const Geometry& g = groups_.front().geometry;
    const auto n = static_cast<std::size_t>(task_rows(pass.set, 0));
    factors_.resize(n * static_cast<std::size_t>(network_->input().size()));
    dropout_factors(pass.dropout, global_first_, factors_);
    std::size_t e = 0;
    for (std::size_t row = 0; row < n; ++row) {
      for (int c = 0; c < g.channels; ++c) {
        for (int y = 0; y < g.height; ++y) {
          for (int i = 0; i < g.width; ++i, ++e) {
            const std::int32_t at = g.offset(static_cast<int>(row), y, i) + c;
            dropped_.data()[at] = x.data()[at] * factors_[e];
          }
        }
      }
    }
  }

  const float* value_of(int value, Set set) const {
    return value < 0 ? (dropping_ ? dropped_.data() : data_[static_cast<int>(set)].x.data())
                     : values_[static_cast<std::size_t>(value)].data();
  }
  const float* tangent_of(int value) const {
    return value < 0 ? nullptr : values_dot_[static_cast<std::size_t>(value)].data();
  }

  NormArgs norm_args(Step& step, int n, const float* w, const float* w_dot) {
    const Group& group = groups_[static_cast<std::size_t>(step.group_out)];
    NormArgs g{};
    g.channels = group.geometry.stride;
    g.pixels = n * group.geometry.pixels();
    g.offset = group.pixel.data();
    g.gamma = w + step.weight;
    g.beta = w + step.bias;
    if (w_dot != nullptr) {
      g.gamma_dot = w_dot + step.weight;
      g.beta_dot = w_dot + step.bias;
    }
    g.x_hat = step.x_hat.data();
    g.x_hat_dot = step.x_hat_dot.data();
    g.mean = step.mean.data();
    g.inverse = step.inverse.data();
    g.slope = step.slope.data();
    g.epsilon = static_cast<float>(norm_epsilon);
    return g;
  }

  void forward(Set set, const float* w, const float* w_dot, bool given_statistics,
               const Spread* spread = nullptr) {
    const int n = task_rows(set, 0);
    const bool tangent = w_dot != nullptr;
    for (Step& step : steps_) {
      const float* x = value_of(step.value_in, set);
      const float* x_dot = tangent_of(step.value_in);
      float* y = values_[static_cast<std::size_t>(step.value_out)].data();
      float* y_dot = values_dot_[static_cast<std::size_t>(step.value_out)].data();
      const Group& out = groups_[static_cast<std::size_t>(step.group_out)];
      const Geometry& go = out.geometry;
      switch (step.type) {
        case LayerType::conv:
        case LayerType::linear: {
          GatherGemm g;
          g.m = n * step.forward.m_per_row;
          g.n = step.out_stride;
          g.k = static_cast<int>(step.forward.index.size());
          g.x = x;
          g.m_offset = step.forward.m_offset.data();
          g.index = step.forward.index.data();
          g.b = w + step.weight;
          g.c = y;
          g.c_offset = step.forward.c_offset.data();
          g.init = step.has_bias ? w + step.bias : nullptr;
          kernels_.gather_gemm(g);
          if (tangent) {
            g.b = w_dot + step.weight;
            g.c = y_dot;
            g.init = step.has_bias ? w_dot + step.bias : nullptr;
            kernels_.gather_gemm(g);
            if (x_dot != nullptr) {
              g.x = x_dot;
              g.b = w + step.weight;
              g.accumulate = true;
              kernels_.gather_gemm(g);
            }
          }
          if (spread != nullptr) split_forward(step, g, n, *spread, x, x_dot, tangent);
          break;
        }
        case LayerType::norm: {
          NormArgs g = norm_args(step, n, w, w_dot);
          g.x = x;
          g.y = y;
          g.given = given_statistics;
          if (tangent) {
            if (x_dot == nullptr) {
              zero_.resize(values_dot_[static_cast<std::size_t>(step.value_out)].size(), 0.0f);
              x_dot = zero_.data();
            }
            g.x_dot = x_dot;
            g.y_dot = y_dot;
          }
          kernels_.norm_forward(g);
          break;
        }
        case LayerType::relu:
        case LayerType::tanh:
        case LayerType::leaky_relu:
          runs(go, n, [&](std::size_t at, std::size_t floats) {
            kernels_.act(step.activation, y + at, x + at, floats);
            if (!tangent) return;
            if (x_dot == nullptr) {
              std::fill_n(y_dot + at, floats, 0.0f);
            } else {
              kernels_.act_tangent(step.activation, y_dot + at, y + at, x_dot + at, floats);
            }
          });
          break;
        case LayerType::max_pool: {
          const int outputs = n * go.pixels();
          const int size = static_cast<int>(step.window.size());
          kernels_.pool_forward(y, step.winner.data(), x, out.pixel.data(), step.corner.data(),
                                step.window.data(), size, outputs, go.stride);
          if (!tangent) break;
          if (x_dot == nullptr) {
            std::fill_n(y_dot, static_cast<std::size_t>(n) * go.row_floats(), 0.0f);
          } else {
            kernels_.pool_gather(y_dot, step.winner.data(), x_dot, out.pixel.data(),
                                 step.corner.data(), step.window.data(), size, outputs, go.stride);
          }
          break;
        }
        case LayerType::mean:
          mean_forward(step, n, x, y);
          if (tangent) {
            if (x_dot == nullptr) {
              std::fill_n(y_dot, static_cast<std::size_t>(n) * go.row_floats(), 0.0f);
            } else {
              mean_forward(step, n, x_dot, y_dot);
            }
          }
          break;
        case LayerType::flatten:
          flatten(step, n, x, y);
          if (tangent) {
            if (x_dot == nullptr) {
              std::fill_n(y_dot, static_cast<std::size_t>(n) * go.row_floats(), 0.0f);
            } else {
              flatten(step, n, x_dot, y_dot);
            }
          }
          break;
      }
    }
  }

  void mean_forward(const Step& step, int n, const float* x, float* y) {
    const Group& in = groups_[static_cast<std::size_t>(step.group_in)];
    const Geometry& go = groups_[static_cast<std::size_t>(step.group_out)].geometry;
    const int pixels = in.geometry.pixels();
    const float scale = 1.0f / static_cast<float>(pixels);
    for (int r = 0; r < n; ++r) {
      float* row = y + static_cast<std::ptrdiff_t>(r) * go.stride;
      kernels_.channel_sum(row, x, in.pixel.data() + static_cast<std::ptrdiff_t>(r) * pixels,
                           pixels, in.geometry.stride, false);
      for (int c = 0; c < go.stride; ++c) row[c] *= scale;
    }
  }
  void mean_backward(const Step& step, int n, float* dx, const float* dy) {
    const Group& in = groups_[static_cast<std::size_t>(step.group_in)];
    const Geometry& go = groups_[static_cast<std::size_t>(step.group_out)].geometry;
    const int pixels = in.geometry.pixels();
    const float scale = 1.0f / static_cast<float>(pixels);
    for (int r = 0; r < n; ++r) {
      const float* row = dy + static_cast<std::ptrdiff_t>(r) * go.stride;
      for (int p = 0; p < pixels; ++p) {
        float* to = dx + in.pixel[static_cast<std::size_t>(r * pixels + p)];
        for (int c = 0; c < go.stride; ++c) to[c] = scale * row[c];
      }
    }
  }

  /// [pixel][channel] to the vector's channel-major order and back.
  void flatten(const Step& step, int n, const float* x, float* y) {
    const Group& in = groups_[static_cast<std::size_t>(step.group_in)];
    const Geometry& go = groups_[static_cast<std::size_t>(step.group_out)].geometry;
    const int pixels = in.geometry.pixels();
    for (int r = 0; r < n; ++r) {
      float* row = y + static_cast<std::ptrdiff_t>(r) * go.stride;
      for (int c = 0; c < in.geometry.channels; ++c) {
        for (int p = 0; p < pixels; ++p) {
          *row++ = x[in.pixel[static_cast<std::size_t>(r * pixels + p)] + c];
        }
      }
    }
  }
  void unflatten(const Step& step, int n, float* dx, const float* dy) {
    const Group& in = groups_[static_cast<std::size_t>(step.group_in)];
    const Geometry& go = groups_[static_cast<std::size_t>(step.group_out)].geometry;
    const int pixels = in.geometry.pixels();
    for (int r = 0; r < n; ++r) {
      const float* row = dy + static_cast<std::ptrdiff_t>(r) * go.stride;
      for (int c = 0; c < in.geometry.channels; ++c) {
        for (int p = 0; p < pixels; ++p) {
          dx[in.pixel[static_cast<std::size_t>(r * pixels + p)] + c] = *row++;
        }
      }
    }
  }

  void loss_and_delta(const Pass& pass, float* loss, bool delta, bool tangent) {
    Group& out = groups_.back();
    const std::size_t last = static_cast<std::size_t>(steps_.back().value_out);
    double total = 0.0;
    RowLoss g{};
    g.type = loss_type();
    g.outputs = network_outputs_;
    g.rows = task_rows(pass.set, 0);
    g.stride = out.geometry.stride;
    g.coefficient = loss_coefficient();
    g.constant = loss_constant();
    g.weight = factor(pass.scale, 0);
    g.z = values_[last].data();
    g.target = data_[static_cast<int>(pass.set)].target.data();
    g.loss = &total;
    if (delta) g.delta = out.delta.data();
    if (tangent) {
      g.z_dot = values_dot_[last].data();
      g.delta_dot = out.delta_dot.data();
    }
    kernels_.row_loss(g);
    if (loss != nullptr) loss[0] += static_cast<float>(total);
  }

  void transpose_weights(const Step& step, const float* w, AlignedFloats& to) {
    for (int tap = 0; tap < step.taps; ++tap) {
      kernels_.transpose(
          to.data() + static_cast<std::ptrdiff_t>(tap) * step.out * step.in_stride, step.in_stride,
          w + step.weight + static_cast<std::ptrdiff_t>(tap) * step.in * step.out_stride,
          step.out_stride, step.in, step.out);
    }
  }

  /// dx (+)= the transposed product of dy.
  void product_backward(const Step& step, int n, const float* dy, const AlignedFloats& transposed,
                        float* dx, bool accumulate) {
    for (const Product& product : step.backward) {
      GatherGemm g;
      g.m = n * product.m_per_row;
      g.n = step.in_stride;
      g.k = static_cast<int>(product.index.size());
      g.x = dy;
      g.m_offset = product.m_offset.data();
      g.index = product.index.data();
      g.b = transposed.data();
      g.c = dx;
      g.c_offset = product.c_offset.data();
      g.accumulate = accumulate;
      kernels_.gather_gemm(g);
    }
  }

  void product_gradient(const Step& step, int n, const float* x, const float* dy, float* dw,
                        bool accumulate) {
    GatherGemm g;
    g.m = static_cast<int>(step.gradient_m.size());
    g.n = step.out_stride;
    g.k = n * step.forward.m_per_row;
    g.x = x;
    g.m_offset = step.gradient_m.data();
    g.index = step.gradient_index.data();
    g.b = dy;
    g.c = dw + step.weight;
    g.c_offset = step.gradient_c.data();
    g.accumulate = accumulate;
    kernels_.gather_gemm(g);
  }

  /// From delta at the output. Plain: grad. With w_dot: hv, and grad where wanted (overwritten).
  void backward(Set set, const float* w, const float* w_dot, float* grad, float* hv,
                bool accumulate, const Spread* spread = nullptr) {
    const int n = task_rows(set, 0);
    const bool tangent = w_dot != nullptr;
    const bool grad_accumulate = accumulate && !tangent;
    for (std::size_t i = steps_.size(); i-- > 0;) {
      Step& step = steps_[i];
      Group& in = groups_[static_cast<std::size_t>(step.group_in)];
      Group& out = groups_[static_cast<std::size_t>(step.group_out)];
      const float* x = value_of(step.value_in, set);
      const float* x_dot = tangent ? tangent_of(step.value_in) : nullptr;
      const float* y = values_[static_cast<std::size_t>(step.value_out)].data();
      const float* y_dot = values_dot_[static_cast<std::size_t>(step.value_out)].data();
      float* dy = out.delta.data();
      float* dy_dot = out.delta_dot.data();
      float* dx = in.delta.data();
      float* dx_dot = in.delta_dot.data();
      const bool wanted = step.value_in >= 0;  // the data want no gradient
      switch (step.type) {
        case LayerType::conv:
        case LayerType::linear: {
          const int pixels = n * out.geometry.pixels();
          if (grad != nullptr) {
            product_gradient(step, n, x, dy, grad, grad_accumulate);
            if (step.has_bias)
              kernels_.channel_sum(grad + step.bias, dy, out.pixel.data(), pixels, step.out_stride,
                                   grad_accumulate);
          }
          if (tangent) {
            product_gradient(step, n, x, dy_dot, hv, accumulate);
            if (x_dot != nullptr) product_gradient(step, n, x_dot, dy, hv, true);
            if (step.has_bias)
              kernels_.channel_sum(hv + step.bias, dy_dot, out.pixel.data(), pixels,
                                   step.out_stride, accumulate);
          }
          if (spread != nullptr) {
            split_backward(step, n, *spread, x_dot, dy, dy_dot, tangent, accumulate);
            // a drawn bias has the same gradient in both
            const float* const of_mean = tangent ? hv : grad;
            if (!spread->local && step.has_bias) {
              std::copy_n(of_mean + step.bias, step.out_stride, spread->gradient + step.bias);
            }
          }
          if (!wanted) break;
          transpose_weights(step, w, step.transposed);
          if (tangent) {
            transpose_weights(step, w_dot, step.transposed_dot);
            product_backward(step, n, dy_dot, step.transposed, dx_dot, false);
            product_backward(step, n, dy, step.transposed_dot, dx_dot, true);
          }
          product_backward(step, n, dy, step.transposed, dx, false);
          if (spread != nullptr) {
            split_input_gradient(step, n, *spread, x, x_dot, dx, dx_dot, tangent);
          }
          break;
        }
        case LayerType::norm: {
          NormArgs g = norm_args(step, n, w, w_dot);
          g.dy = dy;
          g.dx = dx;
          if (tangent) {
            if (grad != nullptr) {
              g.dx = nullptr;
              g.d_gamma = grad + step.weight;
              g.d_beta = grad + step.bias;
              kernels_.norm_backward(g);
              g.dx = dx;
            }
            g.dy_dot = dy_dot;
            g.dx_dot = dx_dot;
            g.d_gamma = hv + step.weight;
            g.d_beta = hv + step.bias;
            g.accumulate = accumulate;
            kernels_.norm_backward_tangent(g);
          } else {
            g.d_gamma = grad + step.weight;
            g.d_beta = grad + step.bias;
            g.accumulate = accumulate;
            kernels_.norm_backward(g);
          }
          if (spread != nullptr) {
            const float* const of_mean = tangent ? hv : grad;
            std::copy_n(of_mean + step.weight, g.channels, spread->gradient + step.weight);
            std::copy_n(of_mean + step.bias, g.channels, spread->gradient + step.bias);
          }
          break;
        }
        case LayerType::relu:
        case LayerType::tanh:
        case LayerType::leaky_relu:
          runs(out.geometry, n, [&](std::size_t at, std::size_t floats) {
            if (tangent) {
              kernels_.act_backward_tangent(step.activation, dx_dot + at, y + at, y_dot + at,
                                            dy + at, dy_dot + at, floats);
            }
            kernels_.act_backward(step.activation, dx + at, y + at, dy + at, floats);
          });
          break;
        case LayerType::max_pool:
          if (!wanted) break;
          pool_backward(step, in, out, n, dx, dy);
          if (tangent) pool_backward(step, in, out, n, dx_dot, dy_dot);
          break;
        case LayerType::mean:
          if (!wanted) break;
          mean_backward(step, n, dx, dy);
          if (tangent) mean_backward(step, n, dx_dot, dy_dot);
          break;
        case LayerType::flatten:
          if (!wanted) break;
          unflatten(step, n, dx, dy);
          if (tangent) unflatten(step, n, dx_dot, dy_dot);
          break;
      }
    }
  }

  void pool_backward(Step& step, const Group& in, const Group& out, int n, float* dx,
                     const float* dy) {
    // what fills no window gets zero
    std::fill_n(dx, static_cast<std::size_t>(n) * in.geometry.row_floats(), 0.0f);
    kernels_.pool_scatter(dx, step.winner.data(), dy, out.pixel.data(), step.corner.data(),
                          step.window.data(), static_cast<int>(step.window.size()),
                          n * out.geometry.pixels(), out.geometry.stride);
  }

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

}  // namespace

std::unique_ptr<Wave> make_single_wave(const Kernels& kernels,
                                       std::shared_ptr<const Network> network, const Loss& loss,
                                       const WaveShape& shape) {
  return std::make_unique<SingleWave>(kernels, std::move(network), loss, shape);
}

}  // namespace kshot::backend::cpu
