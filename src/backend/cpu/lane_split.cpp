#include "backend/cpu/lane_split.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "backend/cpu/activation_of.h"
#include "backend/cpu/lane_products.h"

namespace kshot::backend::cpu {

LaneSplit::LaneSplit(const Kernels& kernels, const Network& network, int most_rows)
    : kernels_(kernels), lanes_(kernels.lanes) {
  for (const Estimator e : {Estimator::flipout, Estimator::local}) {
    layouts_[static_cast<std::size_t>(e)] = row_noise_layout(network, e);
  }
  for (std::size_t i = 0; i < network.layers().size(); ++i) {
    const Layer& layer = network.layers()[i];
    if (layer.type == LayerType::flatten) continue;
    Step step;
    step.layer = i;
    step.in = layer.in.size();
    step.out = layer.out.size();
    for (AlignedFloats* a : {&step.y, &step.y_dot, &step.delta, &step.delta_dot}) {
      *a = AlignedFloats(floats(step.out, most_rows));
    }
    step.linear = layer.type == LayerType::linear;
    if (step.linear) {
      step.weight = network.parameters()[static_cast<std::size_t>(layer.weight)].offset;
      step.has_bias = layer.bias >= 0;
      if (step.has_bias) {
        step.bias = network.parameters()[static_cast<std::size_t>(layer.bias)].offset;
      }
      for (AlignedFloats* a :
           {&step.xs, &step.xs_dot, &step.back, &step.back_dot, &step.noise_in}) {
        *a = AlignedFloats(floats(step.in, most_rows));
      }
      for (AlignedFloats* a : {&step.t, &step.t_dot, &step.inverse, &step.delta_s,
                               &step.delta_s_dot, &step.noise_out}) {
        *a = AlignedFloats(floats(step.out, most_rows));
      }
    } else {
      step.activation = activation_of(layer.type);
    }
    steps_.push_back(std::move(step));
  }
}

// ---- noise ----

void LaneSplit::take_noise(Estimator estimator, const GaussianNoise& noise, const CpuWave& wave,
                           const Rows& rows) {
  estimator_ = estimator;
  if (!noise.layers.empty()) return place_given(noise, wave, rows);
  const std::uint32_t first_task = wave.global_first();
  const std::size_t width = layouts_[static_cast<std::size_t>(estimator)].width;
  const auto draw = [&](bool query) {
    AlignedFloats& to = drawn_[query ? 1 : 0];
    const std::size_t elements =
        static_cast<std::size_t>(query ? rows.query : rows.support) * width;
    const std::size_t size = elements * static_cast<std::size_t>(lanes_);
    if (to.size() < size) to = AlignedFloats(size);
    RandomKey key = row_key(noise.key, query);
    key.task = first_task;
    const auto k = key.key();
    const auto c = key.counter(0);
    const NoiseKey kernel_key{{k[0], k[1]}, c[1], first_task, c[3]};
    (estimator == Estimator::flipout ? kernels_.row_signs_lanes : kernels_.row_normals_lanes)(
        kernel_key, to.data(), elements);
    return to.data();
  };
  const float* support = rows.set == Set::query ? nullptr : draw(false);
  const float* query = rows.set == Set::support ? nullptr : draw(true);
  place(rows, support, query);
}

/// Copies noise from [row][width][W], for the support rows, the query rows or both, to every
/// layer's [feature][row][W].
void LaneSplit::place(const Rows& rows, const float* support, const float* query) {
  const RowNoiseLayout& layout = layouts_[static_cast<std::size_t>(estimator_)];
  const auto lanes = static_cast<std::size_t>(lanes_);
  const bool joint = rows.set == Set::all;
  const bool ragged = joint && !std::all_of(rows.support_n.begin(), rows.support_n.begin() + lanes_,
                                            [&](int n) { return n == rows.support; });
  const auto copy = [&](std::size_t offset, std::size_t width, float* to) {
    const auto n = static_cast<std::size_t>(rows.rows);
    for (std::size_t r = 0; r < n; ++r) {
      const auto split = static_cast<std::size_t>(joint ? rows.support : 0);
      const bool of_query = support == nullptr || (joint && r >= split);
      const float* from = (of_query ? query + (r - split) * layout.width * lanes
                                    : support + r * layout.width * lanes) +
                          offset * lanes;
      for (std::size_t w = 0; w < width; ++w) {
        float* at = to + (w * n + r) * lanes;
        if (!ragged) {
          std::memcpy(at, from + w * lanes, lanes * sizeof(float));
          continue;
        }
        for (std::size_t lane = 0; lane < lanes; ++lane) {
          // Beyond a task's own rows any number will do, because the loss masks these rows.
          const auto own = static_cast<std::size_t>(rows.support_n[lane]);
          const auto last = static_cast<std::size_t>(rows.query) - 1;
          const float* row = r < own ? support + r * layout.width * lanes
                                     : query + std::min(r - own, last) * layout.width * lanes;
          at[lane] = row[(offset + w) * lanes + lane];
        }
      }
    }
  };
  for (Step& step : steps_) {
    const RowNoiseLayout::Part& part = layout.layers[step.layer];
    copy(part.in, part.in_width, step.noise_in.data());
    copy(part.out, part.out_width, step.noise_out.data());
  }
}

/// Copies given noise of the tasks' own rows to every layer's [feature][row][W].
void LaneSplit::place_given(const GaussianNoise& noise, const CpuWave& wave, const Rows& rows) {
  const RowNoiseLayout& layout = layouts_[static_cast<std::size_t>(estimator_)];
  const auto lanes = static_cast<std::size_t>(lanes_);
  const auto n = static_cast<std::size_t>(rows.rows);
  std::vector<float> from;
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    const int support = rows.support_n[lane], query = rows.query_n[lane];
    const int own = rows.set == Set::support ? support
                    : rows.set == Set::query ? query
                                             : support + query;
    const int skip = rows.set == Set::query && noise.support_first ? support : 0;
    const auto copy = [&](Block given, std::size_t width, float* to) {
      if (width == 0) return;
      from.resize(wave.width(given));
      wave.read(given, static_cast<int>(lane), from.data());
      const float* row = from.data() + static_cast<std::size_t>(skip) * width;
      for (std::size_t r = 0; r < static_cast<std::size_t>(own); ++r, row += width) {
        for (std::size_t w = 0; w < width; ++w) to[(w * n + r) * lanes + lane] = row[w];
      }
    };
    for (Step& step : steps_) {
      const RowNoiseLayout::Part& part = layout.layers[step.layer];
      const GaussianNoise::Layer& layer = noise.layers[step.layer];
      copy(layer.in, part.in_width, step.noise_in.data());
      copy(layer.out, part.out_width, step.noise_out.data());
    }
  }
}

