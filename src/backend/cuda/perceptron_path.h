// The way of small perceptrons: whole inner loops in one kernel (kernels/perceptron.h).
#pragma once

#include <optional>

#include "backend/backend.h"
#include "backend/cuda/memory.h"
#include "kernels/gaussian_perceptron.h"
#include "kernels/perceptron.h"
#include "kshot/network.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// The network as the kernel takes it: linear layers, each with one activation or none. None where
/// it is something else, or has too many layers.
std::optional<Perceptron> as_perceptron(const Network& network);

/// Of one wave, on the device that is current.
template <class T>
class PerceptronPath {
 public:
  PerceptronPath(const Network& network, const backend::WaveShape& shape);

  bool open() const { return plans_[0] && plans_[1]; }
  /// Memory for the adjoint of so many inner steps of so many tasks.
  void reserve(int tasks, int steps);
  /// False, with nothing done, for networks that the kernel does not take and where shared memory
  /// is too small. `descent` comes without scratch memory.
  bool run(PerceptronDescent<T> descent, int tasks, const Stream& stream);

  /// The same for Gaussian weights; samples: the most of any step; samples_to_go_back: of all inner
  /// steps, where they are differentiated.
  void reserve_gaussian(int tasks, int steps, int samples, int samples_to_go_back);
  bool run(GaussianDescent<T> descent, int tasks, const Stream& stream);

 private:
  const std::optional<PerceptronPlan>& gaussian_plan(int samples);

  std::optional<Perceptron> perceptron_;
  int rows_;
  DeviceLimits limits_;
  std::optional<PerceptronPlan> plans_[2];  ///< without, and with a direction of its own
  std::optional<PerceptronPlan> gaussian_;  ///< the last one asked for
  int gaussian_samples_ = 0;
  DeviceMemory<T> iterates_;
};

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
