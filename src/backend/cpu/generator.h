// Generated weights on the cpu's waves (backend/generator.h): the shared networks act on rows of
// all tasks of a wave at once, which are copied from and to the wave's own layout.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "backend/cpu/cpu_wave.h"
#include "backend/generator.h"

namespace kshot::backend::cpu {

/// std(u; offset) = max(exp(u) - (1 - offset), least_std), and its derivative by u.
struct Deviation {
  float value, slope;
};
Deviation deviation(float u, float offset);

/// What does not depend on how the networks are computed: latents drawn from statistics.
class LatentGenerator : public Generator {
 public:
  LatentGenerator(CpuWave& wave, const GeneratorSpec& spec);

  void sample(Block z, Block statistics, Block eps) override;
  void sample_pullback(Block g_statistics, Block statistics, Block eps, Block g_z) override;
  void kl(Kl kind, double weight, Block statistics, Block z, Block eps, Block value,
          Block g_statistics) override;

 protected:
  using Values = std::vector<float>;

  Values vector(Block block, int task) const;

  CpuWave& wave_;
  GeneratorSpec spec_;
  std::size_t groups_, latents_, latent_, weights_;  ///< N, C, L, P

 private:
  /// Where the mean of latent element i lies in the statistics; its u is L further.
  std::size_t mean_of(std::size_t i) const {
    return i / (latents_ * latent_) * 2 * latent_ + i % latent_;
  }
  template <typename F>
  void for_latents(Block statistics, Block eps, const F& body) {
    for (int task = 0; task < wave_.count(); ++task) {
      body(task, vector(statistics, task), eps ? vector(eps, task) : Values{});
    }
  }
};

/// Any networks, on the rows of all tasks at once.
std::unique_ptr<Generator> make_generator(CpuWave& wave, const GeneratorSpec& spec);

}  // namespace kshot::backend::cpu
