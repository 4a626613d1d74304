#include "fma_peak.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#define KSHOT_TARGET(isa) __attribute__((target(isa)))
#else
#define KSHOT_TARGET(isa)
#endif

namespace kshot::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int chains = 12;  // enough to hide a latency of 4 to 6 cycles on two or three pipes
constexpr int rounds = 4096;

// One loop for vectors of each width: `rounds` dependent multiply-adds on each of `chains`
// registers. It is a macro because the attribute `target` has no effect through a template.
#define KSHOT_FMA_LOOP(name, isa, bytes)                                      \
  KSHOT_TARGET(isa) float name(float factor, float term) {                    \
    using Vector __attribute__((vector_size(bytes))) = float;                 \
    const Vector a = Vector{} + factor, b = Vector{} + term;                  \
    Vector x[chains];                                                         \
    for (int c = 0; c < chains; ++c) x[c] = Vector{} + static_cast<float>(c); \
    for (int r = 0; r < rounds; ++r) {                                        \
      _Pragma("GCC unroll 12") for (int c = 0; c < chains; ++c) {             \
        x[c] = x[c] * a + b;                                                  \
      }                                                                       \
    }                                                                         \
    for (int c = 1; c < chains; ++c) x[0] += x[c];                            \
    return x[0][0];                                                           \
  }

KSHOT_FMA_LOOP(loop_portable, "default", 16)
#if defined(__x86_64__)
KSHOT_FMA_LOOP(loop_avx2, "avx2,fma", 32)
KSHOT_FMA_LOOP(loop_avx512, "avx512f,avx512vl,fma", 64)
#endif

struct Loop {
  const char* name;
  float (*run)(float factor, float term);
  int lanes;
};

Loop best_loop() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")) {
    return {"AVX-512", loop_avx512, 16};
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return {"AVX2", loop_avx2, 8};
  }
#endif
  return {"portable", loop_portable, 4};
}

double measure_flops(const Loop& loop, int threads, double seconds) {
  std::atomic<int> ready{0};
  std::vector<double> rates(static_cast<std::size_t>(threads));
  std::vector<std::thread> workers;
  for (int t = 0; t < threads; ++t) {
    workers.emplace_back([&, t] {
      volatile float sink = loop.run(0.999f, 0.001f);
      ++ready;
      while (ready < threads) std::this_thread::yield();
      const auto start = Clock::now();
      double elapsed = 0.0, calls = 0.0;
      while (elapsed < seconds) {
        sink = loop.run(0.999f, 0.001f);
        calls += 1.0;
        elapsed = std::chrono::duration<double>(Clock::now() - start).count();
      }
      static_cast<void>(sink);
      rates[static_cast<std::size_t>(t)] = calls * 2.0 * rounds * chains * loop.lanes / elapsed;
    });
  }
  for (std::thread& worker : workers) worker.join();
  double sum = 0.0;
  for (double rate : rates) sum += rate;
  return sum;
}

}  // namespace

std::string fma_instruction_set() {
  return best_loop().name;
}

double fma_peak(int threads, double seconds, int tries) {
  const Loop loop = best_loop();
  double best = 0.0;
  for (int i = 0; i < tries; ++i) best = std::max(best, measure_flops(loop, threads, seconds));
  return best;
}

}  // namespace kshot::bench
