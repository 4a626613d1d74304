// Small perceptrons under Gaussian weights (ABML): one launch computes a task's whole inner loop,
// the outer loss and the adjoint of both. Pointers are device memory. Instantiated for float and
// double.
#pragma once

#include <cstddef>

#include "kernels/perceptron.h"
#include "kshot/random.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// The standard normal noise of all samples. Element i of a sample of task t is normal_element of
/// `key` with key.task + t, and with the inner step and the sample set in the key (kshot/random.h).
/// If `given` is not null, it is given[step * step_stride + t * task_stride + sample *
/// sample_stride + i] instead.
template <class T>
struct PerceptronNoise {
  RandomKey key;
  const T* given = nullptr;
  std::size_t step_stride = 0, task_stride = 0, sample_stride = 0;
};

/// The descent of each task: q_0 = (mu, s) = theta for all tasks, and q_{k+1} = q_k - rate_k grad
/// L(q_k) for k < steps, with
///   L(q) = mean over samples of the scaled loss of `inner` at phi = mu + exp(s) eps, plus
///          kl KL(q || p),
/// where p is the Gaussian of theta. The outer loss at q_steps is the mean over outer samples of
/// the scaled loss of `outer`, and of `second` if there are two sets, plus outer_kl KL(q || p). Its
/// gradient by theta goes through the steps and through the priors of both KLs.
template <class T>
struct GaussianDescent {
  const T* mu = nullptr;  ///< theta [D]
  const T* s = nullptr;
  int steps = 0;
  int rate_count = 1;  ///< the last rate also serves all later steps
  RateArgument<T> rates[most_descent_rates];
  PerceptronRows<T> inner;
  int samples = 1;
  PerceptronNoise<T> noise;
  TaskScale<T> kl;  ///< a factor of 0: no KL
  bool second_order = true;
  bool prior_path = true;  ///< theta is also differentiated as the prior of the inner KL

  PerceptronRows<T> outer;
  bool two_sets = false;
  PerceptronRows<T> second;  ///< only with two_sets; its scale is that of `outer`
  int outer_samples = 1;
  PerceptronNoise<T> outer_noise;  ///< its seed is that of `noise`
  TaskScale<T> outer_kl;

  T* end_mu = nullptr;  ///< q_steps [tasks, D]
  T* end_s = nullptr;
  T* gradient_mu = nullptr;  ///< by theta [tasks, D], overwritten
  T* gradient_s = nullptr;
  T* loss = nullptr;  ///< [tasks], added to

  T* scratch = nullptr;  ///< gaussian_scratch scalars

  /// The number of inner samples whose noise is kept for the adjoint.
  int adjoint_samples() const { return second_order ? steps * samples : 0; }
};

/// Plans as plan_perceptron does. The number of teams, each of which computes one sample at a time,
/// is the largest that `samples` (the most samples of any step) and the device have a use for.
template <class T>
bool plan_gaussian_perceptron(PerceptronPlan& plan, const Perceptron& network, int rows,
                              int samples, const DeviceLimits& device);
/// Number of scalars of scratch memory.
std::size_t gaussian_scratch(const PerceptronPlan& plan, int tasks, int steps, int adjoint_samples);

template <class T>
void gaussian_perceptron_descent(const PerceptronPlan& plan, const GaussianDescent<T>& descent,
                                 int tasks, cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
