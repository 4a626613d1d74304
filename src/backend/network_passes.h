// The network on a set of rows, under each task's own weights: values, gradients, pull-backs and
// Hessian-vector products, and the fused steps that are made of them.
#pragma once

#include <stdexcept>

#include "backend/task_vectors.h"
#include "backend/values.h"

namespace kshot::backend {

class NetworkPasses {
 public:
  virtual ~NetworkPasses() = default;

  /// One set of rows under one set of weights; nll summed over the set's rows, times `scale`.
  struct Pass {
    Set set = Set::support;
    Block weights;
    Scale scale;
    /// A number >= 0 a gradient's activations may be kept under, for the Hessian-vector product
    /// that names it too: same tasks, set, weights, scale and dropout. A backend keeps as many as
    /// it sees fit, within a fixed size: what grows with the number of inner steps are the
    /// iterates.
    int activations = -1;
    Dropout dropout = {};
  };
  /// loss[b] += scale * sum nll (where `loss` is given); grad = or += its gradient.
  virtual void gradient(const Pass& pass, Block grad, bool accumulate, Block loss) = 0;
  /// Pull-back of an output gradient (vector-Jacobian product): grad = or += sum over the rows of
  /// the set of (d outputs / d weights)^T g_outputs. `g_outputs` is laid out as outputs(set),
  /// [rows(set), outputs]; rows beyond the task's own count are not read. Norm layers are
  /// differentiated through the statistics of the set at hand. pass.scale is not used.
  virtual void output_pullback(const Pass& /*pass*/, Block /*g_outputs*/, Block /*grad*/,
                               bool /*accumulate*/) {
    throw std::logic_error("output_pullback is not there yet on this backend");
  }
  /// hv = or += scale * (d2 sum nll / dw2) direction; the gradient itself into `grad` where wanted
  /// (overwritten). Forward over reverse (Pearlmutter 1994).
  virtual void hessian_vector(const Pass& pass, Block direction, Block hv, bool accumulate,
                              Block grad) = 0;
  /// dst = src - rate * gradient: an inner step. A backend may fuse the two; here they are
  /// composed.
  virtual void gradient_step(const Pass& pass, Block dst, Block src, const Rate& rate,
                             Block scratch) {
    gradient(pass, scratch, false, {});
    vectors().rate_step(dst, src, rate, scratch);
  }
  /// dst = v - H (rate * v): an adjoint step, likewise; dst is not v. The gradient into `grad`
  /// where wanted.
  virtual void hessian_step(const Pass& pass, Block dst, Block v, const Rate& rate, Block grad,
                            Block scratch) {
    vectors().rate_multiply(scratch, rate, v);
    hessian_vector(pass, scratch, dst, false, grad);
    vectors().rate_step(dst, v, {1.0}, dst);
  }
  /// Forward only: loss as above where given, outputs [rows of the set (largest), outputs] where
  /// given; rows beyond the task's own are zero.
  virtual void value(const Pass& pass, Block loss, Block outputs, NormStatistics statistics) = 0;

  // ---- what flipout and local are composed of ----
  /// The network with two vectors of weights, `mean` and `spread` (s), and noise by rows. A linear
  /// or convolution layer f gives
  ///   flipout  f(x; mean) + bias + r_out * f(r_in * x; s),  s = sigma * eps
  ///   local    f(x; mean) + bias + sqrt(f(x^2; s) + s_bias) * zeta,  s = sigma^2
  /// and every other parameter (norm; flipout's biases) is taken from `mean` as it stands.
  struct SplitPass {
    Set set = Set::support;
    Estimator estimator = Estimator::flipout;
    Block mean, spread;
    Scale scale;
    const GaussianNoise* noise = nullptr;
  };
  /// g_mean and g_spread = or += gradients; where a parameter is taken from `mean` alone, g_spread
  /// gets the same as g_mean. loss[b] += scale * sum nll where given. Throws DeviceError where the
  /// backend has only the estimator `weight`, as the next two.
  virtual void split_gradient(const SplitPass& pass, Block g_mean, Block g_spread, bool accumulate,
                              Block loss);
  /// Their derivatives along (u_mean, u_spread), overwriting h_mean and h_spread; those of a
  /// parameter taken from `mean` alone likewise in both.
  virtual void split_hessian_vector(const SplitPass& pass, Block u_mean, Block u_spread,
                                    Block h_mean, Block h_spread);
  virtual void split_value(const SplitPass& pass, Block loss, Block outputs,
                           NormStatistics statistics);

 protected:
  /// The algebra that fused steps are composed of.
  virtual TaskVectors& vectors() = 0;
};

}  // namespace kshot::backend