// ---- passes ----

const float* LaneSplit::forward(const Rows& rows, const Weights& w, const Weights* dot) {
  const auto lanes = static_cast<std::size_t>(lanes_);
  const bool local = estimator_ == Estimator::local;
  const int n = rows.rows;
  const float* x = rows.x;
  const float* x_dot = nullptr;  // the data have no tangent
  for (Step& step : steps_) {
    float* const y = step.y.data();
    float* const y_dot = step.y_dot.data();
    const std::size_t in = floats(step.in, n), out = floats(step.out, n), vectors = out / lanes;
    if (!step.linear) {
      kernels_.act(step.activation, y, x, out);
      if (x_dot != nullptr) kernels_.act_tangent(step.activation, y_dot, y, x_dot, out);
    } else {
      LaneGemm g = output_product(step.in, step.out, n);
      /// c = a1 b1 + a2 b2 + bias
      const auto multiply = [&](float* c, const float* a1, const float* b1, const float* a2,
                                const float* b2, const float* bias) {
        g.products = b2 == nullptr ? 1 : 2;
        g.a[0] = a1 + step.weight * lanes;
        g.b[0] = b1;
        g.a[1] = b2 == nullptr ? nullptr : a2 + step.weight * lanes;
        g.b[1] = b2;
        g.bias = bias == nullptr || !step.has_bias ? nullptr : bias + step.bias * lanes;
        g.c = c;
        kernels_.lane_gemm(g);
      };
      float* const xs = step.xs.data();
      float* const xs_dot = x_dot == nullptr ? nullptr : step.xs_dot.data();
      const float* const noise = step.noise_out.data();
      kernels_.product(xs, 1.0f, x, local ? x : step.noise_in.data(), in);
      multiply(y, w.mean, x, nullptr, nullptr, w.mean);
      multiply(step.t.data(), w.spread, xs, nullptr, nullptr, local ? w.spread : nullptr);
      if (local) {
        kernels_.deviation(y, step.inverse.data(), step.t.data(), noise, vectors);
      } else {
        kernels_.multiply_add(y, 1.0f, noise, step.t.data(), vectors);
      }
      if (dot != nullptr) {
        if (x_dot != nullptr) {
          kernels_.product(xs_dot, local ? 2.0f : 1.0f, x_dot, local ? x : step.noise_in.data(),
                           in);
        }
        multiply(y_dot, dot->mean, x, w.mean, x_dot, dot->mean);
        multiply(step.t_dot.data(), dot->spread, xs, w.spread, xs_dot,
                 local ? dot->spread : nullptr);
        if (local) {
          kernels_.deviation_tangent(y_dot, step.t_dot.data(), step.inverse.data(), noise, vectors);
        } else {
          kernels_.multiply_add(y_dot, 1.0f, noise, step.t_dot.data(), vectors);
        }
      }
    }
    x = y;
    if (dot != nullptr) x_dot = y_dot;
  }
  return x;
}

