// Small perceptrons under Gaussian weights (ABML): a task's whole inner loop, the outer loss and
// the adjoint of it all in one launch. Pointers are device memory; instantiated for float and
// double.
#pragma once

#include <cstddef>

#include "kernels/perceptron.h"
#include "kshot/random.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// Standard normal noise of all samples: element i of task t's sample is normal_element of `key`
/// with key.task + t, inner_step and sample set (kshot/random.h), or given[step * step_stride + t *
/// task_stride + sample * sample_stride + i].
template <class T>
struct PerceptronNoise {
  RandomKey key;
  const T* given = nullptr;
  std::size_t step_stride = 0, task_stride = 0, sample_stride = 0;
};

/// q_0 = (mu, s) = theta for all tasks, q_{k+1} = q_k - rate_k grad L(q_k) for k < steps, with
///   L(q) = mean over samples of the scaled loss of `inner` at phi = mu + exp(s) eps + kl KL(q ||
///   p),
/// p the Gaussian of theta; then at q_steps the mean over outer samples of the scaled loss of
/// `outer`, and of a second set, plus outer_kl KL(q || p), and its gradient by theta, through the
/// steps and through both priors.
template <class T>
struct GaussianDescent {
  const T* mu = nullptr;  ///< theta [D]
  const T* s = nullptr;
  int steps = 0;
  int rate_count = 1;  ///< the last serves the steps beyond
  RateArgument<T> rates[most_descent_rates];
  PerceptronRows<T> inner;
  int samples = 1;
  PerceptronNoise<T> noise;
  TaskScale<T> kl;  ///< a factor of 0: none
  bool second_order = true;
  bool prior_path = true;  ///< theta is differentiated as the inner KL's prior too

  PerceptronRows<T> outer;
  bool two_sets = false;
  PerceptronRows<T> second;  ///< where there are two; of the same scale
  int outer_samples = 1;
  PerceptronNoise<T> outer_noise;  ///< of the same seed
  TaskScale<T> outer_kl;

  T* end_mu = nullptr;  ///< q_steps [tasks, D]
  T* end_s = nullptr;
  T* gradient_mu = nullptr;  ///< by theta [tasks, D], overwritten
  T* gradient_s = nullptr;
  T* loss = nullptr;  ///< [tasks], added to

  T* scratch = nullptr;  ///< gaussian_scratch scalars

  /// Inner samples whose noise is kept for the adjoint.
  int samples_to_go_back() const { return second_order ? steps * samples : 0; }
};

/// As plan_perceptron, with as many teams (samples at once) as `samples`, the most of any step, and
/// the device have a use for.
template <class T>
bool plan_gaussian_perceptron(PerceptronPlan& plan, const Perceptron& network, int rows,
                              int samples, const DeviceLimits& device);
/// Scalars of scratch memory.
std::size_t gaussian_scratch(const PerceptronPlan& plan, int tasks, int steps,
                             int samples_to_go_back);

template <class T>
void gaussian_perceptron_descent(const PerceptronPlan& plan, const GaussianDescent<T>& descent,
                                 int tasks, cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
