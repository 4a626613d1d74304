// Forward and backward passes of a single wave, layer by layer, and the loss between them.
#include <algorithm>

#include "backend/cpu/single_wave.h"

namespace kshot::backend::cpu {

void SingleWave::put_outputs(Set set, float* out) const {
  const int n = task_rows(set, 0);
  const int stride = groups_.back().geometry.stride;
  const float* z = values_[static_cast<std::size_t>(steps_.back().value_out)].data();
  for (int r = 0; r < rows(set); ++r) {
    for (int o = 0; o < network_outputs_; ++o) {
      *out++ = r < n ? z[static_cast<std::ptrdiff_t>(r) * stride + o] : 0.0f;
    }
  }
}

void SingleWave::take_outputs(Set set, const float* in) {
  const int stride = groups_.back().geometry.stride;
  float* to = groups_.back().delta.data();
  for (int r = 0; r < task_rows(set, 0); ++r, in += network_outputs_, to += stride) {
    std::copy_n(in, network_outputs_, to);
    std::fill(to + network_outputs_, to + stride, 0.0f);
  }
}

void SingleWave::take_input(const Pass& pass) {
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

NormArgs SingleWave::norm_args(Step& step, int n, const float* w, const float* w_dot) {
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

void SingleWave::forward(Set set, const float* w, const float* w_dot, bool given_statistics,
                         const Spread* spread) {
  const Forward pass{task_rows(set, 0), w, w_dot, given_statistics, spread};
  for (Step& step : steps_) {
    const Values v{value_of(step.value_in, set), tangent_of(step.value_in),
                   values_[static_cast<std::size_t>(step.value_out)].data(),
                   values_dot_[static_cast<std::size_t>(step.value_out)].data()};
    switch (step.type) {
      case LayerType::conv:
      case LayerType::linear:
        product_forward(step, pass, v);
        break;
      case LayerType::norm:
        norm_forward(step, pass, v);
        break;
      case LayerType::relu:
      case LayerType::tanh:
      case LayerType::leaky_relu:
        activation_forward(step, pass, v);
        break;
      case LayerType::max_pool:
      case LayerType::mean:
      case LayerType::flatten:
        fixed_forward(step, pass, v);
        break;
    }
  }
}

void SingleWave::product_forward(Step& step, const Forward& pass, const Values& v) {
  GatherGemm g;
  g.m = pass.n * step.forward.m_per_row;
  g.n = step.out_stride;
  g.k = static_cast<int>(step.forward.index.size());
  g.x = v.x;
  g.m_offset = step.forward.m_offset.data();
  g.index = step.forward.index.data();
  g.b = pass.w + step.weight;
  g.c = v.y;
  g.c_offset = step.forward.c_offset.data();
  g.init = step.has_bias ? pass.w + step.bias : nullptr;
  kernels_.gather_gemm(g);
  const bool tangent = pass.w_dot != nullptr;
  if (tangent) {
    g.b = pass.w_dot + step.weight;
    g.c = v.y_dot;
    g.init = step.has_bias ? pass.w_dot + step.bias : nullptr;
    kernels_.gather_gemm(g);
    if (v.x_dot != nullptr) {
      g.x = v.x_dot;
      g.b = pass.w + step.weight;
      g.accumulate = true;
      kernels_.gather_gemm(g);
    }
  }
  if (pass.spread != nullptr) {
    split_forward(step, g, pass.n, *pass.spread, v.x, v.x_dot, tangent);
  }
}

void SingleWave::norm_forward(Step& step, const Forward& pass, const Values& v) {
  NormArgs g = norm_args(step, pass.n, pass.w, pass.w_dot);
  g.x = v.x;
  g.y = v.y;
  g.given = pass.given_statistics;
  if (pass.w_dot != nullptr) {
    g.x_dot = v.x_dot;
    if (v.x_dot == nullptr) {
      zero_.resize(values_dot_[static_cast<std::size_t>(step.value_out)].size(), 0.0f);
      g.x_dot = zero_.data();
    }
    g.y_dot = v.y_dot;
  }
  kernels_.norm_forward(g);
}

void SingleWave::activation_forward(const Step& step, const Forward& pass, const Values& v) {
  const Geometry& geometry = groups_[static_cast<std::size_t>(step.group_out)].geometry;
  runs(geometry, pass.n, [&](std::size_t at, std::size_t floats) {
    kernels_.act(step.activation, v.y + at, v.x + at, floats);
    if (pass.w_dot == nullptr) return;
    if (v.x_dot == nullptr) {
      std::fill_n(v.y_dot + at, floats, 0.0f);
    } else {
      kernels_.act_tangent(step.activation, v.y_dot + at, v.y + at, v.x_dot + at, floats);
    }
  });
}

void SingleWave::fixed_forward(Step& step, const Forward& pass, const Values& v) {
  const Group& out = groups_[static_cast<std::size_t>(step.group_out)];
  const auto pool = [&](const float* x, float* y, bool chooses) {
    const int outputs = pass.n * out.geometry.pixels();
    const int size = static_cast<int>(step.window.size());
    if (chooses) {
      kernels_.pool_forward(y, step.winner.data(), x, out.pixel.data(), step.corner.data(),
                            step.window.data(), size, outputs, out.geometry.stride);
    } else {
      kernels_.pool_gather(y, step.winner.data(), x, out.pixel.data(), step.corner.data(),
                           step.window.data(), size, outputs, out.geometry.stride);
    }
  };
  const auto apply = [&](const float* x, float* y, bool chooses) {
    if (step.type == LayerType::max_pool) {
      pool(x, y, chooses);
    } else if (step.type == LayerType::mean) {
      mean_forward(step, pass.n, x, y);
    } else {
      flatten(step, pass.n, x, y);
    }
  };
  apply(v.x, v.y, true);
  if (pass.w_dot == nullptr) return;
  if (v.x_dot == nullptr) {
    std::fill_n(v.y_dot, static_cast<std::size_t>(pass.n) * out.geometry.row_floats(), 0.0f);
  } else {
    apply(v.x_dot, v.y_dot, false);
  }
}

void SingleWave::mean_forward(const Step& step, int n, const float* x, float* y) {
  const Group& in = groups_[static_cast<std::size_t>(step.group_in)];
  const Geometry& go = groups_[static_cast<std::size_t>(step.group_out)].geometry;
  const int pixels = in.geometry.pixels();
  const float scale = 1.0f / static_cast<float>(pixels);
  for (int r = 0; r < n; ++r) {
    float* row = y + static_cast<std::ptrdiff_t>(r) * go.stride;
    kernels_.channel_sum(row, x, in.pixel.data() + static_cast<std::ptrdiff_t>(r) * pixels, pixels,
                         in.geometry.stride, false);
    for (int c = 0; c < go.stride; ++c) row[c] *= scale;
  }
}

void SingleWave::mean_backward(const Step& step, int n, float* dx, const float* dy) {
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

void SingleWave::flatten(const Step& step, int n, const float* x, float* y) {
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

void SingleWave::unflatten(const Step& step, int n, float* dx, const float* dy) {
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

void SingleWave::loss_and_delta(const Pass& pass, float* loss, bool delta, bool tangent) {
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

void SingleWave::transpose_weights(const Step& step, const float* w, AlignedFloats& to) {
  for (int tap = 0; tap < step.taps; ++tap) {
    kernels_.transpose(
        to.data() + static_cast<std::ptrdiff_t>(tap) * step.out * step.in_stride, step.in_stride,
        w + step.weight + static_cast<std::ptrdiff_t>(tap) * step.in * step.out_stride,
        step.out_stride, step.in, step.out);
  }
}

void SingleWave::input_gradient(const Step& step, int n, const float* dy,
                                const AlignedFloats& transposed, float* dx, bool accumulate) {
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

void SingleWave::product_gradient(const Step& step, int n, const float* x, const float* dy,
                                  float* dw, bool accumulate) {
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

void SingleWave::channel_gradient(const Step& step, int n, const float* dy, float* dw,
                                  bool accumulate) {
  if (!step.has_bias) return;
  const Group& out = groups_[static_cast<std::size_t>(step.group_out)];
  kernels_.channel_sum(dw + step.bias, dy, out.pixel.data(), n * out.geometry.pixels(),
                       step.out_stride, accumulate);
}

void SingleWave::backward(Set set, const float* w, const float* w_dot, float* grad, float* hv,
                          bool accumulate, const Spread* spread) {
  const Backward pass{task_rows(set, 0), w, w_dot, grad, hv, accumulate, spread};
  for (std::size_t i = steps_.size(); i-- > 0;) {
    Step& step = steps_[i];
    Group& in = groups_[static_cast<std::size_t>(step.group_in)];
    Group& out = groups_[static_cast<std::size_t>(step.group_out)];
    const Deltas d{value_of(step.value_in, set),
                   pass.tangent() ? tangent_of(step.value_in) : nullptr,
                   values_[static_cast<std::size_t>(step.value_out)].data(),
                   values_dot_[static_cast<std::size_t>(step.value_out)].data(),
                   out.delta.data(),
                   out.delta_dot.data(),
                   in.delta.data(),
                   in.delta_dot.data()};
    switch (step.type) {
      case LayerType::conv:
      case LayerType::linear:
        product_backward(step, pass, d);
        break;
      case LayerType::norm:
        norm_backward(step, pass, d);
        break;
      case LayerType::relu:
      case LayerType::tanh:
      case LayerType::leaky_relu:
        activation_backward(step, pass, d);
        break;
      case LayerType::max_pool:
      case LayerType::mean:
      case LayerType::flatten:
        if (step.value_in < 0) break;  // the data need no gradient
        fixed_backward(step, pass.n, d.dy, d.dx);
        if (pass.tangent()) fixed_backward(step, pass.n, d.dy_dot, d.dx_dot);
        break;
    }
  }
}

void SingleWave::product_backward(Step& step, const Backward& pass, const Deltas& d) {
  const bool tangent = pass.tangent();
  if (pass.grad != nullptr) {
    product_gradient(step, pass.n, d.x, d.dy, pass.grad, pass.grad_accumulates());
    channel_gradient(step, pass.n, d.dy, pass.grad, pass.grad_accumulates());
  }
  if (tangent) {
    product_gradient(step, pass.n, d.x, d.dy_dot, pass.hv, pass.accumulate);
    if (d.x_dot != nullptr) product_gradient(step, pass.n, d.x_dot, d.dy, pass.hv, true);
    channel_gradient(step, pass.n, d.dy_dot, pass.hv, pass.accumulate);
  }
  const Spread* const spread = pass.spread;
  if (spread != nullptr) {
    split_backward(step, pass.n, *spread, d.x_dot, d.dy, d.dy_dot, tangent, pass.accumulate);
    // A bias that is drawn has the same gradient in both vectors.
    if (!spread->local && step.has_bias) {
      std::copy_n(pass.of_mean() + step.bias, step.out_stride, spread->gradient + step.bias);
    }
  }
  if (step.value_in < 0) return;  // the data need no gradient
  transpose_weights(step, pass.w, step.transposed);
  if (tangent) {
    transpose_weights(step, pass.w_dot, step.transposed_dot);
    input_gradient(step, pass.n, d.dy_dot, step.transposed, d.dx_dot, false);
    input_gradient(step, pass.n, d.dy, step.transposed_dot, d.dx_dot, true);
  }
  input_gradient(step, pass.n, d.dy, step.transposed, d.dx, false);
  if (spread != nullptr) {
    split_input_gradient(step, pass.n, *spread, d.x, d.x_dot, d.dx, d.dx_dot, tangent);
  }
}

void SingleWave::norm_backward(Step& step, const Backward& pass, const Deltas& d) {
  NormArgs g = norm_args(step, pass.n, pass.w, pass.w_dot);
  g.dy = d.dy;
  const auto into = [&](float* to) {
    g.d_gamma = to + step.weight;
    g.d_beta = to + step.bias;
  };
  if (!pass.tangent()) {
    g.dx = d.dx;
    into(pass.grad);
    g.accumulate = pass.accumulate;
    kernels_.norm_backward(g);
  } else {
    if (pass.grad != nullptr) {
      into(pass.grad);
      kernels_.norm_backward(g);
    }
    g.dx = d.dx;
    g.dy_dot = d.dy_dot;
    g.dx_dot = d.dx_dot;
    into(pass.hv);
    g.accumulate = pass.accumulate;
    kernels_.norm_backward_tangent(g);
  }
  if (pass.spread == nullptr) return;
  float* const of_spread = pass.spread->gradient;
  std::copy_n(pass.of_mean() + step.weight, g.channels, of_spread + step.weight);
  std::copy_n(pass.of_mean() + step.bias, g.channels, of_spread + step.bias);
}

void SingleWave::activation_backward(const Step& step, const Backward& pass, const Deltas& d) {
  const Geometry& geometry = groups_[static_cast<std::size_t>(step.group_out)].geometry;
  runs(geometry, pass.n, [&](std::size_t at, std::size_t floats) {
    if (pass.tangent()) {
      kernels_.act_backward_tangent(step.activation, d.dx_dot + at, d.y + at, d.y_dot + at,
                                    d.dy + at, d.dy_dot + at, floats);
    }
    kernels_.act_backward(step.activation, d.dx + at, d.y + at, d.dy + at, floats);
  });
}

void SingleWave::fixed_backward(Step& step, int n, const float* dy, float* dx) {
  if (step.type == LayerType::mean) return mean_backward(step, n, dx, dy);
  if (step.type == LayerType::flatten) return unflatten(step, n, dx, dy);
  const Group& in = groups_[static_cast<std::size_t>(step.group_in)];
  const Group& out = groups_[static_cast<std::size_t>(step.group_out)];
  // Elements outside of every window get zero.
  std::fill_n(dx, static_cast<std::size_t>(n) * in.geometry.row_floats(), 0.0f);
  kernels_.pool_scatter(dx, step.winner.data(), dy, out.pixel.data(), step.corner.data(),
                        step.window.data(), static_cast<int>(step.window.size()),
                        n * out.geometry.pixels(), out.geometry.stride);
}

}  // namespace kshot::backend::cpu
