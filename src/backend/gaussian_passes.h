// The network under Gaussian weights (docs/mathematics.md, "Estimators"), composed of a wave's
// other operations with scratch of its own. A backend may supply its own
// (Wave::make_gaussian_passes).
#pragma once

#include <cstddef>
#include <vector>

#include "backend/network_passes.h"
#include "backend/values.h"

namespace kshot::backend {

class Wave;

/// One Monte Carlo sample of the network under Gaussian weights, on one set of rows (or two, each
/// with its own batch statistics). mu and sigma are blocks of weights; gradients and directions are
/// in (mu, s = log sigma).
struct GaussianPass {
  Set set = Set::support;
  bool and_support = false;  ///< gradient: the support set too, as a set of its own, after `set`
  Scale scale;
  Estimator estimator = Estimator::weight;
  Block mu, sigma;
  GaussianNoise noise;
  /// Where the draw may stay (GaussianPasses::draw_memory), and whether it is there already, from
  /// an earlier pass at the same mu and sigma. Its contents are the backend's own business.
  Block kept = {};
  bool drawn = false;
};

class GaussianPasses {
 public:
  explicit GaussianPasses(Wave& wave) : wave_(wave) {}
  GaussianPasses(const GaussianPasses&) = delete;
  GaussianPasses& operator=(const GaussianPasses&) = delete;
  virtual ~GaussianPasses() = default;

  /// A block for GaussianPass::kept; none where there is nothing to keep.
  virtual Block draw_memory(Estimator estimator);
  /// (g_mu, g_s) += a * the gradient of scale * sum nll at the sample; loss[b] += scale * sum nll
  /// (where `loss` is given).
  virtual void gradient(const GaussianPass& pass, double a, Block g_mu, Block g_s, Block loss);
  /// (r_mu, r_s) += a * the derivative of that gradient along (v_mu, v_s), but for the part that
  /// curvature adds.
  virtual void hessian_vector(const GaussianPass& pass, double a, Block v_mu, Block v_s, Block r_mu,
                              Block r_s);
  /// Adds what hessian_vector leaves out; it needs no pass over the rows. r_s += a c * g_s * v_s,
  /// where g_s is the gradient in s, of one sample or summed over several. The sampled weights
  /// (c = 1) or variances (c = 2) are themselves curved in s: c comes from there.
  virtual void curvature(Estimator estimator, double a, Block r_s, Block g_s, Block v_s);
  /// Forward only, as value().
  virtual void value(const GaussianPass& pass, Block loss, Block outputs,
                     NormStatistics statistics);

 private:
  /// Block `i` of the composed operations, made when first asked for.
  Block scratch(std::size_t i);
  /// phi and eps of the estimator `weight`.
  struct Sampled {
    Block phi, eps;
  };
  /// A new draw, or the noise that is given.
  void sample(const GaussianPass& pass, Block phi, Block eps);
  Sampled draw_weights(const GaussianPass& pass);
  /// Means and spreads of the others; d spread / ds = factor * slope.
  struct Split {
    Block mean, spread, slope;
    double factor = 1.0;
  };
  Split draw_split(const GaussianPass& pass);
  static NetworkPasses::SplitPass split_pass(const GaussianPass& pass, const Split& split, Set set);
  /// 1 for parameters that the estimator draws, 0 for those it splits; none where it splits all.
  Block drawn_mask(Estimator estimator);

  Wave& wave_;
  std::vector<Block> scratch_;
  struct Mask {
    Block block;
    bool made = false;
  };
  Mask drawn_masks_[3];
};

}  // namespace kshot::backend
