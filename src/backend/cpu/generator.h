// Generated weights on the cpu's waves (backend/generator.h): the shared networks act on rows of
// all tasks of a wave at once, which are copied from and to the wave's own layout.
#pragma once

#include <memory>

#include "backend/cpu/cpu_wave.h"
#include "backend/generator.h"

namespace kshot::backend::cpu {

/// std(u; offset) = max(exp(u) - (1 - offset), least_std), and its derivative by u.
struct Deviation {
  float value, slope;
};
Deviation deviation(float u, float offset);

std::unique_ptr<Generator> make_generator(CpuWave& wave, const GeneratorSpec& spec);

}  // namespace kshot::backend::cpu
