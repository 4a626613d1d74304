#include "backend/cpu/shared_network.h"

#include <algorithm>
#include <utility>

#include "backend/cpu/activation_of.h"

namespace kshot::backend::cpu {
namespace {

/// The left operand is cut into parts that stay in the second-level cache while the right operand
/// passes: bytes of a part, and the least number of rows. With fewer rows, copying the right
/// operand would cost too much.
constexpr int part_bytes = 256 << 10, least_part = 48;

}  // namespace

const std::int32_t* Products::offsets(std::size_t stride, int count) {
  std::vector<std::int32_t>& table = offsets_[stride];
  while (table.size() < static_cast<std::size_t>(count)) {
    table.push_back(static_cast<std::int32_t>(table.size() * stride));
  }
  return table.data();
}

void Products::multiply(int m, int n, int k, const float* a, std::size_t a_row, std::size_t a_col,
                        const float* b, std::size_t b_row, float* c, std::size_t c_row,
                        bool accumulate) {
  std::vector<GatherIndex>& index = index_[{a_col, b_row}];
  while (index.size() < static_cast<std::size_t>(k)) {
    index.push_back({static_cast<std::int32_t>(index.size() * a_col),
                     static_cast<std::int32_t>(index.size() * b_row)});
  }
  multiply(m, n, std::span(index).first(static_cast<std::size_t>(k)), a, a_row, b, c, c_row,
           accumulate);
}

void Products::multiply(int m, int n, std::span<const GatherIndex> terms, const float* a,
                        std::size_t a_row, const float* b, float* c, std::size_t c_row,
                        bool accumulate) {
  GatherGemm g;
  g.n = n;
  g.k = static_cast<int>(terms.size());
  g.index = terms.data();
  g.x = a;
  g.b = b;
  g.c = c;
  g.accumulate = accumulate;
  const std::int32_t* const from = offsets(a_row, m);
  const std::int32_t* const to = offsets(c_row, m);
  const int row_bytes = std::max(g.k, 1) * static_cast<int>(sizeof(float));
  const int most = std::max(least_part, part_bytes / row_bytes);
  const int parts = (m + most - 1) / most;
  for (int first = 0, p = 0; p < parts; ++p, first += g.m) {
    g.m = (m - first + parts - p - 1) / (parts - p);
    g.m_offset = from + first;
    g.c_offset = to + first;
    kernels_.gather_gemm(g);
  }
}

void Products::sum_rows(int m, int n, const float* x, std::size_t row, float* to) {
  kernels_.channel_sum(to, x, offsets(row, m), m, n, false);
}

SharedNetwork::SharedNetwork(Products& products, std::shared_ptr<const Network> network, int rows)
    : products_(products), network_(std::move(network)) {
  const auto floats = [rows](int stride) {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(stride);
  };
  std::size_t largest = 0;
  for (const kshot::Layer& from : network_->layers()) {
    if (from.type == LayerType::flatten) continue;  // rows are already flat
    Layer layer;
    layer.in = from.in.size();
    layer.out = from.out.size();
    layer.in_stride = products_.pad(layer.in);
    layer.out_stride = products_.pad(layer.out);
    layer.linear = from.type == LayerType::linear;
    if (layer.linear) {
      const auto offset = [&](int tensor) {
        return network_->parameters()[static_cast<std::size_t>(tensor)].offset;
      };
      layer.weight = offset(from.weight);
      layer.has_bias = from.bias >= 0;
      if (layer.has_bias) layer.bias = offset(from.bias);
      const auto in = static_cast<std::size_t>(layer.in);
      const auto out = static_cast<std::size_t>(layer.out);
      layer.packed = AlignedFloats(in * static_cast<std::size_t>(layer.out_stride));
      layer.transposed = AlignedFloats(out * static_cast<std::size_t>(layer.in_stride));
      layer.bias_row = AlignedFloats(static_cast<std::size_t>(layer.out_stride));
      largest = std::max(largest, layer.transposed.size());
    } else {
      layer.activation = activation_of(from.type);
    }
    for (AlignedFloats* a : {&layer.y, &layer.y_dot}) *a = AlignedFloats(floats(layer.out_stride));
    for (AlignedFloats* a : {&layer.g, &layer.g_dot}) *a = AlignedFloats(floats(layer.in_stride));
    layers_.push_back(std::move(layer));
  }
  scratch_ = AlignedFloats(largest);
}

void SharedNetwork::pack(const float* weights) {
  const Kernels& kernels = products_.kernels();
  for (Layer& layer : layers_) {
    if (!layer.linear) continue;
    const float* w = weights + layer.weight;
    kernels.transpose(layer.packed.data(), layer.out_stride, w, layer.in, layer.out, layer.in);
    for (int o = 0; o < layer.out; ++o) {
      std::copy_n(w + static_cast<std::ptrdiff_t>(o) * layer.in, layer.in,
                  layer.transposed.data() + static_cast<std::ptrdiff_t>(o) * layer.in_stride);
    }
    if (layer.has_bias) std::copy_n(weights + layer.bias, layer.out, layer.bias_row.data());
  }
}

void SharedNetwork::share_weights(const SharedNetwork& other) {
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    layers_[i].packed = other.layers_[i].packed;
    layers_[i].transposed = other.layers_[i].transposed;
    layers_[i].bias_row = other.layers_[i].bias_row;
  }
}

