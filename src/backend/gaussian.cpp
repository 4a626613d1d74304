// The network under Gaussian weights, composed of a wave's other operations. A backend may override
// any of them with its own.
#include <stdexcept>

#include "backend/backend.h"

namespace kshot::backend {
namespace {

enum Scratch : std::size_t { phi, epsilon, gradient_w, direction_w };

void require_weight(Estimator estimator) {
  if (estimator != Estimator::weight) throw std::logic_error("this backend has no estimator but weight");
}

}  // namespace

Block Wave::scratch(std::size_t i) {
  if (scratch_.size() <= i) scratch_.resize(i + 1);
  if (!scratch_[i]) scratch_[i] = weights();
  return scratch_[i];
}

Block Wave::draw_memory(Estimator /*estimator*/) {
  return weights();
}

Block Wave::draw(const GaussianPass& pass) {
  const Block eps = pass.kept ? pass.kept : scratch(epsilon);
  const GaussianNoise& n = pass.noise;
  const Noise noise{n.key, n.weights, n.weights_stride};
  sample(scratch(phi), eps, pass.mu, pass.sigma, pass.drawn ? nullptr : &noise);
  return eps;
}

void Wave::gaussian_gradient(const GaussianPass& pass, double a, Block g_mu, Block g_s,
                             Block loss) {
  require_weight(pass.estimator);
  const Block eps = draw(pass);
  const Block g = scratch(gradient_w);
  gradient({pass.set, scratch(phi), pass.scale}, g, false, loss);
  if (pass.and_support) gradient({Set::support, scratch(phi), pass.scale}, g, true, loss);
  sample_pullback(g_mu, g_s, a, g, eps, pass.sigma);
}

void Wave::gaussian_hessian_vector(const GaussianPass& pass, double a, Block v_mu, Block v_s,
                                   Block r_mu, Block r_s) {
  require_weight(pass.estimator);
  if (pass.and_support) throw std::logic_error("Gaussian Hessian-vector product on two sets");
  const Block u = scratch(direction_w);
  Block eps = pass.kept;
  if (pass.drawn) {
    sample_with_direction(scratch(phi), u, pass.mu, v_mu, v_s, eps, pass.sigma);
  } else {
    eps = draw(pass);
    sample_direction(u, v_mu, v_s, eps, pass.sigma);
  }
  const Block h = scratch(gradient_w);
  hessian_vector({pass.set, scratch(phi), pass.scale}, u, h, false, {});
  sample_pullback(r_mu, r_s, a, h, eps, pass.sigma);
}

void Wave::gaussian_curvature(Estimator estimator, Block r_s, Block g_s, Block v_s) {
  require_weight(estimator);
  multiply_add(r_s, 1.0, g_s, v_s);
}

void Wave::gaussian_value(const GaussianPass& pass, Block loss, Block outputs,
                          NormStatistics statistics) {
  require_weight(pass.estimator);
  draw(pass);
  value({pass.set, scratch(phi), pass.scale}, loss, outputs, statistics);
}

}  // namespace kshot::backend
