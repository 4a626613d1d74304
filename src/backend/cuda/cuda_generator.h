// Generated weights on a GPU (backend/generator.h). The shared networks act on the rows of all
// tasks of a wave together.
#pragma once

#include <memory>

#include "backend/cuda/cuda_wave.h"
#include "backend/generator.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// The generator of a wave, which must outlive it.
template <class T>
std::unique_ptr<backend::Generator> make_generator(CudaWave<T>& wave,
                                                   const backend::GeneratorSpec& spec);

/// Makes demand.generator and allocates all memory that the generator otherwise allocates at first
/// use, so that it can be counted.
template <class T>
void take_generator_memory(CudaWave<T>& wave, const backend::WaveDemand& demand);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