const float* SharedNetwork::forward(const float* x, int rows) {
  rows_ = rows;
  const auto n = static_cast<std::size_t>(rows);
  for (Layer& layer : layers_) {
    layer.x = x;
    const auto out = static_cast<std::size_t>(layer.out_stride);
    if (layer.linear) {
      if (layer.has_bias) {
        for (std::size_t r = 0; r < n; ++r) {
          std::copy_n(layer.bias_row.data(), out, layer.y.data() + r * out);
        }
      }
      products_.multiply(rows, layer.out_stride, layer.in, x,
                         static_cast<std::size_t>(layer.in_stride), 1, layer.packed.data(), out,
                         layer.y.data(), out, layer.has_bias);
    } else {
      products_.kernels().act(layer.activation, layer.y.data(), x, n * out);
    }
    x = layer.y.data();
  }
  return x;
}

const float* SharedNetwork::tangent(const float* x_dot) {
  const auto n = static_cast<std::size_t>(rows_);
  for (Layer& layer : layers_) {
    layer.x_dot = x_dot;
    const auto out = static_cast<std::size_t>(layer.out_stride);
    if (layer.linear) {
      products_.multiply(rows_, layer.out_stride, layer.in, x_dot,
                         static_cast<std::size_t>(layer.in_stride), 1, layer.packed.data(), out,
                         layer.y_dot.data(), out, false);
    } else {
      products_.kernels().act_tangent(layer.activation, layer.y_dot.data(), layer.y.data(), x_dot,
                                      n * out);
    }
    x_dot = layer.y_dot.data();
  }
  return x_dot;
}

const float* SharedNetwork::backward(const float* g, bool inputs) {
  const auto n = static_cast<std::size_t>(rows_);
  for (std::size_t i = layers_.size(); i-- > 0;) {
    Layer& layer = layers_[i];
    layer.g_out = g;
    if (i == 0 && !inputs) return nullptr;
    const auto in = static_cast<std::size_t>(layer.in_stride);
    if (layer.linear) {
      products_.multiply(rows_, layer.in_stride, layer.out, g,
                         static_cast<std::size_t>(layer.out_stride), 1, layer.transposed.data(), in,
                         layer.g.data(), in, false);
    } else {
      products_.kernels().act_backward(layer.activation, layer.g.data(), layer.y.data(), g, n * in);
    }
    g = layer.g.data();
  }
  return g;
}