void LaneSplit::gradient(const Rows& rows, const Weights& w, const Gradients& to, bool accumulate,
                         float* loss) {
  LaneLoss g = rows.loss;
  g.z = forward(rows, w, nullptr);
  g.delta = steps_.back().delta.data();
  g.loss = loss;
  kernels_.lane_loss(g);
  backward(rows, w, nullptr, to, accumulate);
}

void LaneSplit::hessian_vector(const Rows& rows, const Weights& w, const Weights& dot,
                               const Gradients& to) {
  LaneLoss g = rows.loss;
  g.z = forward(rows, w, &dot);
  g.z_dot = steps_.back().y_dot.data();
  g.delta = steps_.back().delta.data();
  g.delta_dot = steps_.back().delta_dot.data();
  kernels_.lane_loss(g);
  backward(rows, w, &dot, to, false);
}

/// One layer's dW[out][in] = sum over rows of delta x (+ delta2 x2). With `bias`, also the gradient
/// of its bias, the sum of delta.
void LaneSplit::weight_gradient(const Step& step, int rows, const float* delta, const float* delta2,
                                const float* x, const float* x2, float* to, bool bias,
                                bool accumulate) const {
  const auto lanes = static_cast<std::size_t>(lanes_);
  LaneGemm g = weight_gradient_product(step.in, step.out, rows);
  g.products = x2 == nullptr ? 1 : 2;
  g.a[0] = delta;
  g.a[1] = delta2;
  g.b[0] = x;
  g.b[1] = x2;
  g.c = to + step.weight * lanes;
  g.base = accumulate ? g.c : nullptr;
  if (bias && step.has_bias) {
    g.rows.c = to + step.bias * lanes;
    g.rows.base = accumulate ? g.rows.c : nullptr;
  }
  kernels_.lane_gemm(g);
}

