// Generated weights on the cpu's waves (backend/generator.h). The shared networks act on the rows
// of all tasks of a wave together, which are copied from and to the wave's own layout.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "backend/cpu/cpu_wave.h"
#include "backend/generator.h"

namespace kshot::backend::cpu {

/// The part that does not depend on how the networks are computed: latents drawn from statistics.
class LatentGenerator : public Generator {
 public:
  LatentGenerator(CpuWave& wave, const GeneratorSpec& spec);

 protected:
  void do_sample(Block z, Block statistics, Block eps) override;
  void do_sample_pullback(Block g_statistics, Block statistics, Block eps, Block g_z) override;
  void do_kl(Kl kind, double weight, Block statistics, Block z, Block eps, Block value,
             Block g_statistics) override;

  using Values = std::vector<float>;

  Values vector(Block block, int task) const;

  CpuWave& wave_;
  GeneratorSpec spec_;
  std::size_t groups_, latents_, latent_, weights_;  ///< N, C, L, P

 private:
  /// Standard deviations of a task's latents, and their derivatives by u.
  struct Deviations {
    Values value, slope;  ///< [N, L]; `value` is padded to whole vectors
  };
  Deviations deviations(const Values& statistics) const;
  /// Calls body(index in the latents, index in [N, L], index of its mean in the statistics).
  template <typename F>
  void each_latent(const F& body) const {
    std::size_t i = 0;
    for (std::size_t g = 0; g < groups_; ++g) {
      for (std::size_t c = 0; c < latents_; ++c) {
        for (std::size_t l = 0; l < latent_; ++l) {
          body(i++, g * latent_ + l, g * 2 * latent_ + l);
        }
      }
    }
  }
  template <typename F>
  void for_latents(Block statistics, Block eps, const F& body) {
    for (int task = 0; task < wave_.count(); ++task) {
      body(task, vector(statistics, task), eps ? vector(eps, task) : Values{});
    }
  }
};

/// A generator for any networks, on the rows of all tasks together.
std::unique_ptr<Generator> make_generator(CpuWave& wave, const GeneratorSpec& spec);

}  // namespace kshot::backend::cpu
