#include "backend/cpu/cpu_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "backend/cpu/cpu_wave.h"
#include "backend/cpu/feature_wave.h"
#include "backend/cpu/head_wave.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/shared_network.h"
#include "backend/host.h"
#include "kshot/error.h"

namespace kshot::backend {
namespace cpu {

const Kernels& select_kernels() {
  const char* setting = std::getenv("KSHOT_ISA");
  const std::string name = setting != nullptr ? setting : "";
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

/// Largest size of one weight vector of W tasks for which a perceptron's tasks share SIMD lanes. A
/// wave uses a few such vectors, and they must stay near the second-level cache.
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
    if (cpu::HeadWave::supports(*network, loss, shape)) {
      return std::make_unique<cpu::HeadWave>(kernels_, std::move(network), loss, shape);
    }
    if (cpu::FeatureWave::supports(*network, shape)) {
      return std::make_unique<cpu::FeatureWave>(kernels_, std::move(network), loss, shape);
    }
    if (network->is_plain_mlp() && bytes <= lane_weight_bytes) {
      return cpu::make_lane_wave(kernels_, std::move(network), loss, shape);
    }
    return cpu::make_single_wave(kernels_, std::move(network), loss, shape);
  }

  /// Same result as the host's function. The two matrix products run on the SIMD kernels, and the
  /// columns' lengths enter as factors of the [columns, columns] matrix.
  void column_orthogonality(const SharedVector& v, std::size_t offset, std::size_t rows,
                            std::size_t columns, double weight, SharedVector& g,
                            Sum sum_to) override {
    if (columns % static_cast<std::size_t>(kernels_.lanes) != 0) {
      return HostBackend::column_orthogonality(v, offset, rows, columns, weight, g, sum_to);
    }
    const float* d = host<float>(v).data() + offset;
    float* to = host<float>(g).data() + offset;
    const int m = static_cast<int>(rows), n = static_cast<int>(columns);
    std::vector<float> matrix(columns * columns);
    // Each worker computes its own rows of the result.
    const auto split = [&](int all, const std::function<void(cpu::Products&, int, int)>& rows_of) {
      const int part = (all + threads_ - 1) / threads_;
      pool().run(static_cast<std::size_t>(threads_), [&](std::size_t, std::size_t item) {
        cpu::Products products(kernels_);
        const int first = std::min(all, static_cast<int>(item) * part);
        rows_of(products, first, std::min(all, first + part) - first);
      });
    };
    split(n, [&](cpu::Products& products, int first, int count) {
      products.multiply(count, n, m, d + first, 1, columns, d, columns,
                        matrix.data() + static_cast<std::ptrdiff_t>(first) * n, columns, false);
    });
    std::vector<double> inverse(columns);
    for (std::size_t a = 0; a < columns; ++a) {
      inverse[a] = 1.0 / std::sqrt(static_cast<double>(matrix[a * columns + a]));
    }
    const double share = weight / static_cast<double>(columns * columns);
    double value = 0.0;
    // The matrix is overwritten with the right factor of the gradient: g += d * matrix.
    for (std::size_t a = 0; a < columns; ++a) {
      double along = 0.0;
      for (std::size_t b = 0; b < columns; ++b) {
        float& entry = matrix[a * columns + b];
        const double cosine = a == b ? 1.0 : static_cast<double>(entry) * inverse[a] * inverse[b];
        const double off = a == b ? 0.0 : cosine;
        value += share * off * off;
        along += off * cosine;
        entry = static_cast<float>(4.0 * share * off * inverse[a] * inverse[b]);
      }
      matrix[a * columns + a] -= static_cast<float>(4.0 * share * along * inverse[a] * inverse[a]);
    }
    split(m, [&](cpu::Products& products, int first, int count) {
      const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(first) * n;
      products.multiply(count, n, n, d + at, columns, 1, matrix.data(), columns, to + at, columns,
                        true);
    });
    sum_to.step.add(sum_to.statistic, value);
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