/// Starts from delta (and delta_dot) at the output. Writes gradients, or with `dot` their tangents.
void LaneSplit::backward(const Rows& rows, const Weights& w, const Weights* dot,
                         const Gradients& to, bool accumulate) {
  const auto lanes = static_cast<std::size_t>(lanes_);
  const bool local = estimator_ == Estimator::local;
  const int n = rows.rows;
  for (std::size_t i = steps_.size(); i-- > 0;) {
    Step& step = steps_[i];
    Step* const before = i == 0 ? nullptr : &steps_[i - 1];
    const float* const delta = step.delta.data();
    const float* const delta_dot = dot == nullptr ? nullptr : step.delta_dot.data();
    if (!step.linear) {
      if (before == nullptr) break;
      const std::size_t count = floats(step.out, n);
      if (dot != nullptr) {
        kernels_.act_backward_tangent(step.activation, before->delta_dot.data(), step.y.data(),
                                      step.y_dot.data(), delta, delta_dot, count);
      }
      kernels_.act_backward(step.activation, before->delta.data(), step.y.data(), delta, count);
      continue;
    }
    const float* const x = before == nullptr ? rows.x : before->y.data();
    const float* const x_dot = before == nullptr || dot == nullptr ? nullptr : before->y_dot.data();
    const float* const xs = step.xs.data();
    const float* const xs_dot = x_dot == nullptr ? nullptr : step.xs_dot.data();
    float* const delta_s = step.delta_s.data();
    float* const delta_s_dot = dot == nullptr ? nullptr : step.delta_s_dot.data();
    const float* const noise = step.noise_out.data();
    const std::size_t out = floats(step.out, n), in = floats(step.in, n);
    if (local) {
      kernels_.deviation_backward(delta_s, delta_s_dot, delta, delta_dot, step.t_dot.data(),
                                  step.inverse.data(), noise, out / lanes);
    } else {
      kernels_.product(delta_s, 1.0f, delta, noise, out);
      if (dot != nullptr) kernels_.product(delta_s_dot, 1.0f, delta_dot, noise, out);
    }
    if (dot == nullptr) {
      weight_gradient(step, n, delta, nullptr, x, nullptr, to.mean, true, accumulate);
      weight_gradient(step, n, delta_s, nullptr, xs, nullptr, to.spread, local, accumulate);
    } else {
      weight_gradient(step, n, delta_dot, delta, x, x_dot, to.mean, true, false);
      weight_gradient(step, n, delta_s_dot, delta_s, xs, xs_dot, to.spread, local, false);
    }
    if (!local && step.has_bias) {  // A bias that is drawn has the same gradient in both vectors.
      std::memcpy(to.spread + step.bias * lanes, to.mean + step.bias * lanes,
                  static_cast<std::size_t>(step.out) * lanes * sizeof(float));
    }
    if (before == nullptr) break;
    // c[in][row] = sum_out a1[out][in] b1[out][row] (+ a2 b2)
    const auto multiply = [&](float* c, const float* a1, const float* b1, const float* a2,
                              const float* b2) {
      LaneGemm g = input_gradient_product(step.in, step.out, n);
      g.products = b2 == nullptr ? 1 : 2;
      g.a[0] = a1 + step.weight * lanes;
      g.b[0] = b1;
      g.a[1] = b2 == nullptr ? nullptr : a2 + step.weight * lanes;
      g.b[1] = b2;
      g.c = c;
      kernels_.lane_gemm(g);
    };
    const std::size_t vectors = in / lanes;
    // dxs/dx without its constant factor.
    const float* const into = local ? x : step.noise_in.data();
    const float factor = local ? 2.0f : 1.0f;
    float* const back = step.back.data();
    multiply(before->delta.data(), w.mean, delta, nullptr, nullptr);
    multiply(back, w.spread, delta_s, nullptr, nullptr);
    kernels_.multiply_add(before->delta.data(), factor, into, back, vectors);
    if (dot == nullptr) continue;
    float* const back_dot = step.back_dot.data();
    float* const to_dot = before->delta_dot.data();
    multiply(to_dot, w.mean, delta_dot, dot->mean, delta);
    multiply(back_dot, w.spread, delta_s_dot, dot->spread, delta_s);
    kernels_.multiply_add(to_dot, factor, into, back_dot, vectors);
    if (local) kernels_.multiply_add(to_dot, factor, x_dot, back, vectors);
  }
}

}  // namespace kshot::backend::cpu
