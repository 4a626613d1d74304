// Forward and backward passes of a lane wave, and the loss between them.
#include <algorithm>

#include "backend/cpu/lane_products.h"
#include "backend/cpu/lane_wave.h"

namespace kshot::backend::cpu {

void LaneWave::sampled_gradient(const GaussianPass& pass, double a, Block g_mu, Block g_s,
                                Block loss) {
  const float* const shift = draw_shift(pass, {}, {});
  const Target target{at(g_mu), at(g_mu), static_cast<float>(a), at(g_s), shift};
  // `set` is the query set where the support set is included.
  const Place place = own_place(pass.and_support ? PassRows::joint : pass_rows(pass.set));
  if (pass.and_support) join_sets();
  input_ = data_[place.store].x.data();
  forward(place, phi_.data(), nullptr, true);
  loss_and_delta(place, pass.scale, at(loss), true, false);
  backward(place, phi_.data(), nullptr, true, target, {});
}

void LaneWave::sampled_hessian_vector(const GaussianPass& pass, double a, Block v_mu, Block v_s,
                                      Block r_mu, Block r_s) {
  const float* const shift = draw_shift(pass, v_mu, v_s);
  take_input({pass.set, {}, {}});
  const Place place = own_place(pass_rows(pass.set));
  forward(place, phi_.data(), u_.data(), true);
  loss_and_delta(place, pass.scale, nullptr, true, true);
  backward(place, phi_.data(), u_.data(), true, {},
           {at(r_mu), at(r_mu), static_cast<float>(a), at(r_s), shift});
}

LaneWave::Place LaneWave::place_of(const Pass& pass) {
  const PassRows own = pass_rows(pass.set);
  if (pass.set != Set::support || pass.activations < 0 || slots_ == 0) return own_place(own);
  const Place place{own, 4 + pass.activations % slots_};
  for (Step& step : steps_) {
    if (step.y[place.store].size() != 0) break;
    step.y[place.store] = AlignedFloats(size(step.out, rows(pass.set)));
    step.delta[place.store] = AlignedFloats(size(step.out, rows(pass.set)));
  }
  return place;
}

LaneWave::Place LaneWave::values_of(const Pass& pass) {
  take_input(pass);
  const Place place = place_of(pass);
  keep(place, pass.activations);
  forward(place, at(pass.weights), nullptr, true);
  return place;
}

void LaneWave::join_sets() {
  if (joined_) return;
  joined_ = true;
  Data& joint = data_[static_cast<int>(PassRows::joint)];
  if (joint.x.size() == 0) allocate_rows(PassRows::joint);
  const auto join = [&](AlignedFloats Data::*part, int features) {
    float* out = (joint.*part).data();
    for (int f = 0; f < features; ++f) {
      for (const Set set : {Set::support, Set::query}) {
        const std::size_t row_floats = size(1, rows(set));
        const float* from = (data_[static_cast<int>(set)].*part).data();
        std::copy_n(from + static_cast<std::size_t>(f) * row_floats, row_floats, out);
        out += row_floats;
      }
    }
  };
  join(&Data::x, network_->input().size());
  join(&Data::target, targets());
  join(&Data::valid, 1);
}

const float* LaneWave::draw_shift(const GaussianPass& pass, Block v_mu, Block v_s) {
  const std::size_t width = network_->size();
  const std::size_t floats = width * static_cast<std::size_t>(lanes_);
  if (phi_.size() == 0) phi_ = AlignedFloats(floats);
  if (v_mu && u_.size() == 0) u_ = AlignedFloats(floats);
  if (!pass.kept && !shift_) shift_ = weights();
  const Block to = pass.kept ? pass.kept : shift_;
  float* const shift = at(to);
  bool sampled = false;
  if (!pass.kept || !pass.drawn) {
    if (!pass.noise.weights) {
      kernels_.noise_lanes(noise_key(pass.noise.key, global_first_), nullptr, shift, phi_.data(),
                           at(pass.mu), at(pass.sigma), width);
      sampled = true;
    } else {
      copy(to, pass.noise.weights);
      kernels_.multiply(shift, at(pass.sigma), width);
    }
  }
  if (!sampled || v_mu) {
    kernels_.shifted(phi_.data(), v_mu ? u_.data() : nullptr, at(pass.mu), at(v_mu), at(v_s), shift,
                     width);
  }
  return shift;
}

void LaneWave::tangent_pass(const Pass& pass, const float* w_dot, const Target& grad,
                            const Target& hv) {
  take_input(pass);
  const Place place = place_of(pass);
  const bool fresh = kept_[place.store] != pass.activations || pass.activations < 0;
  forward(place, at(pass.weights), w_dot, fresh);
  loss_and_delta(place, pass.scale, nullptr, fresh, true);
  backward(place, at(pass.weights), w_dot, fresh, grad, hv);
  keep(place, pass.activations);
}

void LaneWave::take_input(const Pass& pass) {
  const AlignedFloats& x = data_[static_cast<int>(pass.set)].x;
  input_ = x.data();
  if (!pass.dropout) return;
  if (dropped_.size() < x.size()) dropped_ = AlignedFloats(x.size());
  const auto inputs = static_cast<std::size_t>(network_->input().size());
  const auto n = static_cast<std::size_t>(rows(pass.set));
  const auto lanes = static_cast<std::size_t>(lanes_);
  std::vector<float> factors(n * inputs);
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    dropout_factors(pass.dropout, global_first_ + static_cast<std::uint32_t>(lane), factors);
    for (std::size_t i = 0; i < inputs; ++i) {
      for (std::size_t r = 0; r < n; ++r) {
        const std::size_t e = (i * n + r) * lanes + lane;
        dropped_.data()[e] = x.data()[e] * factors[r * inputs + i];
      }
    }
  }
  input_ = dropped_.data();
}

