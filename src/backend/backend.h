// The backend interface: the only way from an algorithm to a device.
//
// A Backend owns the vectors that all tasks share (weights, gradients, optimizer state;
// shared_vectors.h) and opens Waves (wave.h). A Wave holds a set of tasks in the backend's own
// layout, and each of its operations acts on all of these tasks. Algorithms (src/algorithms) use
// only these operations, so each algorithm is written once and runs on every backend. The interface
// has one header per part, and a function takes only the part that it needs:
//
//   task_rows.h         the rows of the tasks, which are loaded and checked, or drawn
//   task_vectors.h      per-task vectors and their algebra
//   gaussian_vectors.h  draws from Gaussians over weights; KL and its derivatives
//   network_passes.h    the network: values, gradients, pull-backs, Hessian-vector products
//   gaussian_passes.h   the network under Gaussian weights, composed of the parts above
//   fused_descent.h     optional: a whole inner loop and its adjoint as one fused operation
//   generator.h         networks that make the weights of a task (LEO)
//   linear_algebra.h    small dense matrices (closed-form heads)
//   step.h              the reduction over tasks and the statistics of a training step
//
// There are three backends:
//
//   reference   double; one task per wave; plain loops
//   cpu         float; a SIMD group of tasks per wave (small or shared networks), or one task
//   cuda        float or double; thousands of tasks per wave, on a GPU or emulated (simt)
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backend/shared_vectors.h"
#include "backend/step.h"
#include "backend/wave.h"
#include "base/thread_pool.h"
#include "kshot/communicator.h"
#include "kshot/episode.h"
#include "kshot/network.h"

namespace kshot::backend {

/// Work and memory that each task of a wave will need. engine/plan.h counts them before a wave is
/// opened.
struct WaveDemand {
  std::shared_ptr<const Network> network;
  Loss loss;
  WaveShape shape;
  /// Scalars of all blocks of one task.
  std::size_t vector_scalars = 0;
  /// Gradient scalars of one task that the reduction sums.
  std::size_t gradient_scalars = 0;
  /// The algorithm computes Hessian-vector products.
  bool hessian_vectors = false;
  /// Some Hessian-vector products also return the gradient.
  bool hessian_gradients = false;
  bool dropout = false;
  // The next three members describe the calls of Wave::fused_descent. They are 0 where there are
  // none.
  int descent_steps = 0;
  /// Largest number of samples of a step. 0: the descent is on a point, not on a Gaussian.
  int descent_samples = 0;
  /// Number of samples of all inner steps that are differentiated.
  int descent_noise = 0;
  /// Passes with noise by rows (NetworkPasses::SplitPass) and their Hessian-vector products, by
  /// Estimator.
  struct Split {
    bool passes = false, hessian_vectors = false;
  } split[3];
  std::shared_ptr<const GeneratorSpec> generator;  ///< null: there is none
  bool encoder_dropout = false, decoder_tangents = false;
};

/// The size of waves that a backend chose to fit its memory.
struct WavePlan {
  /// Number of tasks per wave. 0: the backend does not plan; the size of its waves is fixed.
  int tasks = 0;
  /// Bytes of device memory per task of a wave.
  std::size_t task_bytes = 0;
};

/// Where the tasks of a source are drawn: by the backend, or by the host.
struct EpisodePlace {
  /// The source's data in the backend. Null: the host draws the tasks.
  std::shared_ptr<const Episodes> episodes;
  /// Why the host draws the tasks. Empty where the backend never draws tasks.
  std::string reason;
  /// Bytes of the backend's memory that the source's data take.
  std::size_t bytes = 0;
};

/// A backend: the algebra of shared vectors, and the maker of waves, reductions and steps.
class Backend : public SharedVectors {
 public:
  virtual std::string name() const = 0;         ///< "reference", "cpu", ...
  virtual std::string description() const = 0;  ///< for logs: instruction set, lanes, device
  virtual Precision precision() const = 0;
  /// Number of waves that can be computed concurrently (threads or streams).
  virtual int concurrency() const = 0;
  /// A pool of concurrency() threads for loops over waves or over shared vectors, one loop at a
  /// time. It is made on first use.
  ThreadPool& pool() {
    if (!pool_) pool_ = std::make_unique<ThreadPool>(concurrency());
    return *pool_;
  }

