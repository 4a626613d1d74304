// The network on a set of rows, under each task's own weights: values, gradients, pull-backs and
// Hessian-vector products, and the fused steps that are made of them.
#pragma once

#include "backend/task_rows.h"
#include "backend/task_vectors.h"
#include "backend/values.h"

namespace kshot::backend {

/// The public functions check blocks and sets, once for every backend, and then call the backend's
/// do_... function; what does not fit is a mistake of our own code: std::logic_error.
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
  void gradient(const Pass& pass, Block grad, bool accumulate, Block loss);
  /// Pull-back of an output gradient (vector-Jacobian product): grad = or += sum over the rows of
  /// the set of (d outputs / d weights)^T g_outputs. `g_outputs` is laid out as outputs(set),
  /// [rows(set), outputs]; rows beyond the task's own count are not read. Norm layers are
  /// differentiated through the statistics of the set at hand. pass.scale is not used.
  void output_pullback(const Pass& pass, Block g_outputs, Block grad, bool accumulate);
  /// hv = or += scale * (d2 sum nll / dw2) direction; the gradient itself into `grad` where wanted
  /// (overwritten). Forward over reverse (Pearlmutter 1994).
  void hessian_vector(const Pass& pass, Block direction, Block hv, bool accumulate, Block grad);
  /// dst = src - rate * gradient: an inner step. `scratch` may be written to.
  void gradient_step(const Pass& pass, Block dst, Block src, const Rate& rate, Block scratch);
  /// dst = v - H (rate * v): an adjoint step, likewise; dst is not v. The gradient into `grad`
  /// where wanted.
  void hessian_step(const Pass& pass, Block dst, Block v, const Rate& rate, Block grad,
                    Block scratch);
  /// Forward only: loss as above where given, outputs [rows of the set (largest), outputs] where
  /// given; rows beyond the task's own are zero.
  void value(const Pass& pass, Block loss, Block outputs, NormStatistics statistics);

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
  void split_gradient(const SplitPass& pass, Block g_mean, Block g_spread, bool accumulate,
                      Block loss);
  /// Their derivatives along (u_mean, u_spread), overwriting h_mean and h_spread; those of a
  /// parameter taken from `mean` alone likewise in both.
  void split_hessian_vector(const SplitPass& pass, Block u_mean, Block u_spread, Block h_mean,
                            Block h_spread);
  void split_value(const SplitPass& pass, Block loss, Block outputs, NormStatistics statistics);

 protected:
  virtual void do_gradient(const Pass& pass, Block grad, bool accumulate, Block loss) = 0;
  virtual void do_output_pullback(const Pass& pass, Block g_outputs, Block grad,
                                  bool accumulate) = 0;
  virtual void do_hessian_vector(const Pass& pass, Block direction, Block hv, bool accumulate,
                                 Block grad) = 0;
  /// Composed here; a backend may fuse the two parts, as of the next.
  virtual void do_gradient_step(const Pass& pass, Block dst, Block src, const Rate& rate,
                                Block scratch);
  virtual void do_hessian_step(const Pass& pass, Block dst, Block v, const Rate& rate, Block grad,
                               Block scratch);
  virtual void do_value(const Pass& pass, Block loss, Block outputs, NormStatistics statistics) = 0;
  virtual void do_split_gradient(const SplitPass& pass, Block g_mean, Block g_spread,
                                 bool accumulate, Block loss);
  virtual void do_split_hessian_vector(const SplitPass& pass, Block u_mean, Block u_spread,
                                       Block h_mean, Block h_spread);
  virtual void do_split_value(const SplitPass& pass, Block loss, Block outputs,
                              NormStatistics statistics);

  /// The algebra that fused steps are composed of, and the rows: parts of the same wave.
  virtual TaskVectors& vectors() = 0;
  virtual const TaskRows& rows_part() const = 0;

 private:
  void require_set(const char* operation, Set set) const;
  void require_loss(const char* operation, Block loss);
  void require_outputs(const char* operation, Set set, Block outputs);
};

}  // namespace kshot::backend
