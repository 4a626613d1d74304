#include "engine/scheduler.h"

#include <algorithm>

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
                           std::uint64_t seed, std::uint64_t step, int tasks) {
  StepContext context;
  context.seed = seed;
  context.step = step;
  return run(parameters, tasks, [&](Worker& w, int first, int count) {
    w.batch.draw(source, {seed, Split::train, step, 0}, static_cast<std::uint32_t>(first), count);
    w.program->wave().load(w.batch, 0, count, static_cast<std::uint32_t>(first));
    w.program->meta_gradient(context);
  });
}

StepResult Scheduler::step(std::span<const backend::Shared> parameters, const TaskBatch& batch,
                           const StepContext& context,
                           const std::function<void(TaskProgram&, int)>& visit) {
  return run(parameters, batch.tasks(), [&](Worker& w, int first, int count) {
    w.program->wave().load(batch, first, count, static_cast<std::uint32_t>(first));
    w.program->meta_gradient(context);
    if (visit) visit(*w.program, first);
  });
}

StepResult Scheduler::run(std::span<const backend::Shared> parameters, int tasks,
                          const std::function<void(Worker&, int, int)>& body) {
  algorithm_.prepare(backend_, parameters);
  const auto waves = static_cast<std::size_t>((tasks + capacity_ - 1) / capacity_);
  reduction_->begin(waves);
  pool_.run(waves, [&](std::size_t index, std::size_t wave) {
    const int first = static_cast<int>(wave) * capacity_;
    try {
      Worker& w = worker(index);
      body(w, first, std::min(capacity_, tasks - first));
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
