// The split passes of a single wave (networks under Gaussian weights by flipout or local): the work
// beside each product (SingleWave::Step::Split).
#include <algorithm>

#include "backend/cpu/single_wave.h"
#include "backend/row_noise.h"

namespace kshot::backend::cpu {

void SingleWave::make_split_buffers() {
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
    if (step.value_in < 0) continue;  // the data need no gradient
    for (AlignedFloats* a : {&s.back, &s.back_dot}) *a = AlignedFloats(in);
    for (AlignedFloats* a : {&s.transposed, &s.transposed_dot}) {
      *a = AlignedFloats(step.transposed.size());
    }
  }
}

const float* SingleWave::draw_rows(const SplitPass& pass, Set set, std::size_t width) {
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

SingleWave::Spread SingleWave::take_noise(const SplitPass& pass, Set set, Block u_spread,
                                          Block gradient) {
  make_split_buffers();
  const RowNoiseLayout layout = row_noise_layout(*network_, pass.estimator);
  const GaussianNoise& noise = *pass.noise;
  const bool local = pass.estimator == Estimator::local;
  const float* drawn = noise.layers.empty() ? draw_rows(pass, set, layout.width) : nullptr;
  const int skip = set == Set::query && noise.support_first ? support_n_[0] : 0;
  const int n = task_rows(set, 0);
  // Noise has one number per channel and row, or one per element.
  const auto place = [&](const Geometry& g, bool elements, std::size_t offset, std::size_t width,
                         Block given, float* to) {
    if (width == 0) return;
    for (int r = 0; r < n; ++r) {
      const auto number = [&](int e) {
        const auto at = static_cast<std::size_t>(e);
        if (drawn != nullptr) {
          return drawn[static_cast<std::size_t>(r) * layout.width + offset + at];
        }
        return this->at(given)[static_cast<std::size_t>(skip + r) * width + at];
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
    const GaussianNoise::Layer given = drawn != nullptr ? GaussianNoise::Layer{} : noise.layers[i];
    place(groups_[static_cast<std::size_t>(step.group_in)].geometry, false, part.in, part.in_width,
          given.in, step.split.noise_in.data());
    place(groups_[static_cast<std::size_t>(step.group_out)].geometry, local, part.out,
          part.out_width, given.out, step.split.noise_out.data());
    ++i;
  }
  return {local, at(pass.spread), at(u_spread), at(gradient)};
}

void SingleWave::split_forward(Step& step, GatherGemm g, int n, const Spread& spread,
                               const float* x, const float* x_dot, bool tangent) {
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

void SingleWave::split_backward(Step& step, int n, const Spread& spread, const float* x_dot,
                                const float* dy, const float* dy_dot, bool tangent,
                                bool accumulate) {
  Step::Split& s = step.split;
  const Group& out = groups_[static_cast<std::size_t>(step.group_out)];
  const std::size_t floats = static_cast<std::size_t>(n) * out.geometry.row_floats();
  if (spread.local) {
    kernels_.deviation_backward(s.delta.data(), tangent ? s.delta_dot.data() : nullptr, dy, dy_dot,
                                s.t_dot.data(), s.inverse.data(), s.noise_out.data(),
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
    kernels_.channel_sum(spread.gradient + step.bias, tangent ? s.delta_dot.data() : s.delta.data(),
                         out.pixel.data(), n * out.geometry.pixels(), step.out_stride, accumulate);
  }
  if (step.value_in < 0) return;
  transpose_weights(step, spread.w, s.transposed);
  input_gradient(step, n, s.delta.data(), s.transposed, s.back.data(), false);
  if (!tangent) return;
  transpose_weights(step, spread.w_dot, s.transposed_dot);
  input_gradient(step, n, s.delta_dot.data(), s.transposed, s.back_dot.data(), false);
  input_gradient(step, n, s.delta.data(), s.transposed_dot, s.back_dot.data(), true);
}

void SingleWave::split_input_gradient(const Step& step, int n, const Spread& spread, const float* x,
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

}  // namespace kshot::backend::cpu
