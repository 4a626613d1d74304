// The plan of a single wave for its network: the positions of weights and activations, and the
// offset tables of its products.
#include <algorithm>
#include <limits>
#include <utility>

#include "backend/cpu/activation_of.h"
#include "backend/cpu/single_wave.h"
#include "kshot/error.h"

namespace kshot::backend::cpu {

void SingleWave::plan_weights() {
  place_.resize(network_->size());
  const auto& parameters = network_->parameters();
  tensor_offset_.resize(parameters.size());
  std::size_t next = 0;
  for (std::size_t t = 0; t < parameters.size(); ++t) {
    const ParameterTensor& p = parameters[t];
    tensor_offset_[t] = next;
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

void SingleWave::plan_groups() {
  const FeatureShape& input = network_->input();
  Group first;
  first.geometry = {input.channels, input.channels, input.height, input.width, 0};
  // A product reads the data's channels one by one. Other layers read whole vectors of channels,
  // and need padding.
  if (element_wise(network_->layers().front().type) ||
      network_->layers().front().type == LayerType::max_pool ||
      network_->layers().front().type == LayerType::mean) {
    first.geometry.stride = pad(input.channels);
  }
  groups_.push_back(std::move(first));
  for (const Layer& layer : network_->layers()) {
    Geometry& in = groups_.back().geometry;
    if (layer.type == LayerType::conv) in.border = std::max(in.border, layer.padding);
    if (keeps_geometry(layer)) continue;
    Group next;
    next.geometry = {layer.out.channels, pad(layer.out.channels), layer.out.height, layer.out.width,
                     0};
    if (layer.type == LayerType::conv) {
      // The transposed convolution reads deltas this far outside of the image.
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

int SingleWave::new_value(int group) {
  values_.emplace_back(static_cast<std::size_t>(max_rows_) *
                       groups_[static_cast<std::size_t>(group)].geometry.row_floats());
  values_dot_.emplace_back(values_.back().size());
  return static_cast<int>(values_.size()) - 1;
}

void SingleWave::plan_steps() {
  int group = 0;
  int value = -1;      // index of the current value; -1 is the data
  bool needed = true;  // a backward pass reads this value, so it must not be overwritten
  for (const Layer& layer : network_->layers()) {
    if (layer.type == LayerType::flatten && !layer.in.spatial) continue;
    Step step;
    step.type = layer.type;
    step.group_in = group;
    step.value_in = value;
    if (!keeps_geometry(layer)) ++group;
    step.group_out = group;
    Group& in = groups_[static_cast<std::size_t>(step.group_in)];
    Group& out = groups_[static_cast<std::size_t>(step.group_out)];
    if (layer.weight >= 0) {
      step.weight = tensor_offset_[static_cast<std::size_t>(layer.weight)];
      step.has_bias = layer.bias >= 0;
      if (step.has_bias) step.bias = tensor_offset_[static_cast<std::size_t>(layer.bias)];
    }
    const bool in_place = keeps_geometry(layer) && !needed;
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
      case LayerType::tanh:
      case LayerType::leaky_relu:
        step.activation = activation_of(layer.type);
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
    if (g == 0 && !element_wise(network_->layers().front().type)) continue;  // never used
    groups_[g].delta = AlignedFloats(floats);
    groups_[g].delta_dot = AlignedFloats(floats);
  }
}

void SingleWave::plan_product(const Layer& layer, Step& step, const Group& in, const Group& out) {
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
  if (step.value_in < 0) return;  // the data need no gradient

  const auto transposed = static_cast<std::size_t>(step.taps) * static_cast<std::size_t>(step.out) *
                          static_cast<std::size_t>(gi.stride);
  step.transposed = AlignedFloats(transposed);
  step.transposed_dot = AlignedFloats(transposed);
  // Input pixels are grouped by phase of the stride. All pixels of a phase see the same taps.
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

void SingleWave::plan_pool(const Layer& layer, Step& step, const Group& in, const Group& out) {
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

}  // namespace kshot::backend::cpu
