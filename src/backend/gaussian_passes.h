// The network under Gaussian weights (docs/mathematics.md, "Estimators"), composed of a wave's
// other operations with scratch blocks. A backend may have its own version
// (Wave::make_gaussian_passes).
#pragma once

#include <cstddef>
#include <vector>

#include "backend/network_passes.h"
#include "backend/values.h"

namespace kshot::backend {

class Wave;

/// One Monte Carlo sample of the network under Gaussian weights, on one set of rows, or on two sets
/// with separate batch statistics. mu and sigma are blocks of weights. Gradients and directions are
/// in (mu, s = log sigma).
struct GaussianPass {
  Set set = Set::support;
  /// gradient() only: after `set`, the support set is passed too, as a separate set.
  bool and_support = false;
  Scale scale;
  Estimator estimator = Estimator::weight;
  Block mu, sigma;
  GaussianNoise noise;
  /// A block in which the draw may be kept (GaussianPasses::draw_memory). `drawn` says that it
  /// holds the draw of an earlier pass at the same mu and sigma. Only the backend reads its
  /// contents.
  Block kept = {};
  bool drawn = false;
};

/// Passes of one wave under Gaussian weights. The scratch blocks belong to that wave.
class GaussianPasses {
 public:
  explicit GaussianPasses(Wave& wave) : wave_(wave) {}
  GaussianPasses(const GaussianPasses&) = delete;
  GaussianPasses& operator=(const GaussianPasses&) = delete;
  virtual ~GaussianPasses() = default;

  /// Returns a new block for GaussianPass::kept, or an empty one where there is nothing to keep.
  virtual Block draw_memory(Estimator estimator);
  /// (g_mu, g_s) += a * the gradient of scale * sum nll at the sample. loss[b] += scale * sum nll
  /// where `loss` is given.
  virtual void gradient(const GaussianPass& pass, double a, Block g_mu, Block g_s, Block loss);
  /// (g_mu, g_s) += the pull-back of the output gradient g_outputs (NetworkPasses::output_pullback)
  /// at the sample. Only for the estimator `weight` and one set; throws std::logic_error for
  /// others.
  virtual void output_pullback(const GaussianPass& pass, Block g_outputs, Block g_mu, Block g_s);
  /// (r_mu, r_s) += a * the derivative of that gradient along (v_mu, v_s), without the term that
  /// curvature() adds.
  virtual void hessian_vector(const GaussianPass& pass, double a, Block v_mu, Block v_s, Block r_mu,
                              Block r_s);
  /// Adds the term that hessian_vector() leaves out, without a pass over the rows:
  /// r_s += a c * g_s * v_s. g_s is the gradient by s, of one sample or summed over several. The
  /// term exists because the sampled weights (c = 1) or variances (c = 2) are not linear in s.
  virtual void curvature(Estimator estimator, double a, Block r_s, Block g_s, Block v_s);
  /// Forward pass only, as NetworkPasses::value().
  virtual void value(const GaussianPass& pass, Block loss, Block outputs,
                     NormStatistics statistics);

 private:
  /// Scratch block `i` of the composed operations, made on first use.
  Block scratch(std::size_t i);
  /// phi and eps of a sample with the estimator `weight`.
  struct Sampled {
    Block phi, eps;
  };
  /// Draws new noise, or takes the noise that is given.
  void sample(const GaussianPass& pass, Block phi, Block eps);
  Sampled draw_weights(const GaussianPass& pass);
  /// The two weight vectors of a SplitPass (flipout, local). The derivative of the spread by s is
  /// factor * slope.
  struct Split {
    Block mean, spread, slope;
    double factor = 1.0;
  };
  Split draw_split(const GaussianPass& pass);
  static NetworkPasses::SplitPass split_pass(const GaussianPass& pass, const Split& split, Set set);
  /// A mask: 1 for parameters that the estimator draws, 0 for parameters that it splits into mean
  /// and spread. Empty where the estimator splits all parameters.
  Block drawn_mask(Estimator estimator);

  Wave& wave_;
  std::vector<Block> scratch_;
  struct Mask {
    Block block;
    int tasks = 0;  ///< for how many tasks it is uploaded
  };
  Mask drawn_masks_[3];
};

}  // namespace kshot::backend
