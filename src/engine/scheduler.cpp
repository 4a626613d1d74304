#include "engine/scheduler.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>

namespace kshot {

/// A thread's own wave, program and room for the episodes of one wave.
struct Scheduler::Worker {
  std::unique_ptr<TaskProgram> program;
  TaskBatch batch;
};

Scheduler::Scheduler(backend::Backend& backend, Algorithm& algorithm, const TaskShape& shape)
    : backend_(backend), algorithm_(algorithm), shape_(shape), pool_(backend.concurrency()) {
  workers_.resize(static_cast<std::size_t>(pool_.workers()));
  const std::vector<std::size_t> widths = algorithm_.gradient_widths();
  reduction_ = backend_.reduction(widths);
  for (const std::size_t width : widths) means_.push_back(backend_.shared(width));
  for (const ParameterGroup& group : algorithm_.groups()) {
    gradients_.push_back(backend_.shared(group.size));
  }
  capacity_ = worker(0).program->wave().capacity();
}

Scheduler::~Scheduler() = default;

Scheduler::Worker& Scheduler::worker(std::size_t index) {
  // Made by the thread that uses it, so that its memory is near that thread.
  if (!workers_[index]) {
    auto made = std::make_unique<Worker>();
    made->program = algorithm_.open(backend_, shape_);
    made->batch = TaskBatch(shape_, made->program->wave().capacity());
    workers_[index] = std::move(made);
  }
  return *workers_[index];
}

StepResult Scheduler::step(std::span<const backend::Shared> parameters, const EpisodeSource& source,
                           std::uint64_t seed, std::uint64_t step, int tasks, bool monitor) {
  StepContext context;
  context.seed = seed;
  context.step = step;
  return run(parameters, tasks, monitor, [&](Worker& w, int first, int count) {
    w.batch.draw(source, {seed, Split::train, step, 0}, static_cast<std::uint32_t>(first), count);
    w.program->wave().load(w.batch, 0, count, static_cast<std::uint32_t>(first));
    w.program->meta_gradient(context);
  });
}

StepResult Scheduler::step(std::span<const backend::Shared> parameters, const TaskBatch& batch,
                           const StepContext& context,
                           const std::function<void(TaskProgram&, int)>& visit) {
  return run(parameters, batch.tasks(), false, [&](Worker& w, int first, int count) {
    w.program->wave().load(batch, first, count, static_cast<std::uint32_t>(first));
    w.program->meta_gradient(context);
    if (visit) visit(*w.program, first);
  });
}

/// Per-task numbers of one step. Tasks are disjoint, so the workers write without a lock; sums are
/// in the order of tasks.
struct Scheduler::Monitor {
  Monitor(std::size_t tasks, std::size_t metrics)
      : metrics_(metrics), values_(tasks * metrics), squares_(tasks) {}

  void take(TaskProgram& program, int first) {
    const auto count = static_cast<std::size_t>(program.wave().count());
    const auto start = static_cast<std::size_t>(first);
    program.metrics(std::span(values_).subspan(start * metrics_, count * metrics_));
    std::vector<double> buffer;
    for (std::size_t g = 0; g < program.gradients().size(); ++g) {
      const std::size_t width = widths[g];
      buffer.resize(count * width);
      program.wave().download(program.gradients()[g], buffer);
      for (std::size_t t = 0; t < count; ++t) {
        for (std::size_t i = 0; i < width; ++i) {
          squares_[start + t] += buffer[t * width + i] * buffer[t * width + i];
        }
      }
    }
  }

  void finish(double squared_mean, StepResult& result) const {
    result.metrics.assign(metrics_, 0.0);
    double squares = 0.0, tasks = 0.0;
    for (std::size_t t = 0; t < squares_.size(); ++t) {
      if (!std::isfinite(squares_[t])) continue;
      tasks += 1.0;
      squares += squares_[t];
      for (std::size_t i = 0; i < metrics_; ++i) result.metrics[i] += values_[t * metrics_ + i];
    }
    for (double& m : result.metrics) m /= tasks;
    result.gradient_snr = tasks > 1.0 ? squared_mean * tasks * (tasks - 1.0) /
                                            std::max(squares - tasks * squared_mean,
                                                     std::numeric_limits<double>::min())
                                      : std::numeric_limits<double>::quiet_NaN();
  }

  std::vector<std::size_t> widths;

 private:
  std::size_t metrics_;
  std::vector<double> values_, squares_;
};

StepResult Scheduler::run(std::span<const backend::Shared> parameters, int tasks, bool monitor,
                          const std::function<void(Worker&, int, int)>& body) {
  algorithm_.prepare(backend_, parameters);
  const auto waves = static_cast<std::size_t>((tasks + capacity_ - 1) / capacity_);
  reduction_->begin(waves);
  Monitor seen(monitor ? static_cast<std::size_t>(tasks) : 0,
               monitor ? algorithm_.metrics().size() : 0);
  seen.widths = algorithm_.gradient_widths();
  pool_.run(waves, [&](std::size_t index, std::size_t wave) {
    const int first = static_cast<int>(wave) * capacity_;
    try {
      Worker& w = worker(index);
      body(w, first, std::min(capacity_, tasks - first));
      if (monitor) seen.take(*w.program, first);
      reduction_->add(w.program->wave(), wave, w.program->gradients(), w.program->loss());
    } catch (...) {
      reduction_->cancel();  // waves after this one may be waiting for it
      throw;
    }
  });
  reduction_->finish(means_);
  StepResult result;
  result.tasks = static_cast<std::size_t>(tasks);
  result.diverged = reduction_->diverged();
  result.task_loss = reduction_->mean_loss();
  if (monitor) {
    double squared = 0.0;
    for (const backend::Shared& mean : means_) squared += backend_.squared_norm(*mean, 0.0);
    seen.finish(squared, result);
  }
  result.loss = result.task_loss + algorithm_.finish(backend_, parameters, means_, gradients_);
  return result;
}

std::vector<std::uint32_t> Scheduler::diverged_tasks() const {
  return reduction_->diverged_tasks();
}

void Scheduler::for_each_wave(
    std::span<const backend::Shared> parameters, const EpisodeSource& source, std::uint64_t seed,
    Split split, int episodes,
    const std::function<void(TaskProgram&, const TaskBatch&, int, int)>& visit) {
  algorithm_.prepare(backend_, parameters);
  const auto waves = static_cast<std::size_t>((episodes + capacity_ - 1) / capacity_);
  pool_.run(waves, [&](std::size_t index, std::size_t wave) {
    Worker& w = worker(index);
    const int first = static_cast<int>(wave) * capacity_;
    const int count = std::min(capacity_, episodes - first);
    w.batch.draw(source, {seed, split, 0, 0}, static_cast<std::uint32_t>(first), count);
    w.program->wave().load(w.batch, 0, count, static_cast<std::uint32_t>(first));
    visit(*w.program, w.batch, first, count);
  });
}

}  // namespace kshot
