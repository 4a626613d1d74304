// A wave: a set of tasks in a backend's own layout, with all operations on them.
#pragma once

#include <functional>
#include <memory>

#include "backend/fused_descent.h"
#include "backend/gaussian_passes.h"
#include "backend/gaussian_vectors.h"
#include "backend/network_passes.h"
#include "backend/task_rows.h"

namespace kshot::backend {

class Generator;
struct GeneratorSpec;
class LinearAlgebra;

/// The operations on the tasks of one wave. A wave is not thread-safe; different waves are
/// independent.
class Wave : public TaskRows, public GaussianVectors, public NetworkPasses {
 public:
  ~Wave() override = default;

  /// Sets the loss [count()] to NaN for each task with a number that is not finite in its rows, so
  /// that the reduction leaves the task out. The computed loss may be finite, because an activation
  /// can hide such a number.
  void exclude_not_finite(Block loss);
  /// Runs `work`, whose operations on this wave take nothing from the host and return nothing to
  /// it. A backend may capture them into one launch (CudaWave: a CUDA graph).
  virtual void capture(const std::function<void()>& work) { work(); }

  /// The block that the wave keeps for the outputs of a set, [rows(set), outputs].
  Block outputs(Set set);

  /// The network under Gaussian weights. The passes work on blocks of this wave.
  GaussianPasses& gaussian_passes();
  /// The fused inner loop. Null where the backend has none for this wave; the caller then composes
  /// the inner loop of the operations above.
  virtual FusedDescent* fused_descent() { return nullptr; }

  /// The networks, shared by all tasks, that make this wave's weights (generator.h). They work on
  /// blocks of this wave, which must outlive them.
  virtual std::unique_ptr<Generator> generator(const GeneratorSpec& spec) = 0;

  /// Small matrices of this wave's tasks (linear_algebra.h). They are blocks of this wave, which
  /// must outlive them.
  virtual std::unique_ptr<LinearAlgebra> linear_algebra();

 protected:
  using TaskRows::TaskRows;
  virtual std::unique_ptr<GaussianPasses> make_gaussian_passes();
  TaskVectors& vectors() final { return *this; }
  const TaskRows& rows_part() const final { return *this; }
  std::size_t weight_count() const final { return network_->size(); }
  int task_count() const final { return count_; }
  void mark_not_finite(int first) override;

 private:
  Block output_blocks_[3];
  Block exclusion_;  ///< [1]: NaN for tasks that are not finite, 0 for the others
  std::unique_ptr<GaussianPasses> gaussian_passes_;
};

}  // namespace kshot::backend
