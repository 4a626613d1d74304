// A set of tasks in a backend's own layout, and all that can be done to them at once.
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

/// Not thread-safe; different waves are independent.
class Wave : public TaskRows, public GaussianVectors, public NetworkPasses {
 public:
  ~Wave() override = default;

  /// Makes the loss [count()] of every task without finite rows NaN, so that the reduction leaves
  /// the task out: an activation may have swallowed what was not finite in its rows.
  void exclude_not_finite(Block loss);
  /// Runs `work`, which calls operations of this wave that need nothing from the host and bring
  /// nothing back. A backend may gather them into one launch (CudaWave: a graph).
  virtual void capture(const std::function<void()>& work) { work(); }

  /// The wave's own block for outputs of a set, [rows(set), outputs].
  Block outputs(Set set);

  /// The network under Gaussian weights; on blocks of this wave.
  GaussianPasses& gaussian_passes();
  /// Null where inner loops are composed of the operations here.
  virtual FusedDescent* fused_descent() { return nullptr; }

  /// Networks that all tasks share and that make this wave's weights (generator.h); on blocks of
  /// this wave, which must outlive it.
  virtual std::unique_ptr<Generator> generator(const GeneratorSpec& spec) = 0;

  /// Small matrices of this wave's tasks (linear_algebra.h); on blocks of this wave, which must
  /// outlive it.
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
  Block exclusion_;  ///< [1]: NaN for tasks that are not finite, else 0
  std::unique_ptr<GaussianPasses> gaussian_passes_;
};

}  // namespace kshot::backend
