// The composed passes under Gaussian weights. `weight` is one pass at phi = mu + sigma eps.
// `flipout` and `local` are one pass with two weight vectors (NetworkPasses::SplitPass): a mean,
// and a spread that is a function of s = log sigma element by element. Parameters that a layer does
// not split (those of norm layers, and the biases under flipout) are drawn: their mean is phi and
// their spread is sigma eps.
#include <algorithm>
#include <stdexcept>
#include <vector>

#include "backend/gaussian_passes.h"
#include "backend/wave.h"

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

/// Whether the estimator draws a parameter instead of splitting it.
bool draws(Estimator estimator, const Layer& layer, int parameter) {
  if (estimator == Estimator::weight || layer.type == LayerType::norm) return true;
  return estimator == Estimator::flipout && parameter == layer.bias;
}

/// Whether the estimator draws any parameter of the network.
bool draws(Estimator estimator, const Network& network) {
  return std::ranges::any_of(network.layers(), [&](const Layer& layer) {
    return (layer.weight >= 0 && draws(estimator, layer, layer.weight)) ||
           (layer.bias >= 0 && draws(estimator, layer, layer.bias));
  });
}

}  // namespace

Block GaussianPasses::scratch(std::size_t i) {
  if (scratch_.size() <= i) scratch_.resize(i + 1);
  if (!scratch_[i]) scratch_[i] = wave_.weights();
  return scratch_[i];
}

Block GaussianPasses::drawn_mask(Estimator estimator) {
  if (!draws(estimator, wave_.network())) return {};
  Mask& mask = drawn_masks_[static_cast<std::size_t>(estimator)];
  // An upload reaches the tasks that the wave has now. It may get more tasks later.
  if (wave_.count() <= mask.tasks) return mask.block;
  if (!mask.block) mask.block = wave_.weights();
  mask.tasks = wave_.count();
  std::vector<double> drawn(wave_.network().size(), 0.0);
  for (const Layer& layer : wave_.network().layers()) {
    for (const int parameter : {layer.weight, layer.bias}) {
      if (parameter < 0 || !draws(estimator, layer, parameter)) continue;
      const ParameterTensor& tensor =
          wave_.network().parameters()[static_cast<std::size_t>(parameter)];
      std::fill_n(drawn.begin() + static_cast<std::ptrdiff_t>(tensor.offset), tensor.size, 1.0);
    }
  }
  wave_.upload(mask.block, drawn.data(), 0);
  return mask.block;
}

Block GaussianPasses::draw_memory(Estimator estimator) {
  const bool keeps = estimator != Estimator::local || draws(estimator, wave_.network());
  return keeps ? wave_.weights() : Block{};
}

void GaussianPasses::sample(const GaussianPass& pass, Block phi, Block eps) {
  if (pass.noise.weights) wave_.copy(eps, pass.noise.weights);
  wave_.sample(phi, eps, pass.mu, pass.sigma, pass.noise.weights ? nullptr : &pass.noise.key);
}

GaussianPasses::Sampled GaussianPasses::draw_weights(const GaussianPass& pass) {
  const Sampled sampled{scratch(sampled_phi), pass.kept ? pass.kept : scratch(sampled_eps)};
  if (pass.kept && pass.drawn) {
    wave_.sample(sampled.phi, sampled.eps, pass.mu, pass.sigma, nullptr);
  } else {
    sample(pass, sampled.phi, sampled.eps);
  }
  return sampled;
}

GaussianPasses::Split GaussianPasses::draw_split(const GaussianPass& pass) {
  const Block drawn = drawn_mask(pass.estimator);
  const bool local = pass.estimator == Estimator::local;
  Split split;
  split.spread = drawn && pass.kept ? pass.kept : scratch(split_spread);
  if (!(drawn && pass.kept && pass.drawn)) {
    // The spread is sigma * other: sigma * eps for a draw, sigma * sigma for a variance.
    Block other = pass.sigma;
    if (drawn) {
      other = scratch(sampled_eps);
      sample(pass, scratch(sampled_phi), other);
      if (local) {  // other = (1 - drawn) sigma + drawn eps
        const Block mixed = scratch(split_slope);
        wave_.copy(mixed, pass.sigma);
        wave_.multiply_add(mixed, -1.0, drawn, pass.sigma);
        wave_.multiply_add(mixed, 1.0, drawn, other);
        other = mixed;
      }
    }
    wave_.fill(split.spread, 0.0);
    wave_.multiply_add(split.spread, 1.0, pass.sigma, other);
  }
  split.mean = pass.mu;
  if (drawn) {
    split.mean = scratch(split_mean);
    wave_.copy(split.mean, pass.mu);
    wave_.multiply_add(split.mean, 1.0, drawn, split.spread);
  }
  split.slope = split.spread;
  if (local && drawn) {  // slope: twice a variance, once sigma eps
    split.slope = scratch(split_slope);
    wave_.copy(split.slope, split.spread);
    wave_.axpy(split.slope, 1.0, split.spread);
    wave_.multiply_add(split.slope, -1.0, drawn, split.spread);
  } else if (local) {
    split.factor = 2.0;
  }
  return split;
}

