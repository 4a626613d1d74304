// Generated weights on a GPU (backend/generator.h): the shared networks act on rows of all tasks of
// a wave at once.
#pragma once

#include <memory>

#include "backend/cuda/cuda_wave.h"
#include "backend/generator.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// On the wave, which must outlive it.
template <class T>
std::unique_ptr<backend::Generator> make_generator(CudaWave<T>& wave,
                                                   const backend::GeneratorSpec& spec);

/// Makes demand.generator and takes what it otherwise takes when it is first needed: for counting.
template <class T>
void take_generator_memory(CudaWave<T>& wave, const backend::WaveDemand& demand);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
