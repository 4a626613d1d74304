// Speed of the meta-gradient on the path that training takes: episodes drawn, inner loops and their
// adjoints, the reduction over tasks; all but the optimiser's step.
//
//   kshot_bench --benchmark_filter='^sinusoid_maml_k5/' --benchmark_format=json [--threads=N]
//
// Counters: tasks_per_second (from the median step), GFLOP/s (of the operations that cannot be done
// without, works.h), share (of the measured multiply-add peak), peak_rss_bytes, diverged.
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
#include "fma_peak.h"
#include "works.h"

namespace kshot::bench {
namespace {

using Clock = std::chrono::steady_clock;

/// Measured once, before everything else, with as many threads as the works use.
double peak_flops = 0.0;

/// Largest resident memory of this process so far, bytes.
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
  // As drawn, a few tasks of the small network diverge within five steps; the halves do not.
  if (config.network.type == "mlp" && config.algorithm != AlgorithmKind::leo) {
    for (double& weight : values.front()) weight *= 0.5;
  }
  for (std::size_t g = 0; g < values.size(); ++g) assembly.parameters[g]->upload(values[g]);
}

void meta_gradient(benchmark::State& state, const Work& work, int threads) {
  const int tasks = static_cast<int>(state.range(0));
  Assembly assembly = assemble(work.config, "cpu", threads);
  load_initial(assembly, work.config);
  const std::unique_ptr<EpisodeSource> source = make_source(work);
  plan_waves(*assembly.backend, work.config, source->shape());
  Scheduler scheduler(*assembly.backend, *assembly.algorithm, source->shape());
  std::uint64_t step = 0;
  std::size_t diverged = 0;
  const auto run = [&] {
    const StepResult result =
        scheduler.step(assembly.parameters, *source, work.config.seed, step++, tasks);
    diverged += result.diverged;
  };
  run();  // workers and waves are opened in the first step
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
}

void peak_fma(benchmark::State& state) {
  const int threads = static_cast<int>(state.range(0));
  double best = 0.0;
  for (auto _ : state) best = std::max(best, fma_peak(threads, 0.05, 1));
  state.counters["GFLOP/s"] = best * 1e-9;
  state.SetLabel(fma_instruction_set());
}

/// Takes --threads=N out of the arguments; 0 (all cores) where it is absent, -1 where N is none.
int take_threads(int& argc, char** argv) {
  constexpr std::string_view flag = "--threads=";
  int threads = 0;
  char** const end = std::remove_if(argv + 1, argv + argc, [&](const char* argument) {
    const std::string_view text = argument;
    if (!text.starts_with(flag)) return false;
    const std::string_view number = text.substr(flag.size());
    const auto [rest, error] =
        std::from_chars(number.data(), number.data() + number.size(), threads);
    if (error != std::errc() || rest != number.data() + number.size() || threads < 1) threads = -1;
    return true;
  });
  argc = static_cast<int>(end - argv);
  return threads;
}

int run(int argc, char** argv) {
  int threads = take_threads(argc, argv);
  if (threads < 0) {
    fmt::print(stderr, "kshot_bench: --threads takes a positive number\n");
    return 2;
  }
  if (threads == 0) threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;

  peak_flops = fma_peak(threads);
  benchmark::AddCustomContext("kshot_version", KSHOT_VERSION);
  benchmark::AddCustomContext("threads", std::to_string(threads));
  benchmark::AddCustomContext("peak_gflops", fmt::format("{:.1f}", peak_flops * 1e-9));
  benchmark::AddCustomContext("peak_instruction_set", fma_instruction_set());
  benchmark::AddCustomContext("device", device_text(*backend::make_backend("cpu", threads)));

  benchmark::RegisterBenchmark("peak_fma", peak_fma)->Arg(1)->Arg(threads)->UseRealTime();
  const std::vector<Work> all = works();
  for (const Work& work : all) {
    auto* registered = benchmark::RegisterBenchmark(
        work.name.c_str(),
        [&work, threads](benchmark::State& state) { meta_gradient(state, work, threads); });
    registered->UseRealTime()->Unit(benchmark::kMillisecond);
    for (int tasks : work.tasks) registered->Arg(tasks);
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace
}  // namespace kshot::bench

int main(int argc, char** argv) {
  return kshot::bench::run(argc, argv);
}
