// Small matrices of a wave's tasks on a GPU (backend/linear_algebra.h).
#pragma once

#include <memory>

#include "backend/cuda/cuda_wave.h"
#include "backend/linear_algebra.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// The linear algebra of a wave, which must outlive it.
template <class T>
std::unique_ptr<backend::LinearAlgebra> make_linear_algebra(CudaWave<T>& wave);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
