#include "backend/cpu/cpu_backend.h"

#include <fmt/format.h>

#include <cstdlib>
#include <string>
#include <thread>

#include "backend/cpu/cpu_wave.h"
#include "backend/cpu/kernels.h"
#include "backend/host.h"
#include "kshot/error.h"

namespace kshot::backend {
namespace cpu {

const Kernels& select_kernels() {
  const char* wanted = std::getenv("KSHOT_ISA");
  const std::string name = wanted != nullptr ? wanted : "";
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bw");
  if (name == "avx512" || (name.empty() && avx512)) {
    if (!avx512) throw DeviceError("KSHOT_ISA = avx512: this processor lacks AVX-512");
    return kernels_avx512();
  }
  if (name == "avx2" || (name.empty() && avx2)) {
    if (!avx2) throw DeviceError("KSHOT_ISA = avx2: this processor lacks AVX2 with FMA");
    return kernels_avx2();
  }
#endif
  if (!name.empty() && name != "portable") {
    throw DeviceError(fmt::format(
        "KSHOT_ISA = {}: expected portable, avx2 or avx512 (as the processor allows)", name));
  }
  return kernels_portable();
}

}  // namespace cpu

namespace {

/// Tasks go in lanes while a wave's weights, a few copies of them, stay near the second-level
/// cache.
constexpr std::size_t lane_weight_bytes = std::size_t{512} << 10;

class CpuBackend final : public HostBackend<float> {
 public:
  explicit CpuBackend(int threads)
      : kernels_(cpu::select_kernels()),
        threads_(threads > 0 ? threads
                             : std::max(1, static_cast<int>(std::thread::hardware_concurrency()))) {
  }
  std::string name() const override { return "cpu"; }
  std::string description() const override {
    return fmt::format("cpu, {} ({} floats a vector), {} thread{}", kernels_.name, kernels_.lanes,
                       threads_, threads_ == 1 ? "" : "s");
  }
  Precision precision() const override { return Precision::f32; }
  int concurrency() const override { return threads_; }
  std::unique_ptr<Wave> open(std::shared_ptr<const Network> network, const Loss& loss,
                             const WaveShape& shape) override {
    const std::size_t bytes =
        network->size() * static_cast<std::size_t>(kernels_.lanes) * sizeof(float);
    // A generated head is one matrix product, its generator several: single tasks keep all threads
    // busy with meta-batches of a dozen.
    const bool head = shape.generated && network->layers().size() == 1;
    if (network->is_plain_mlp() && bytes <= lane_weight_bytes && !head) {
      return cpu::make_lane_wave(kernels_, std::move(network), loss, shape);
    }
    return cpu::make_single_wave(kernels_, std::move(network), loss, shape);
  }

 private:
  const cpu::Kernels& kernels_;
  int threads_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(int threads) {
  return std::make_unique<CpuBackend>(threads);
}

}  // namespace kshot::backend
