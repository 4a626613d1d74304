// What the reference and the CPU backend share, because both compute in host memory: vectors, the
// reduction over tasks, the optimizer. The operations are plain loops over contiguous memory in T.
// Sums over elements or tasks are in double, in a fixed order. The backend's threads divide long
// vectors into parts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/ordered_queue.h"
#include "backend/tree_sum.h"

namespace kshot::backend {

/// Returns a number that no earlier call in this process returned.
std::uint64_t next_version();

/// A shared vector in host memory.
template <typename T>
class HostVector final : public SharedVector {
 public:
  explicit HostVector(std::size_t size) : values_(size, T(0)) {}
  std::size_t size() const override { return values_.size(); }
  void upload(std::span<const double> values) override;
  void download(std::span<double> values) const override;
  T* data() {
    version_ = next_version();
    return values_.data();
  }
  const T* data() const { return values_.data(); }
  /// A number that changes whenever the values may have changed, and that no other vector has.
  /// Results that are derived from the values are valid as long as this number is the same.
  std::uint64_t version() const { return version_; }

 private:
  std::vector<T> values_;
  std::uint64_t version_ = next_version();
};

/// Casts a shared vector of a backend in host memory to its own type.
template <typename T>
HostVector<T>& host(SharedVector& v) {
  return dynamic_cast<HostVector<T>&>(v);
}
template <typename T>
const HostVector<T>& host(const SharedVector& v) {
  return dynamic_cast<const HostVector<T>&>(v);
}

/// Writes the dropout factors of a task's elements: 0, or 1 / (1 - rate).
void dropout_factors(const Dropout& dropout, std::uint32_t task, std::span<float> factors);

/// A wave in host memory, with the operation that the reduction needs.
template <typename T>
class HostWave : public Wave {
 public:
  using Wave::Wave;
  /// Sums over the wave's tasks as a binary tree, where capacity() is a power of two and absent
  /// tasks count as zero. The elements of all `blocks`, one block after another, are summed into
  /// `out`. The losses [count()] are written to `losses`. diverged[t] is set where an element or
  /// the loss of task t is not finite; this task then counts as zero.
  virtual void sum_tasks(std::span<const Block> blocks, Block loss, T* out, double* losses,
                         char* diverged) = 0;
};

/// The reduction in host memory, in the order of task_tree.h.
template <typename T>
class HostReduction final : public Reduction {
 public:
  HostReduction(ThreadPool& pool, std::span<const std::size_t> widths,
                std::shared_ptr<Communicator> ranks);
  void begin(std::size_t waves, const TaskShares& shares, Step& step) override;
  void add(Wave& wave, std::size_t ordinal, std::span<const Block> gradients, Block loss) override;
  void cancel() override { queue_.cancel(); }
  void finish(std::span<const Shared> means) override;
  std::vector<std::uint32_t> diverged_tasks() const override { return diverged_; }

 private:
  /// The result of one wave.
  struct Partial {
    std::vector<T> sums;
    std::vector<double> losses;
    std::vector<char> diverged;
    std::uint32_t first = 0;
    int capacity = 1;
  };
  void commit(Partial& partial);
  /// Adds the waves of the current run to the tree: as one node if they are all waves of the run,
  /// otherwise as one node per wave.
  void add_run();
  /// Ends the current run and keeps its memory for the next one.
  void recycle();
  /// Exchanges nodes with the other ranks. Afterwards the tree has only the root, and the
  /// statistics are those of all ranks.
  void exchange();

  ThreadPool& pool_;
  std::vector<std::size_t> widths_;
  std::size_t width_ = 0;
  std::shared_ptr<Communicator> ranks_;  ///< null: this process alone
  OrderedQueue<Partial> queue_;
  TaskShares shares_;
  TreeSum<T> sums_;
  /// Sums of the waves of the current run (16 tasks, task_tree.h). They are added when the run is
  /// complete.
  std::vector<std::vector<T>> run_;
  std::size_t run_first_ = 0;  ///< the first task of run_
  int run_tasks_ = 0;          ///< number of tasks in run_
  int wave_tasks_ = 1;
  std::vector<std::vector<T>> spare_;
  TaskTree<double> losses_;
  std::vector<std::uint32_t> diverged_;
  Step* step_ = nullptr;
  /// Numbers of tasks that did not diverge, and that did.
  double tasks_ = 0.0, diverged_count_ = 0.0;
};

/// The statistics of a step in host memory. They are always up to date.
class HostStep final : public Step {
 public:
  void clear() override { statistics_ = {}; }
  void add(Statistic statistic, double value) override { statistics_.*statistic += value; }
  void decide_update(const StepRule& rule) override {
    statistics_.status = static_cast<double>(rule.status(statistics_));
  }
  StepStatistics read() const override { return statistics_; }

 private:
  StepStatistics statistics_;
};

/// The part of a backend in host memory that works on shared vectors.
template <typename T>
class HostBackend : public Backend {
 public:
  Shared shared(std::size_t size) override;
  std::unique_ptr<Reduction> reduction(std::span<const std::size_t> widths) override;
  std::unique_ptr<Step> open_step() override { return std::make_unique<HostStep>(); }
  void assign(SharedVector& dst, const SharedVector& src) override;
  void multiply(SharedVector& dst, const SharedVector& src) override;
  void add(SharedVector& dst, double a, const SharedVector& src) override;
  void exponential(SharedVector& dst, const SharedVector& src) override;
  void squared_norm(const SharedVector& v, double clip, Sum to) override;
  void gather(SharedVector& dst, const SharedVector& src,
              std::span<const std::uint32_t> index) override;
  void scatter_add(SharedVector& dst, const SharedVector& src, std::span<const std::uint32_t> index,
                   bool accumulate) override;
  void hyper_prior(const SharedVector& mu, const SharedVector& s, double a0, double b0,
                   double weight, SharedVector& g_mu, SharedVector& g_s, Sum to) override;
  void l2_penalty(const SharedVector& v, std::span<const Backend::Segment> segments, double weight,
                  SharedVector& g, Sum to) override;
  void clip(SharedVector& v, double value, double norm,
            std::span<const Backend::Segment> segments) override;
  void column_orthogonality(const SharedVector& v, std::size_t offset, std::size_t rows,
                            std::size_t columns, double weight, SharedVector& g, Sum to) override;
  void guard(const Step& step, SharedVector& gradient, const SharedVector& parameters,
             double factor) override;
  void optimizer_step(SharedVector& parameters, const SharedVector& gradient, SharedVector& m,
                      SharedVector* v, const OptimizerStep& step) override;
};

}  // namespace kshot::backend
