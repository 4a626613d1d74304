// The backend to trust: double precision, one task a wave, plain loops; speed does not matter.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace kshot::backend {

/// "reference". `threads` is the number of waves that may run at once; 0: all cores.
std::unique_ptr<Backend> make_reference_backend(int threads);

}  // namespace kshot::backend