  virtual std::unique_ptr<Wave> open(std::shared_ptr<const Network> network, const Loss& loss,
                                     const WaveShape& shape) = 0;
  /// Opens a wave for this network, loss and shape.
  virtual std::unique_ptr<Reduction> reduction(std::span<const std::size_t> widths) = 0;
  virtual std::unique_ptr<Step> open_step() = 0;
  /// Makes a reduction of gradients of these widths.
  /// Chooses the size of the waves that are opened from now on for the network and shape of
  /// `demand`, such that the waves of all workers fit into memory together. demand(tasks) describes
  /// a wave of that many tasks. Waves for which this was not called are as small as they can be.
  /// Throws DeviceError where the smallest wave does not fit.
  virtual WavePlan plan_waves(const std::function<WaveDemand(int tasks)>& /*demand*/) { return {}; }
  /// Prepares the backend to draw the tasks of a split itself, where it can: copies the source's
  /// data into its memory if they fit. Call it before plan_waves, which divides the remaining
  /// memory. The recipe is not used after the call returns.
  virtual EpisodePlace place(const EpisodeRecipe& /*recipe*/, Split /*split*/) { return {}; }
  /// Whether waves for this network and shape have a fused_descent. plan_waves asks before any such
  /// wave is opened.
  virtual bool fuses_descent(const Network& /*network*/, const WaveShape& /*shape*/) const {
    return false;
  }
  /// Bytes of device memory that this program has allocated, as the backend counts them. 0 where
  /// the backend computes in host memory.
  virtual std::size_t device_bytes() const { return 0; }
  /// Sets the ranks over which reductions sum that are made from now on. Null: this process alone.
  virtual void set_ranks(std::shared_ptr<Communicator> ranks) { ranks_ = std::move(ranks); }
  const std::shared_ptr<Communicator>& ranks() const { return ranks_; }
  /// Whether Reduction::finish with several ranks runs without the host.
  virtual bool exchanges_on_device() const { return false; }
  /// Whether the backend computes asynchronously, so that the host's threads are free to prepare
  /// the next work.
  virtual bool asynchronous() const { return false; }

  /// Runs `work` and returns the value that it adds to `to`.
  double value(const std::function<void(Sum to)>& work);

 private:
  std::unique_ptr<Step> value_step_;  ///< the step that value() uses
  std::shared_ptr<Communicator> ranks_;
  std::unique_ptr<ThreadPool> pool_;
};

/// A device that the user can name. If `usable` is false, `reason` says why.
struct DeviceInfo {
  /// The name that --device takes.
  std::string name;
  std::string description;
  bool usable = false;
  std::string reason;
};
std::vector<DeviceInfo> list_devices();

/// A backend that is not part of the library but of a program that links it: the emulator in
/// tests/simt, which must never be in an installed library.
struct AddedBackend {
  DeviceInfo device;
  std::function<std::unique_ptr<Backend>(int threads, Precision precision)> make;
};
/// Registers a backend for list_devices and make_backend. Call it while the program starts, before
/// there are other threads. Returns true, so that the call can initialize a variable.
bool add_backend(AddedBackend backend);

/// Makes a backend by its name: "reference", "cpu", "auto" (its `description` says what was
/// chosen), "cuda" and "cuda:N" (GPUs), or "simt" (emulated CUDA, for tests). `precision` applies
/// to "cuda" and "simt" only and is f32 by default; the other backends have one precision each.
/// threads = 0 uses all cores. Throws DeviceError, with the reason, for a device that this build or
/// machine does not have.
std::unique_ptr<Backend> make_backend(const std::string& device, int threads,
                                      std::optional<Precision> precision = {});

}  // namespace kshot::backend
