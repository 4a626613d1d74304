// Measures the speed of the meta-gradient on the path of training: drawing of episodes, inner loops
// and their adjoints, and the reduction over tasks. Only the optimiser's step is left out.
//
//   kshot_bench --benchmark_filter='^sinusoid_maml_k5/' --benchmark_format=json [--threads=N]
//   kshot_bench --device=cuda --benchmark_filter=^kernel/    the kernels alone (kernel_bench.h)
//
// Counters: tasks_per_second (from the median step), GFLOP/s (from the least operations, works.h),
// share (of the multiply-add peak, which is measured on a CPU and computed from the clocks of a
// GPU), peak_rss_bytes, device_bytes (of a GPU's memory in use after the steps).
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "engine/assembly.h"
#include "engine/plan.h"
#include "engine/scheduler.h"
#include "engine/training_episodes.h"
#include "fma_peak.h"
#include "kshot/error.h"
#include "works.h"
#ifdef KSHOT_HAS_CUDA
#include "bench/kernel_bench.h"
#endif

namespace kshot::bench {
namespace {

using Clock = std::chrono::steady_clock;

/// Peak in operations per second, set before everything else. On a CPU it is measured with as many
/// threads as the works use.
double peak_flops = 0.0;

/// The options of the command line.
struct Options {
  int threads = 0;  ///< 0: all cores; on a GPU, the backend's default number of streams
  std::string device = "cpu";
  bool gpu() const { return device.starts_with("cuda"); }
};

/// Returns the largest resident memory of this process so far, in bytes.
double peak_rss() {
  std::ifstream status("/proc/self/status");
  std::string key;
  while (status >> key) {
    if (key == "VmHWM:") {
      double kibibytes = 0.0;
      status >> kibibytes;
      return kibibytes * 1024.0;
    }
    status.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return 0.0;
}

void load_initial(Assembly& assembly, const Config& config) {
  std::vector<std::vector<double>> values = assembly.algorithm->initial(config.seed);
  // With the drawn weights a few tasks of the small network diverge within five steps; with half of
  // these weights none does.
  if (config.network.type == "mlp" && config.algorithm != AlgorithmKind::leo) {
    for (double& weight : values.front()) weight *= 0.5;
  }
  for (std::size_t g = 0; g < values.size(); ++g) assembly.parameters[g]->upload(values[g]);
}

void meta_gradient(benchmark::State& state, const Work& work, const Options& options) {
  const int tasks = static_cast<int>(state.range(0));
  Assembly assembly = assemble(work.config, options.device, options.threads);
  load_initial(assembly, work.config);
  const std::unique_ptr<EpisodeSource> source = make_source(work);
  const TrainingEpisodes episodes = place_episodes(*assembly.backend, *source);
  plan_waves(*assembly.backend, work.config, source->shape());
  Scheduler scheduler(*assembly.backend, *assembly.algorithm, source->shape());
  if (episodes.on_device) scheduler.draw_on_device(*source, episodes.on_device);
  std::uint64_t step = 0;
  std::size_t diverged = 0;
  const auto run = [&] {
    const StepResult result =
        scheduler.step(assembly.parameters, *source, work.config.seed, step++, tasks);
    diverged += result.diverged;
  };
  run();  // the first step makes workers and waves
  std::vector<double> seconds;
  for (auto _ : state) {
    const auto start = Clock::now();
    run();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  if (diverged > 0) {
    state.SkipWithError(fmt::format("{} tasks diverged", diverged).c_str());
    return;
  }
  const auto middle = seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2);
  std::nth_element(seconds.begin(), middle, seconds.end());
  const double rate = tasks / *middle;
  const double flops = rate * floor_flops(work);
  state.counters["tasks_per_second"] = rate;
  state.counters["GFLOP/s"] = flops * 1e-9;
  state.counters["share"] = flops / peak_flops;
  state.counters["peak_rss_bytes"] = peak_rss();
#ifdef KSHOT_HAS_CUDA
  if (options.gpu()) state.counters["device_bytes"] = static_cast<double>(device_bytes_taken());
#endif
}

void peak_fma(benchmark::State& state) {
  const int threads = static_cast<int>(state.range(0));
  double best = 0.0;
  for (auto _ : state) best = std::max(best, fma_peak(threads, 0.05, 1));
  state.counters["GFLOP/s"] = best * 1e-9;
  state.SetLabel(fma_instruction_set());
}

/// Removes --threads=N and --device=D from the arguments. Throws Error where N is no number.
Options take_options(int& argc, char** argv) {
  Options options;
  char** const end = std::remove_if(argv + 1, argv + argc, [&](const char* argument) {
    const std::string_view text = argument;
    const auto value_of = [&](std::string_view flag) {
      return text.starts_with(flag) ? text.substr(flag.size()) : std::string_view();
    };
    if (const std::string_view number = value_of("--threads="); !number.empty()) {
      const auto [rest, error] =
          std::from_chars(number.data(), number.data() + number.size(), options.threads);
      if (error != std::errc() || rest != number.data() + number.size() || options.threads < 1) {
        throw Error("--threads takes a positive number");
      }
      return true;
    }
    if (const std::string_view device = value_of("--device="); !device.empty()) {
      options.device = device;
      return true;
    }
    return false;
  });
  argc = static_cast<int>(end - argv);
  return options;
}

/// Registers the works of the kernels, if the device is a GPU.
void add_kernels(const Options& options) {
#ifdef KSHOT_HAS_CUDA
  if (options.gpu()) register_kernels(options.device);
#else
  (void)options;
#endif
}

int run(int argc, char** argv) {
  Options options = take_options(argc, argv);
  if (options.threads == 0 && !options.gpu()) {
    options.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;

  // This throws where the device is missing. No other device is timed in its place.
  const std::string device =
      device_text(*backend::make_backend(options.device, options.threads, backend::Precision::f32));
  std::string how = fma_instruction_set();
  peak_flops = 0.0;
#ifdef KSHOT_HAS_CUDA
  if (options.gpu()) peak_flops = device_peak(options.device).flops, how = "clocks and units";
#endif
  if (peak_flops == 0.0) peak_flops = fma_peak(std::max(1, options.threads));
  benchmark::AddCustomContext("kshot_version", KSHOT_VERSION);
  benchmark::AddCustomContext("threads", std::to_string(options.threads));
  benchmark::AddCustomContext("peak_gflops", fmt::format("{:.1f}", peak_flops * 1e-9));
  benchmark::AddCustomContext("peak_instruction_set", how);
  benchmark::AddCustomContext("device", device);

  if (!options.gpu()) {
    benchmark::RegisterBenchmark("peak_fma", peak_fma)->Arg(1)->Arg(options.threads)->UseRealTime();
  }
  add_kernels(options);
  const std::vector<Work> all = works();
  for (const Work& work : all) {
    auto* registered =
        benchmark::RegisterBenchmark(work.name.c_str(), [&work, &options](benchmark::State& state) {
          try {
            meta_gradient(state, work, options);
          } catch (const Error& error) {  // the device's memory is full: smaller sizes still run
            state.SkipWithError(error.what());
          }
        });
    registered->UseRealTime()->Unit(benchmark::kMillisecond);
    for (int tasks : options.gpu() ? work.gpu_tasks : work.tasks) registered->Arg(tasks);
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace
}  // namespace kshot::bench

int main(int argc, char** argv) {
  try {
    return kshot::bench::run(argc, argv);
  } catch (const kshot::Error& error) {
    fmt::print(stderr, "kshot_bench: {}\n", error.what());
    return 2;
  }
}
