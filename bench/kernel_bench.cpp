#include "bench/kernel_bench.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <vector>

#include "bench/kernel_works.h"
#include "kernels/runtime.h"

namespace kshot::bench {
namespace {

int ordinal(const std::string& device) {
  const std::size_t colon = device.find(':');
  return colon == device.npos ? 0 : std::stoi(device.substr(colon + 1));
}

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  KSHOT_CUDA_CHECK(cudaDeviceGetAttribute(&value, which, device));
  return value;
}

class Event {
 public:
  Event() { KSHOT_CUDA_CHECK(cudaEventCreate(&event_)); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record() { KSHOT_CUDA_CHECK(cudaEventRecord(event_, nullptr)); }
  /// Returns the seconds between two events, after it has waited for both.
  double seconds_since(const Event& start) const {
    KSHOT_CUDA_CHECK(cudaEventSynchronize(event_));
    float milliseconds = 0.0f;
    KSHOT_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, start.event_, event_));
    return milliseconds * 1e-3;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

void time_kernel(benchmark::State& state, const cuda::KernelWork& work, const DevicePeak& peak,
                 int device) {
  constexpr int most_launches = 64;
  KSHOT_CUDA_CHECK(cudaSetDevice(device));
  cuda::Arena arena;
  const cuda::KernelWork::Run run = work.prepare(arena);
  Event start, end;
  const auto seconds_of = [&](int launches) {
    start.record();
    for (int i = 0; i < launches; ++i) run(nullptr);
    end.record();
    return end.seconds_since(start) / launches;
  };
  seconds_of(1);  // the first launch loads the code
  // There are so many launches between two events that the time of one launch is hidden.
  const int launches =
      std::clamp(static_cast<int>(1e-3 / std::max(seconds_of(3), 1e-7)), 1, most_launches);
  double total = 0;
  for (auto _ : state) {
    const double seconds = seconds_of(launches);
    state.SetIterationTime(seconds);
    total += seconds;
  }
  const double each = total / static_cast<double>(state.iterations());
  state.counters["bytes_per_second"] = work.bytes / each;
  state.counters["share_of_memory"] = work.bytes / each / peak.bytes;
  state.counters["FLOP/s"] = work.flops / each;
  state.counters["share_of_fp32"] = work.flops / each / peak.flops;
  state.counters["tasks"] = work.tasks;
}

}  // namespace

DevicePeak device_peak(const std::string& device) {
  const int id = ordinal(device);
  const int major = attribute(cudaDevAttrComputeCapabilityMajor, id),
            minor = attribute(cudaDevAttrComputeCapabilityMinor, id);
  // FP32 units per multiprocessor (CUDA programming guide, "Arithmetic Instructions").
  const double units = major == 7 || (major == 8 && minor == 0) ? 64 : 128;
  const double clock = 1e3 * attribute(cudaDevAttrClockRate, id);
  // The memory makes two transfers per cycle.
  const double memory = 2e3 * attribute(cudaDevAttrMemoryClockRate, id) *
                        attribute(cudaDevAttrGlobalMemoryBusWidth, id) / 8;
  return {2 * units * clock * attribute(cudaDevAttrMultiProcessorCount, id), memory};
}

std::size_t device_bytes_taken() {
  std::size_t free = 0, total = 0;
  KSHOT_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return total - free;
}

void register_kernels(const std::string& device) {
  const DevicePeak peak = device_peak(device);
  for (cuda::KernelWork& work : cuda::kernel_works(/*smoke=*/false)) {
    const std::string name = "kernel/" + work.name;
    benchmark::RegisterBenchmark(name.c_str(),
                                 [work, peak, id = ordinal(device)](benchmark::State& state) {
                                   try {
                                     time_kernel(state, work, peak, id);
                                   } catch (const Error& error) {
                                     state.SkipWithError(error.what());
                                   }
                                 })
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond);
  }
}

}  // namespace kshot::bench