void LaneWave::forward(const Place& place, const float* w, const float* w_dot, bool fresh) {
  const auto lanes = static_cast<std::size_t>(lanes_);
  const int n = rows_in(place.rows);
  const float* x = input_;
  const float* x_dot = nullptr;  // the data have no tangent
  for (Step& step : steps_) {
    float* const y = step.y[place.store].data();
    if (step.is_activation) {
      const std::size_t count = size(step.out, n);
      if (fresh) kernels_.act(step.activation, y, x, count);
      if (x_dot != nullptr) {
        kernels_.act_tangent(step.activation, step.y_dot.data(), y, x_dot, count);
      }
    } else {
      LaneGemm g = output_product(step.in, step.out, n);
      g.b[0] = x;
      g.slope = step.slope;
      if (fresh) {
        g.a[0] = w + step.weight * lanes;
        g.c = y;
        g.bias = step.has_bias ? w + step.bias * lanes : nullptr;
        g.rectify = step.gated;
        kernels_.lane_gemm(g);
      }
      if (w_dot != nullptr) {
        g.rectify = false;
        g.gate = step.gated ? y : nullptr;
        g.a[0] = w_dot + step.weight * lanes;
        g.bias = step.has_bias ? w_dot + step.bias * lanes : nullptr;
        g.c = step.y_dot.data();
        if (x_dot != nullptr) {
          g.products = 2;
          g.a[1] = w + step.weight * lanes;
          g.b[1] = x_dot;
        }
        kernels_.lane_gemm(g);
      }
    }
    x = y;
    if (w_dot != nullptr) x_dot = step.y_dot.data();
  }
}

void LaneWave::put_rows(Set set, int columns, const float* z, Block to) {
  float* const out = at(to);
  Strides s[max_lanes];
  for (int lane = 0; lane < lanes_; ++lane) s[lane] = strides(to, lane);
  visit_rows(set, columns, [&](int lane, std::size_t from, std::size_t e, bool valid) {
    out[s[lane].first + e * s[lane].step] = valid ? z[from] : 0.0f;
  });
}

void LaneWave::take_outputs(Set set, Block from, float* delta) const {
  const float* const in = at(from);
  Strides s[max_lanes];
  for (int lane = 0; lane < lanes_; ++lane) s[lane] = strides(from, lane);
  visit_rows(set, network_outputs_, [&](int lane, std::size_t to, std::size_t e, bool valid) {
    delta[to] = valid ? in[s[lane].first + e * s[lane].step] : 0.0f;
  });
}

LaneLoss LaneWave::loss_args(PassRows set, const Scale& factors) {
  const int s = static_cast<int>(set);
  const int n = rows_in(set);
  float scale[max_lanes];
  pattern(factors, 0, scale);
  const float* valid = data_[s].valid.data();
  for (int r = 0; r < n; ++r) {
    for (int lane = 0; lane < lanes_; ++lane) {
      const std::ptrdiff_t e = static_cast<std::ptrdiff_t>(r) * lanes_ + lane;
      weight_.data()[e] = valid[e] * scale[lane];
    }
  }
  LaneLoss g{};
  g.type = loss_type();
  g.outputs = network_outputs_;
  g.rows = n;
  g.coefficient = loss_coefficient();
  g.constant = loss_constant();
  g.target = data_[s].target.data();
  g.weight = weight_.data();
  return g;
}

