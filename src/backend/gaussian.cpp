// The network under Gaussian weights, composed of a wave's other operations. A backend may override
// any of them with its own.
//
// `weight` is a pass at phi = mu + sigma eps. `flipout` and `local` are a pass with two vectors
// (backend.h, SplitPass): a mean, and a spread that is a function of s = log sigma element by
// element. Parameters that a layer does not split (norm; flipout's biases) are drawn: their mean is
// phi, their spread sigma eps.
#include <algorithm>
#include <stdexcept>
#include <vector>

#include "backend/backend.h"
#include "kshot/error.h"

namespace kshot::backend {
namespace {

enum Scratch : std::size_t {
  sampled_phi,
  sampled_eps,
  split_mean,
  split_spread,
  split_slope,
  gradient_mean,
  gradient_spread,
  direction_mean,
  direction_spread,
};

[[noreturn]] void no_estimator() {
  throw DeviceError("this device computes abml.estimator = \"weight\" alone");
}

bool draws(Estimator estimator, const Layer& layer, int parameter) {
  if (estimator == Estimator::weight || layer.type == LayerType::norm) return true;
  return estimator == Estimator::flipout && parameter == layer.bias;
}

}  // namespace

void Wave::split_gradient(const SplitPass& /*pass*/, Block /*g_mean*/, Block /*g_spread*/,
                          bool /*accumulate*/, Block /*loss*/) {
  no_estimator();
}
void Wave::split_hessian_vector(const SplitPass& /*pass*/, Block /*u_mean*/, Block /*u_spread*/,
                                Block /*h_mean*/, Block /*h_spread*/) {
  no_estimator();
}
void Wave::split_value(const SplitPass& /*pass*/, Block /*loss*/, Block /*outputs*/,
                       NormStatistics /*statistics*/) {
  no_estimator();
}

Block Wave::scratch(std::size_t i) {
  if (scratch_.size() <= i) scratch_.resize(i + 1);
  if (!scratch_[i]) scratch_[i] = weights();
  return scratch_[i];
}

Block Wave::drawn_mask(Estimator estimator) {
  if (!network_) no_estimator();
  Mask& mask = drawn_masks_[static_cast<std::size_t>(estimator)];
  if (mask.made) return mask.block;
  mask.made = true;
  std::vector<double> drawn(network_->size(), 0.0);
  bool any = false;
  for (const Layer& layer : network_->layers()) {
    for (const int parameter : {layer.weight, layer.bias}) {
      if (parameter < 0 || !draws(estimator, layer, parameter)) continue;
      any = true;
      const ParameterTensor& tensor = network_->parameters()[static_cast<std::size_t>(parameter)];
      std::fill_n(drawn.begin() + static_cast<std::ptrdiff_t>(tensor.offset), tensor.size, 1.0);
    }
  }
  if (any) {
    mask.block = weights();
    upload(mask.block, drawn.data(), 0);
  }
  return mask.block;
}

Block Wave::draw_memory(Estimator estimator) {
  return estimator == Estimator::local && !drawn_mask(estimator) ? Block{} : weights();
}

Wave::Sampled Wave::draw_weights(const GaussianPass& pass) {
  const Sampled sampled{scratch(sampled_phi), pass.kept ? pass.kept : scratch(sampled_eps)};
  const GaussianNoise& n = pass.noise;
  const Noise noise{n.key, n.weights, n.weights_stride};
  const bool there = pass.kept && pass.drawn;
  sample(sampled.phi, sampled.eps, pass.mu, pass.sigma, there ? nullptr : &noise);
  return sampled;
}

Wave::Split Wave::draw_split(const GaussianPass& pass) {
  const Block drawn = drawn_mask(pass.estimator);
  const bool local = pass.estimator == Estimator::local;
  Split split;
  split.spread = drawn && pass.kept ? pass.kept : scratch(split_spread);
  if (!(drawn && pass.kept && pass.drawn)) {
    // what sigma is multiplied by: eps; for a variance, sigma itself
    Block other = pass.sigma;
    if (drawn) {
      other = scratch(sampled_eps);
      const GaussianNoise& n = pass.noise;
      const Noise noise{n.key, n.weights, n.weights_stride};
      sample(scratch(sampled_phi), other, pass.mu, pass.sigma, &noise);
      if (local) {  // (1 - drawn) sigma + drawn eps
        const Block mixed = scratch(split_slope);
        copy(mixed, pass.sigma);
        multiply_add(mixed, -1.0, drawn, pass.sigma);
        multiply_add(mixed, 1.0, drawn, other);
        other = mixed;
      }
    }
    fill(split.spread, 0.0);
    multiply_add(split.spread, 1.0, pass.sigma, other);
  }
  split.mean = pass.mu;
  if (drawn) {
    split.mean = scratch(split_mean);
    copy(split.mean, pass.mu);
    multiply_add(split.mean, 1.0, drawn, split.spread);
  }
  split.slope = split.spread;
  if (local && drawn) {  // twice a variance, once sigma eps
    split.slope = scratch(split_slope);
    copy(split.slope, split.spread);
    axpy(split.slope, 1.0, split.spread);
    multiply_add(split.slope, -1.0, drawn, split.spread);
  } else if (local) {
    split.factor = 2.0;
  }
  return split;
}

Wave::SplitPass Wave::split_pass(const GaussianPass& pass, const Split& split, Set set) {
  return {set, pass.estimator, split.mean, split.spread, pass.scale, &pass.noise};
}

void Wave::gaussian_gradient(const GaussianPass& pass, double a, Block g_mu, Block g_s,
                             Block loss) {
  const Block g = scratch(gradient_mean);
  if (pass.estimator == Estimator::weight) {
    const Sampled at = draw_weights(pass);
    gradient({pass.set, at.phi, pass.scale}, g, false, loss);
    if (pass.and_support) gradient({Set::support, at.phi, pass.scale}, g, true, loss);
    sample_pullback(g_mu, g_s, a, g, at.eps, pass.sigma);
    return;
  }
  const Split split = draw_split(pass);
  const Block g_spread = scratch(gradient_spread);
  split_gradient(split_pass(pass, split, pass.set), g, g_spread, false, loss);
  if (pass.and_support) {
    split_gradient(split_pass(pass, split, Set::support), g, g_spread, true, loss);
  }
  axpy(g_mu, a, g);
  multiply_add(g_s, a * split.factor, split.slope, g_spread);
}

void Wave::gaussian_hessian_vector(const GaussianPass& pass, double a, Block v_mu, Block v_s,
                                   Block r_mu, Block r_s) {
  if (pass.and_support) throw std::logic_error("Gaussian Hessian-vector product on two sets");
  const Block h = scratch(gradient_mean);
  const Block u = scratch(direction_mean);
  if (pass.estimator == Estimator::weight) {
    Sampled at{scratch(sampled_phi), pass.kept};
    if (pass.kept && pass.drawn) {
      sample_with_direction(at.phi, u, pass.mu, v_mu, v_s, at.eps, pass.sigma);
    } else {
      at = draw_weights(pass);
      sample_direction(u, v_mu, v_s, at.eps, pass.sigma);
    }
    hessian_vector({pass.set, at.phi, pass.scale}, u, h, false, {});
    sample_pullback(r_mu, r_s, a, h, at.eps, pass.sigma);
    return;
  }
  const Split split = draw_split(pass);
  const Block h_spread = scratch(gradient_spread);
  const Block u_spread = scratch(direction_spread);
  fill(u_spread, 0.0);
  multiply_add(u_spread, split.factor, split.slope, v_s);
  Block u_mean = v_mu;
  if (const Block drawn = drawn_mask(pass.estimator)) {
    u_mean = u;
    copy(u_mean, v_mu);
    multiply_add(u_mean, 1.0, drawn, u_spread);
  }
  split_hessian_vector(split_pass(pass, split, pass.set), u_mean, u_spread, h, h_spread);
  axpy(r_mu, a, h);
  multiply_add(r_s, a * split.factor, split.slope, h_spread);
}

void Wave::gaussian_curvature(Estimator estimator, double a, Block r_s, Block g_s, Block v_s) {
  multiply_add(r_s, estimator == Estimator::local ? 2.0 * a : a, g_s, v_s);
  const Block drawn = estimator == Estimator::local ? drawn_mask(estimator) : Block{};
  if (!drawn) return;
  const Block of_drawn = scratch(split_slope);
  fill(of_drawn, 0.0);
  multiply_add(of_drawn, 1.0, drawn, g_s);
  multiply_add(r_s, -a, of_drawn, v_s);
}

void Wave::gaussian_value(const GaussianPass& pass, Block loss, Block outputs,
                          NormStatistics statistics) {
  if (pass.estimator == Estimator::weight) {
    value({pass.set, draw_weights(pass).phi, pass.scale}, loss, outputs, statistics);
    return;
  }
  split_value(split_pass(pass, draw_split(pass), pass.set), loss, outputs, statistics);
}

}  // namespace kshot::backend
