// The only door to a device.
//
// A Backend owns vectors that all tasks share (weights, gradients, optimiser state;
// shared_vectors.h) and opens Waves (wave.h). A Wave holds a set of tasks in the backend's own
// layout and acts on all of them at once. Algorithms are written on these operations alone
// (src/algorithms), once for all backends. Each part has its header, and a function takes the part
// that it needs:
//
//   task_rows.h         the tasks' rows: loaded and checked, or drawn
//   task_vectors.h      per-task vectors and their algebra
//   gaussian_vectors.h  draws from Gaussians over weights, KL and its derivatives
//   network_passes.h    the network: values, gradients, pull-backs, Hessian-vector products
//   gaussian_passes.h   the network under Gaussian weights, composed of the above
//   fused_descent.h     optional: a whole inner loop and its adjoint at once
//   generator.h         networks that make a task's weights (LEO)
//   linear_algebra.h    small dense matrices (closed-form heads)
//   step.h              the reduction over tasks and the statistics of a training step
//
//   reference   double, one task a wave, plain loops
//   cpu         float, a SIMD group of tasks (small networks, shared networks) or one task a wave
//   cuda        float or double, thousands of tasks a wave, on a GPU or emulated (simt)
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

/// What each task of a wave will take, counted before one is opened (engine/plan.h).
struct WaveDemand {
  std::shared_ptr<const Network> network;
  Loss loss;
  WaveShape shape;
  std::size_t vector_scalars = 0;    ///< of all blocks
  std::size_t gradient_scalars = 0;  ///< that the reduction sums
  bool hessian_vectors = false;      ///< there are some
  bool hessian_gradients = false;    ///< and some give the gradient as well
  bool dropout = false;
  // These three say what Wave::fused_descent will be asked for. They are 0 where a wave has none.
  int descent_steps = 0;
  int descent_samples = 0;  ///< the most of any step; 0: of a point
  int descent_noise = 0;    ///< samples of all inner steps that are differentiated
  /// Passes with noise by rows, and Hessian-vector products of them; by Estimator.
  struct Split {
    bool passes = false, hessian_vectors = false;
  } split[3];
  std::shared_ptr<const GeneratorSpec> generator;  ///< null: none
  bool encoder_dropout = false, decoder_tangents = false;
};

/// The size of waves that a backend chose by its memory.
struct WavePlan {
  int tasks = 0;               ///< of a wave; 0: waves have a size of their own
  std::size_t task_bytes = 0;  ///< a task's share of the device's memory that a wave takes
};

/// Where a source's tasks come from.
struct EpisodePlace {
  std::shared_ptr<const Episodes> here;  ///< null: from the host
  std::string reason;                    ///< why from the host; empty where there is no choice
  std::size_t bytes = 0;                 ///< of the backend's memory that they take
};

class Backend : public SharedVectors {
 public:
  virtual std::string name() const = 0;         ///< "reference", "cpu", ...
  virtual std::string description() const = 0;  ///< for logs: instruction set, lanes, device
  virtual Precision precision() const = 0;
  /// Waves that can run at once (threads or streams).
  virtual int concurrency() const = 0;
  /// As many threads for loops over waves or over shared vectors, one loop at a time; made when
  /// first asked for.
  ThreadPool& pool() {
    if (!pool_) pool_ = std::make_unique<ThreadPool>(concurrency());
    return *pool_;
  }

  virtual std::unique_ptr<Wave> open(std::shared_ptr<const Network> network, const Loss& loss,
                                     const WaveShape& shape) = 0;
  virtual std::unique_ptr<Reduction> reduction(std::span<const std::size_t> widths) = 0;
  virtual std::unique_ptr<Step> open_step() = 0;
  /// Sizes the waves for such a network and shape that are opened from now on, for all workers
  /// together; demand(tasks): of a wave of so many tasks. Others are as small as they can be.
  /// Throws DeviceError where the smallest does not fit.
  virtual WavePlan plan_waves(const std::function<WaveDemand(int tasks)>& /*demand*/) { return {}; }
  /// Prepares to draw tasks of a split by itself and brings what they are made of to its memory,
  /// where it can and that fits. To be asked for before plan_waves, which has what is left. The
  /// recipe is not needed any more when it returns.
  virtual EpisodePlace place(const EpisodeRecipe& /*recipe*/, Split /*split*/) { return {}; }
  /// Whether its waves have a fused_descent for such a network and shape: plan_waves asks before
  /// there is one.
  virtual bool fuses_descent(const Network& /*network*/, const WaveShape& /*shape*/) const {
    return false;
  }
  /// Bytes of device memory that this program has taken, as its allocations count them; 0 where a
  /// backend's memory is the host's.
  virtual std::size_t device_bytes() const { return 0; }
  /// The ranks that reductions made from now on sum over; null: this process alone.
  virtual void set_ranks(std::shared_ptr<Communicator> ranks) { ranks_ = std::move(ranks); }
  const std::shared_ptr<Communicator>& ranks() const { return ranks_; }
  /// Whether Reduction::finish of several ranks needs nothing from the host.
  virtual bool exchanges_on_device() const { return false; }
  /// Computes beside the host's threads, which are free to prepare what comes next.
  virtual bool asynchronous() const { return false; }

  /// What `work` adds, read at once.
  double value(const std::function<void(Sum to)>& work);

 private:
  std::unique_ptr<Step> value_step_;  ///< of value()
  std::shared_ptr<Communicator> ranks_;
  std::unique_ptr<ThreadPool> pool_;
};

/// What a machine offers. `usable` false comes with the reason.
struct DeviceInfo {
  std::string name;  ///< what --device takes
  std::string description;
  bool usable = false;
  std::string reason;
};
std::vector<DeviceInfo> list_devices();

/// A backend that is not part of the library: a program has it that links it (the emulator of
/// tests/simt, which must never be in an installed library).
struct AddedBackend {
  DeviceInfo device;
  std::function<std::unique_ptr<Backend>(int threads, Precision precision)> make;
};
/// From now on list_devices names it and make_backend makes it. To be called while the program
/// starts, before there are other threads. True, so that it can initialise a variable.
bool add_backend(AddedBackend backend);

/// "reference", "cpu", "auto" (says in `description` what was picked), "cuda" and "cuda:N" (GPUs),
/// "simt" (CUDA emulated, for tests). `precision` is f32 where it is left out, and heeded by "cuda"
/// and "simt" alone: the others have one. Throws DeviceError for a device this build or machine
/// does not have, naming why. threads = 0: all cores.
std::unique_ptr<Backend> make_backend(const std::string& device, int threads,
                                      std::optional<Precision> precision = {});

}  // namespace kshot::backend