NetworkPasses::SplitPass GaussianPasses::split_pass(const GaussianPass& pass, const Split& split,
                                                    Set set) {
  return {set, pass.estimator, split.mean, split.spread, pass.scale, &pass.noise};
}

void GaussianPasses::gradient(const GaussianPass& pass, double a, Block g_mu, Block g_s,
                              Block loss) {
  const Block g = scratch(gradient_mean);
  if (pass.estimator == Estimator::weight) {
    const Sampled at = draw_weights(pass);
    wave_.gradient({pass.set, at.phi, pass.scale}, g, false, loss);
    if (pass.and_support) wave_.gradient({Set::support, at.phi, pass.scale}, g, true, loss);
    wave_.sample_pullback(g_mu, g_s, a, g, at.eps, pass.sigma);
    return;
  }
  const Split split = draw_split(pass);
  const Block g_spread = scratch(gradient_spread);
  wave_.split_gradient(split_pass(pass, split, pass.set), g, g_spread, false, loss);
  if (pass.and_support) {
    wave_.split_gradient(split_pass(pass, split, Set::support), g, g_spread, true, loss);
  }
  wave_.axpy(g_mu, a, g);
  wave_.multiply_add(g_s, a * split.factor, split.slope, g_spread);
}

void GaussianPasses::output_pullback(const GaussianPass& pass, Block g_outputs, Block g_mu,
                                     Block g_s) {
  if (pass.and_support || pass.estimator != Estimator::weight) {
    throw std::logic_error("Gaussian pull-back of outputs: one set and the estimator weight");
  }
  const Block g = scratch(gradient_mean);
  const Sampled at = draw_weights(pass);
  wave_.output_pullback({pass.set, at.phi, pass.scale}, g_outputs, g, false);
  wave_.sample_pullback(g_mu, g_s, 1.0, g, at.eps, pass.sigma);
}

void GaussianPasses::hessian_vector(const GaussianPass& pass, double a, Block v_mu, Block v_s,
                                    Block r_mu, Block r_s) {
  if (pass.and_support) throw std::logic_error("Gaussian Hessian-vector product on two sets");
  const Block h = scratch(gradient_mean);
  const Block u = scratch(direction_mean);
  if (pass.estimator == Estimator::weight) {
    Sampled at{scratch(sampled_phi), pass.kept};
    if (pass.kept && pass.drawn) {
      wave_.sample_with_direction(at.phi, u, pass.mu, v_mu, v_s, at.eps, pass.sigma);
    } else {
      at = draw_weights(pass);
      wave_.sample_direction(u, v_mu, v_s, at.eps, pass.sigma);
    }
    wave_.hessian_vector({pass.set, at.phi, pass.scale}, u, h, false, {});
    wave_.sample_pullback(r_mu, r_s, a, h, at.eps, pass.sigma);
    return;
  }
  const Split split = draw_split(pass);
  const Block h_spread = scratch(gradient_spread);
  const Block u_spread = scratch(direction_spread);
  wave_.fill(u_spread, 0.0);
  wave_.multiply_add(u_spread, split.factor, split.slope, v_s);
  Block u_mean = v_mu;
  if (const Block drawn = drawn_mask(pass.estimator)) {
    u_mean = u;
    wave_.copy(u_mean, v_mu);
    wave_.multiply_add(u_mean, 1.0, drawn, u_spread);
  }
  wave_.split_hessian_vector(split_pass(pass, split, pass.set), u_mean, u_spread, h, h_spread);
  wave_.axpy(r_mu, a, h);
  wave_.multiply_add(r_s, a * split.factor, split.slope, h_spread);
}

void GaussianPasses::curvature(Estimator estimator, double a, Block r_s, Block g_s, Block v_s) {
  wave_.multiply_add(r_s, estimator == Estimator::local ? 2.0 * a : a, g_s, v_s);
  const Block drawn = estimator == Estimator::local ? drawn_mask(estimator) : Block{};
  if (!drawn) return;
  const Block of_drawn = scratch(split_slope);
  wave_.fill(of_drawn, 0.0);
  wave_.multiply_add(of_drawn, 1.0, drawn, g_s);
  wave_.multiply_add(r_s, -a, of_drawn, v_s);
}

void GaussianPasses::value(const GaussianPass& pass, Block loss, Block outputs,
                           NormStatistics statistics) {
  if (pass.estimator == Estimator::weight) {
    wave_.value({pass.set, draw_weights(pass).phi, pass.scale}, loss, outputs, statistics);
    return;
  }
  wave_.split_value(split_pass(pass, draw_split(pass), pass.set), loss, outputs, statistics);
}

}  // namespace kshot::backend
