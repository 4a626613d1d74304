// LinearAlgebra of the cpu backend: the host's implementation with the kernels of the instruction
// set in use, one run of tasks after another.
#pragma once

#include "backend/cpu/cpu_wave.h"
#include "backend/host_linear_algebra.h"

namespace kshot::backend::cpu {

class CpuLinearAlgebra final : public HostLinearAlgebra<float> {
 public:
  explicit CpuLinearAlgebra(CpuWave& wave)
      : HostLinearAlgebra(
            wave, Precision::f32,
            wave.run_tasks() == 1 ? wave.kernels().dense_single() : wave.kernels().dense_lanes()),
        wave_(wave) {}

 protected:
  int runs() const override { return wave_.run_count(); }
  float* run_data(Block block, int run) override { return wave_.run_data(block, run); }
  DenseCounts counts(int run) const override { return wave_.run_counts(run); }
  void do_targets(const Matrix& dst, Set set) override { wave_.put_targets(set, dst.block); }
  /// In lanes, the product is the one that perceptrons use (lane_gemm).
  void do_product(const Matrix& c, double factor, const Operand& a, const Operand& b,
                  bool accumulate) override;

 private:
  CpuWave& wave_;
};

}  // namespace kshot::backend::cpu