const float* SharedNetwork::backward_tangent(const float* g_dot) {
  const auto n = static_cast<std::size_t>(rows_);
  for (std::size_t i = layers_.size(); i-- > 0;) {
    Layer& layer = layers_[i];
    layer.g_out_dot = g_dot;
    const auto in = static_cast<std::size_t>(layer.in_stride);
    if (layer.linear) {
      products_.multiply(rows_, layer.in_stride, layer.out, g_dot,
                         static_cast<std::size_t>(layer.out_stride), 1, layer.transposed.data(), in,
                         layer.g_dot.data(), in, false);
    } else {
      products_.kernels().act_backward_tangent(layer.activation, layer.g_dot.data(), layer.y.data(),
                                               layer.y_dot.data(), layer.g_out, g_dot, n * in);
    }
    g_dot = layer.g_dot.data();
  }
  return g_dot;
}

/// to [out, in] += a times the sum over `terms` of g^T x, for rows [first, first + rows) of each
/// term.
void SharedNetwork::outer(const Layer& layer, std::span<const Term> terms, float* to, float a,
                          int first, int rows) {
  const auto in = static_cast<std::size_t>(layer.in_stride);
  const auto out = static_cast<std::size_t>(layer.out_stride);
  const auto at = static_cast<std::size_t>(first);
  const auto n = static_cast<std::size_t>(rows);
  const float* g = terms[0].g + at * out;
  const float* x = terms[0].x + at * in;
  if (terms.size() > 1 || a != 1.0f) {
    // Stacked, the terms are one product.
    g_rows_.resize(terms.size() * n * out);
    x_rows_.resize(terms.size() * n * in);
    for (std::size_t t = 0; t < terms.size(); ++t) {
      std::transform(terms[t].g + at * out, terms[t].g + (at + n) * out,
                     g_rows_.data() + t * n * out, [a](float v) { return a * v; });
      std::copy_n(terms[t].x + at * in, n * in, x_rows_.data() + t * n * in);
    }
    g = g_rows_.data();
    x = x_rows_.data();
  }
  const int k = static_cast<int>(terms.size()) * rows;
  if (layer.in == layer.in_stride) {
    products_.multiply(layer.out, layer.in, k, g, 1, out, x, in, to, in, true);
    return;
  }
  products_.multiply(layer.out, layer.in_stride, k, g, 1, out, x, in, scratch_.data(), in, false);
  for (std::size_t o = 0; o < static_cast<std::size_t>(layer.out); ++o) {
    const float* from = scratch_.data() + o * in;
    float* row = to + o * static_cast<std::size_t>(layer.in);
    for (std::size_t i = 0; i < static_cast<std::size_t>(layer.in); ++i) row[i] += from[i];
  }
}

void SharedNetwork::add_bias(const Layer& layer, const float* g, float* to, float a, int first,
                             int rows) {
  const auto out = static_cast<std::size_t>(layer.out_stride);
  bias_.resize(out);
  products_.sum_rows(rows, layer.out_stride, g + static_cast<std::size_t>(first) * out, out,
                     bias_.data());
  for (std::size_t o = 0; o < static_cast<std::size_t>(layer.out); ++o) to[o] += a * bias_[o];
}

void SharedNetwork::add_gradient(float* flat, int first, int rows) {
  for (const Layer& layer : layers_) {
    if (!layer.linear) continue;
    const Term term[] = {{layer.g_out, layer.x}};
    outer(layer, term, flat + layer.weight, 1.0f, first, rows);
    if (layer.has_bias) add_bias(layer, layer.g_out, flat + layer.bias, 1.0f, first, rows);
  }
}

void SharedNetwork::add_gradient_tangent(float* flat, double a, int first, int rows) {
  const auto factor = static_cast<float>(a);
  for (const Layer& layer : layers_) {
    if (!layer.linear) continue;
    const Term terms[] = {{layer.g_out_dot, layer.x}, {layer.g_out, layer.x_dot}};
    outer(layer, terms, flat + layer.weight, factor, first, rows);
    if (layer.has_bias) add_bias(layer, layer.g_out_dot, flat + layer.bias, factor, first, rows);
  }
}

}  // namespace kshot::backend::cpu
