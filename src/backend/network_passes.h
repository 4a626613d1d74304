// The network on a set of rows, under each task's own weights: values, gradients, pull-backs and
// Hessian-vector products, and inner and adjoint steps composed of them.
#pragma once

#include "backend/task_rows.h"
#include "backend/task_vectors.h"
#include "backend/values.h"

namespace kshot::backend {

/// The public functions check blocks and sets, once for every backend, and then call the backend's
/// do_... function. A wrong argument is a mistake in our own code and throws std::logic_error.
class NetworkPasses {
 public:
  virtual ~NetworkPasses() = default;

  /// One set of rows under one set of weights. The loss is the negative log-likelihood (nll),
  /// summed over the rows of the set, times `scale`.
  struct Pass {
    Set set = Set::support;
    Block weights;
    Scale scale;
    /// A number >= 0 under which gradient() may keep its activations for the hessian_vector() with
    /// the same number. The tasks, set, weights, scale and dropout of the two calls must be the
    /// same. -1: nothing is kept. A backend keeps as many activations as it chooses, within a fixed
    /// size. Memory therefore grows with the number of inner steps only by the iterates.
    int activations = -1;
    Dropout dropout = {};
  };
  /// loss[b] += scale * sum nll where `loss` is given. The gradient overwrites `grad`, or is added
  /// to it.
  void gradient(const Pass& pass, Block grad, bool accumulate, Block loss);
  /// Pull-back of an output gradient (vector-Jacobian product): grad = or += the sum over the rows
  /// of the set of (d outputs / d weights)^T g_outputs. `g_outputs` has the layout of outputs(set),
  /// [rows(set), outputs]. Rows beyond the task's own count are not read. Norm layers are
  /// differentiated through the statistics of the set itself. pass.scale is not used.
  void output_pullback(const Pass& pass, Block g_outputs, Block grad, bool accumulate);
  /// hv = or += scale * (d2 sum nll / dw2) direction, computed forward over reverse (Pearlmutter
  /// 1994). Where `grad` is given, it is overwritten with the gradient.
  void hessian_vector(const Pass& pass, Block direction, Block hv, bool accumulate, Block grad);
  /// Inner step: dst = src - rate * gradient. `scratch` may be overwritten.
  void gradient_step(const Pass& pass, Block dst, Block src, const Rate& rate, Block scratch);
  /// Adjoint step: dst = v - H (rate * v). dst must not be v. Where `grad` is given, it is
  /// overwritten with the gradient. `scratch` may be overwritten.
  void hessian_step(const Pass& pass, Block dst, Block v, const Rate& rate, Block grad,
                    Block scratch);
  /// Forward pass only. Adds to `loss` as gradient() does, where `loss` is given. Writes `outputs`
  /// [rows(set), outputs], where given, with zeros in rows beyond the task's own.
  void value(const Pass& pass, Block loss, Block outputs, NormStatistics statistics);

  // ---- passes for the estimators flipout and local ----
  /// The network with two vectors of weights, `mean` and `spread` (s below), and noise by rows. A
  /// linear or convolution layer f computes
  ///   flipout  f(x; mean) + bias + r_out * f(r_in * x; s),  s = sigma * eps
  ///   local    f(x; mean) + bias + sqrt(f(x^2; s) + s_bias) * zeta,  s = sigma^2
  /// All other parameters (those of norm layers, and the biases under flipout) are taken unchanged
  /// from `mean`.
  struct SplitPass {
    Set set = Set::support;
    Estimator estimator = Estimator::flipout;
    Block mean, spread;
    Scale scale;
    const GaussianNoise* noise = nullptr;
  };
  /// g_mean and g_spread = or += the gradients. For a parameter that is taken from `mean` alone,
  /// g_spread gets the same gradient as g_mean. loss[b] += scale * sum nll where `loss` is given.
  /// This function and the next two throw DeviceError where the backend has only the estimator
  /// `weight`.
  void split_gradient(const SplitPass& pass, Block g_mean, Block g_spread, bool accumulate,
                      Block loss);
  /// Overwrites h_mean and h_spread with the derivatives of g_mean and g_spread along (u_mean,
  /// u_spread). For a parameter that is taken from `mean` alone, both get the same derivative.
  void split_hessian_vector(const SplitPass& pass, Block u_mean, Block u_spread, Block h_mean,
                            Block h_spread);
  void split_value(const SplitPass& pass, Block loss, Block outputs, NormStatistics statistics);

 protected:
  virtual void do_gradient(const Pass& pass, Block grad, bool accumulate, Block loss) = 0;
  virtual void do_output_pullback(const Pass& pass, Block g_outputs, Block grad,
                                  bool accumulate) = 0;
  virtual void do_hessian_vector(const Pass& pass, Block direction, Block hv, bool accumulate,
                                 Block grad) = 0;
  /// The default of this function and of the next composes a pass and a rate step. A backend may
  /// fuse them.
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

  /// The vectors and the rows of the same wave. The composed steps use their operations.
  virtual TaskVectors& vectors() = 0;
  virtual const TaskRows& rows_part() const = 0;

 private:
  void require_set(const char* operation, Set set) const;
  void require_loss(const char* operation, Block loss);
  void require_outputs(const char* operation, Set set, Block outputs);
};

}  // namespace kshot::backend
