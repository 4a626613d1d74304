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

/// A configuration on a device, and the numbers that follow from both.
struct Plan {
  Config config;
  std::unique_ptr<EpisodeSource> source;
  TaskShape shape;
  Assembly assembly;
  TaskCost cost = {};
  TrainingEpisodes episodes = {};
  double scalar_bytes = 0.0;
  double counted_bytes = 0.0;         ///< of one task, counted from the shapes
  std::size_t device_task_bytes = 0;  ///< of one task on the device; 0: the device gives no number
  int capacity = 0;                   ///< tasks per wave
  int workers = 0;
  std::size_t parameters = 0;
  TaskMemory::Layout kept = {};
  std::unique_ptr<TaskMemory> memory = nullptr;  ///< null: the algorithm has no per-task state

  int batch() const { return config.train.meta_batch; }
  double task_bytes() const {
    return device_task_bytes > 0 ? static_cast<double>(device_task_bytes) : counted_bytes;
  }
};

Plan make_plan(const PlanArguments& a) {
  Config config = Config::load(a.config, a.set);
  config.check_data(a.config);
  std::unique_ptr<EpisodeSource> source = make_source(config, std::array{Split::train});
  const TaskShape shape = source->shape();
  Assembly assembly =
      assemble(with_head_outputs(config, shape), a.machine.device, a.machine.threads);
  check_fit(config, *assembly.network, *source);
  Plan plan{.config = std::move(config),
            .source = std::move(source),
            .shape = shape,
            .assembly = std::move(assembly)};
  backend::Backend& backend = *plan.assembly.backend;
  Algorithm& algorithm = *plan.assembly.algorithm;
  plan.cost = count_task(plan.config, shape);
  plan.episodes = place_episodes(backend, *plan.source);
  const backend::WavePlan waves = plan_waves(backend, plan.config, shape);
  plan.capacity = waves.tasks > 0 ? waves.tasks : algorithm.open(backend, shape)->wave().capacity();
  plan.workers = backend.concurrency();
  plan.scalar_bytes = backend.precision() == backend::Precision::f64 ? 8.0 : 4.0;
  plan.counted_bytes = plan.scalar_bytes * static_cast<double>(plan.cost.scalars());
  plan.device_task_bytes = waves.task_bytes;
  for (const ParameterGroup& group : algorithm.groups()) plan.parameters += group.size;
  plan.kept = {algorithm.memory(), backend.precision(), plan.source->training_tasks()};
  if (!plan.kept.groups.empty()) {
    if (plan.kept.tasks == 0) plan.kept.tasks = static_cast<std::uint64_t>(plan.batch());
    algorithm.begin_training(plan.kept.tasks, plan.source->training_rows());
    plan.memory = std::make_unique<TaskMemory>(plan.kept);
  }
  return plan;
}

void print_cost(const Plan& plan) {
  const TaskCost& cost = plan.cost;
  fmt::print("{}, {}\n", plan.assembly.algorithm->name(), plan.source->describe());
  fmt::print("device       {}\n", device_text(*plan.assembly.backend));
  if (!plan.episodes.text.empty()) fmt::print("             {}\n", plan.episodes.text);
  fmt::print("network      {} weights, {} meta-learned parameters, {}FLOP forward per example\n",
             plan.assembly.network->size(), plan.parameters,
             count_text(2.0 * plan.assembly.network->forward_macs()));
  fmt::print(
      "task         {} support and {} query rows: {} gradients, {} Hessian-vector products, "
      "{}FLOP\n",
      plan.shape.support, plan.shape.query, cost.gradients, cost.hessian_products,
      count_text(cost.operations));
  fmt::print("             {} per task: vectors {}, rows {}, activations up to {}\n",
             bytes_text(plan.counted_bytes),
             bytes_text(plan.scalar_bytes * static_cast<double>(cost.vector_scalars)),
             bytes_text(plan.scalar_bytes * static_cast<double>(cost.row_scalars)),
             bytes_text(plan.scalar_bytes * static_cast<double>(cost.activation_scalars)));
}

void print_memory(const Plan& plan) {
  if (plan.device_task_bytes > 0) {
    fmt::print("memory       {} per task on the device, including prediction and reduction\n",
               bytes_text(plan.task_bytes()));
  }
  const double wave_bytes = plan.task_bytes() * plan.capacity;
  fmt::print("wave         {} task{}, {}; {} at the same time, {}\n", plan.capacity,
             plan.capacity == 1 ? "" : "s", bytes_text(wave_bytes), plan.workers,
             bytes_text(wave_bytes * plan.workers));
  fmt::print("shared       {} for parameters, gradients and the optimiser's state\n",
             bytes_text(plan.scalar_bytes * 5.0 * static_cast<double>(plan.parameters)));
  if (plan.memory) {
    const std::uint64_t tasks = plan.kept.tasks;
    const std::size_t row = plan.kept.row_bytes();
    fmt::print("task store   {} for {} tasks: {} per task, for two states\n",
               bytes_text(static_cast<double>(io::RowStore::bytes(tasks, row))), tasks,
               bytes_text(2.0 * static_cast<double>(row)));
  }
}

/// Prints the speed, assumed or measured, and returns it in tasks per second.
double print_rate(Plan& plan, double gflops) {
  const double operations = plan.cost.operations;
  if (gflops > 0.0) {
    const double rate = gflops * 1e9 / std::max(1.0, operations);
    fmt::print("rate         {:.4g} GFLOP/s assumed: {:.4g} tasks/s\n", gflops, rate);
    return rate;
  }
  backend::Backend& backend = *plan.assembly.backend;
  Scheduler scheduler(backend, *plan.assembly.algorithm, plan.shape);
  if (plan.episodes.on_device) scheduler.draw_on_device(*plan.source, plan.episodes.on_device);
  const int tasks = std::min(plan.batch(), plan.capacity * plan.workers * 4);
  const double rate = probe(plan.assembly, scheduler, *plan.source, tasks, plan.memory.get());
  fmt::print("rate         {:.4g} tasks/s measured in a probe, {:.4g} GFLOP/s\n", rate,
             1e-9 * rate * operations);
  if (const std::size_t taken = backend.device_bytes(); taken > 0) {
    fmt::print("             {} of the device's memory used by the probe\n",
               bytes_text(static_cast<double>(taken)));
  }
  return rate;
}

void print_time(const Config& config, double tasks_per_second) {
  const double step_seconds = config.train.meta_batch / tasks_per_second;
  const double total = step_seconds * config.train.steps;
  const bool limited = config.train.time_limit > 0.0 && total > config.train.time_limit;
  fmt::print(
      "time         {} per meta-step, {} for train.steps = {}{}, without validation\n",
      time_text(step_seconds), time_text(total), config.train.steps,
      limited ? fmt::format(" (train.time_limit stops at {})", time_text(config.train.time_limit))
              : "");
}

}  // namespace

int run_plan(const PlanArguments& a) {
  Plan plan = make_plan(a);
  print_cost(plan);
  print_memory(plan);
  fmt::print("meta-step    {} tasks in {} waves, {}FLOP\n", plan.batch(),
             (plan.batch() + plan.capacity - 1) / plan.capacity,
             count_text(plan.cost.operations * plan.batch()));
  print_time(plan.config, print_rate(plan, a.gflops));
  return 0;
}

}  // namespace kshot::cli