void LaneWave::loss_and_delta(const Place& place, const Scale& factors, float* loss, bool delta,
                              bool tangent) {
  Step& last = steps_.back();
  LaneLoss g = loss_args(place.rows, factors);
  g.z = last.y[place.store].data();
  g.loss = loss;
  if (delta) g.delta = last.delta[place.store].data();
  if (tangent) {
    g.z_dot = last.y_dot.data();
    g.delta_dot = delta_dot_[0].data();
  }
  kernels_.lane_loss(g);
}

void LaneWave::activation_backward(const Place& place, std::size_t i, bool fresh,
                                   float* delta_dot) {
  const Step& step = steps_[i];
  Step& below = steps_[i - 1];
  const std::size_t count = size(step.out, rows_in(place.rows));
  const float* const y = step.y[place.store].data();
  const float* const delta = step.delta[place.store].data();
  if (delta_dot != nullptr) {
    kernels_.act_backward_tangent(step.activation, delta_dot, y, step.y_dot.data(), delta,
                                  delta_dot, count);
  }
  if (fresh) {
    kernels_.act_backward(step.activation, below.delta[place.store].data(), y, delta, count);
  }
}

void LaneWave::weight_gradient(const Step& step, LaneGemm g, const Target& target) {
  const auto lanes = static_cast<std::size_t>(lanes_);
  const bool shifted = target.shift != nullptr;
  const std::size_t weight = step.weight * lanes;
  g.c = target.out + weight;
  g.base = target.base == nullptr ? nullptr : target.base + weight;
  g.scale = target.scale;
  g.shift = shifted ? target.shift + weight : nullptr;
  g.c_s = shifted ? target.out_s + weight : nullptr;
  if (step.has_bias) {
    const std::size_t bias = step.bias * lanes;
    g.rows.c = target.out + bias;
    g.rows.base = target.base == nullptr ? nullptr : target.base + bias;
    g.rows.shift = shifted ? target.shift + bias : nullptr;
    g.rows.c_s = shifted ? target.out_s + bias : nullptr;
  }
  kernels_.lane_gemm(g);
}

void LaneWave::input_gradient(const Place& place, std::size_t i, const float* w, const float* w_dot,
                              bool fresh, const float* delta_dot, float* delta_dot_in) {
  const auto lanes = static_cast<std::size_t>(lanes_);
  const int n = rows_in(place.rows);
  const Step& step = steps_[i];
  Step& below = steps_[i - 1];
  const float* const delta = step.delta[place.store].data();
  LaneGemm g = input_gradient_product(step.in, step.out, n);
  g.a[0] = w + step.weight * lanes;
  if (below.gated) {
    g.gate = below.y[place.store].data();
    g.slope = below.slope;
  }
  if (fresh) {
    g.b[0] = delta;
    g.c = below.delta[place.store].data();
    kernels_.lane_gemm(g);
  }
  if (w_dot == nullptr) return;
  g.b[0] = delta_dot;
  g.products = 2;
  g.a[1] = w_dot + step.weight * lanes;
  g.b[1] = delta;
  g.c = delta_dot_in;
  kernels_.lane_gemm(g);
}

void LaneWave::backward(const Place& place, const float* w, const float* w_dot, bool fresh,
                        const Target& grad, const Target& hv) {
  const int n = rows_in(place.rows);
  const bool tangent = w_dot != nullptr;
  int now = 0;  // index of the current buffer in delta_dot_
  for (std::size_t i = steps_.size(); i-- > 0;) {
    const Step& step = steps_[i];
    const bool first = i == 0;
    float* const delta_dot = delta_dot_[now].data();
    if (step.is_activation) {
      if (first) break;
      activation_backward(place, i, fresh, tangent ? delta_dot : nullptr);
      continue;
    }
    LaneGemm g = weight_gradient_product(step.in, step.out, n);
    const float* const delta = step.delta[place.store].data();
    g.a[0] = delta;
    g.b[0] = first ? input_ : steps_[i - 1].y[place.store].data();
    if (grad.out != nullptr) weight_gradient(step, g, grad);
    if (tangent) {
      g.a[0] = delta_dot;
      if (!first) {
        g.products = 2;
        g.a[1] = delta;
        g.b[1] = steps_[i - 1].y_dot.data();
      }
      weight_gradient(step, g, hv);
    }
    if (first) break;
    input_gradient(place, i, w, w_dot, fresh, delta_dot, delta_dot_[1 - now].data());
    if (tangent) now = 1 - now;
  }
}

}  // namespace kshot::backend::cpu
