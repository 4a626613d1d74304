// The path of small perceptrons: whole inner loops in one kernel (kernels/perceptron.h).
#pragma once

#include <optional>

#include "backend/backend.h"
#include "backend/cuda/memory.h"
#include "kernels/gaussian_perceptron.h"
#include "kernels/perceptron.h"
#include "kshot/network.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// The network in the kernel's form: linear layers, each with at most one activation. Empty for any
/// other network, or one with too many layers.
std::optional<Perceptron> as_perceptron(const Network& network);

/// The path of one wave, on the current device.
template <class T>
class PerceptronPath {
 public:
  PerceptronPath(const Network& network, const backend::WaveShape& shape);

  bool open() const { return plans_[0] && plans_[1]; }
  /// Allocates memory for the adjoint of `steps` inner steps of `tasks` tasks.
  void reserve(int tasks, int steps);
  /// Returns false, without doing anything, for networks that the kernel does not take and where
  /// shared memory is too small. `descent` comes without scratch memory.
  bool run(PerceptronDescent<T> descent, int tasks, const Stream& stream);

  /// Allocates memory for the adjoint of `steps` inner steps of `tasks` tasks under Gaussian
  /// weights. `samples` is the largest number of samples of a step, and adjoint_samples the
  /// number of samples of all inner steps that are differentiated.
  void reserve_gaussian(int tasks, int steps, int samples, int adjoint_samples);
  bool run(GaussianDescent<T> descent, int tasks, const Stream& stream);

 private:
  const std::optional<PerceptronPlan>& gaussian_plan(int samples);

  std::optional<Perceptron> perceptron_;
  int rows_;
  DeviceLimits limits_;
  std::optional<PerceptronPlan> plans_[2];  ///< without and with a direction, or vectors of rates
  std::optional<PerceptronPlan> gaussian_;  ///< the last plan that was asked for
  int gaussian_samples_ = 0;
  DeviceMemory<T> iterates_;
};

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
