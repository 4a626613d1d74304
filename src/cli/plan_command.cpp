// `plan`: memory and speed of a configuration, before it is trained.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "cli/commands.h"
#include "engine/assembly.h"
#include "engine/plan.h"
#include "engine/scheduler.h"
#include "engine/task_memory.h"
#include "engine/training_episodes.h"
#include "episodes/sources.h"
#include "kshot/config.h"

namespace kshot::cli {
namespace {

using Clock = std::chrono::steady_clock;

std::string bytes_text(double bytes) {
  const char* units[] = {"B", "KB", "MB", "GB", "TB"};
  std::size_t u = 0;
  for (; bytes >= 1000.0 && u < 4; ++u) bytes /= 1000.0;
  return fmt::format("{:.3g} {}", bytes, units[u]);
}

std::string count_text(double count) {
  const char* units[] = {"", "k", "M", "G", "T", "P"};
  std::size_t u = 0;
  for (; count >= 1000.0 && u < 5; ++u) count /= 1000.0;
  return fmt::format("{:.3g} {}", count, units[u]);
}

std::string time_text(double seconds) {
  if (seconds < 1.0) return fmt::format("{:.3g} ms", 1e3 * seconds);
  if (seconds < 120.0) return fmt::format("{:.3g} s", seconds);
  if (seconds < 7200.0) return fmt::format("{:.3g} min", seconds / 60.0);
  return fmt::format("{:.3g} h", seconds / 3600.0);
}

/// Measures the speed in tasks per second: computes meta-gradients of whole rounds of waves for
/// about a second.
double probe(Assembly& assembly, Scheduler& scheduler, const EpisodeSource& source, int tasks,
             TaskMemory* memory) {
  const auto initial = assembly.algorithm->initial(assembly.config.seed);
  for (std::size_t g = 0; g < initial.size(); ++g) assembly.parameters[g]->upload(initial[g]);
  scheduler.step(assembly.parameters, source, assembly.config.seed, 0, tasks, false,
                 memory);  // warm-up
  const Clock::time_point start = Clock::now();
  double seconds = 0.0;
  std::uint64_t steps = 0;
  do {
    scheduler.step(assembly.parameters, source, assembly.config.seed, ++steps, tasks, false,
                   memory);
    seconds = std::chrono::duration<double>(Clock::now() - start).count();
  } while (seconds < 1.0);
  return static_cast<double>(steps) * tasks / seconds;
}

}  // namespace

int run_plan(const PlanArguments& a) {
  const Config config = Config::load(a.config, a.set);
  config.check_data(a.config);
  const std::unique_ptr<EpisodeSource> source = make_source(config, std::array{Split::train});
  const TaskShape shape = source->shape();
  Assembly assembly =
      assemble(with_head_outputs(config, shape), a.machine.device, a.machine.threads);
  check_fit(config, *assembly.network, *source);
  const TaskCost cost = count_task(config, shape);
  const TrainingEpisodes episodes = place_episodes(*assembly.backend, *source);
  const backend::WavePlan waves_of = plan_waves(*assembly.backend, config, shape);
  const int capacity = waves_of.tasks > 0
                           ? waves_of.tasks
                           : assembly.algorithm->open(*assembly.backend, shape)->wave().capacity();
  const int workers = assembly.backend->concurrency();
  const double scalar = assembly.backend->precision() == backend::Precision::f64 ? 8.0 : 4.0;
  const double counted_bytes = scalar * static_cast<double>(cost.scalars());
  const double task_bytes =
      waves_of.task_bytes > 0 ? static_cast<double>(waves_of.task_bytes) : counted_bytes;
  std::size_t parameters = 0;
  for (const ParameterGroup& group : assembly.algorithm->groups()) parameters += group.size;
  const int batch = config.train.meta_batch;
  std::unique_ptr<TaskMemory> memory;
  TaskMemory::Layout kept{assembly.algorithm->memory(), assembly.backend->precision(),
                          source->training_tasks()};
  if (!kept.groups.empty()) {
    if (kept.tasks == 0) kept.tasks = static_cast<std::uint64_t>(batch);
    assembly.algorithm->begin_training(kept.tasks, source->training_rows());
    memory = std::make_unique<TaskMemory>(kept);
  }
  const int waves = (batch + capacity - 1) / capacity;

  fmt::print("{}, {}\n", assembly.algorithm->name(), source->describe());
  fmt::print("device       {}\n", device_text(*assembly.backend));
  if (!episodes.text.empty()) fmt::print("             {}\n", episodes.text);
  fmt::print("network      {} weights, {} meta-learned parameters, {}FLOP forward per example\n",
             assembly.network->size(), parameters,
             count_text(2.0 * assembly.network->forward_macs()));
  fmt::print(
      "task         {} support and {} query rows: {} gradients, {} Hessian-vector products, "
      "{}FLOP\n",
      shape.support, shape.query, cost.gradients, cost.hessian_products,
      count_text(cost.operations));
  fmt::print("             {} a task: vectors {}, rows {}, activations up to {}\n",
             bytes_text(counted_bytes),
             bytes_text(scalar * static_cast<double>(cost.vector_scalars)),
             bytes_text(scalar * static_cast<double>(cost.row_scalars)),
             bytes_text(scalar * static_cast<double>(cost.activation_scalars)));
  if (waves_of.task_bytes > 0) {
    fmt::print("memory       {} a task on the device, prediction and reduction included\n",
               bytes_text(task_bytes));
  }
  fmt::print("wave         {} task{}, {}; {} at once, {}\n", capacity, capacity == 1 ? "" : "s",
             bytes_text(task_bytes * capacity), workers,
             bytes_text(task_bytes * capacity * workers));
  fmt::print("shared       {} for parameters, gradients and the optimiser's state\n",
             bytes_text(scalar * 5.0 * static_cast<double>(parameters)));
  if (memory) {
    fmt::print("task store   {} for {} tasks: {} a task, of two states\n",
               bytes_text(static_cast<double>(io::RowStore::bytes(kept.tasks, kept.row_bytes()))),
               kept.tasks, bytes_text(2.0 * static_cast<double>(kept.row_bytes())));
  }
  fmt::print("meta-step    {} tasks in {} waves, {}FLOP\n", batch, waves,
             count_text(cost.operations * batch));
  double tasks_per_second = 0.0;
  if (a.gflops > 0.0) {
    tasks_per_second = a.gflops * 1e9 / std::max(1.0, cost.operations);
    fmt::print("rate         {:.4g} GFLOP/s assumed: {:.4g} tasks/s\n", a.gflops, tasks_per_second);
  } else {
    Scheduler scheduler(*assembly.backend, *assembly.algorithm, shape);
    if (episodes.on_device) scheduler.draw_on_device(*source, episodes.on_device);
    tasks_per_second =
        probe(assembly, scheduler, *source, std::min(batch, capacity * workers * 4), memory.get());
    fmt::print("rate         {:.4g} tasks/s measured in a probe, {:.4g} GFLOP/s\n",
               tasks_per_second, 1e-9 * tasks_per_second * cost.operations);
    if (const std::size_t taken = assembly.backend->device_bytes(); taken > 0) {
      fmt::print("             {} of the device's memory taken by it\n",
                 bytes_text(static_cast<double>(taken)));
    }
  }
  const double step_seconds = batch / tasks_per_second;
  const double total = step_seconds * config.train.steps;
  const bool limited = config.train.time_limit > 0.0 && total > config.train.time_limit;
  fmt::print(
      "time         {} a meta-step, {} for train.steps = {}{}, validation apart\n",
      time_text(step_seconds), time_text(total), config.train.steps,
      limited ? fmt::format(" (train.time_limit stops at {})", time_text(config.train.time_limit))
              : "");
  return 0;
}

}  // namespace kshot::cli
