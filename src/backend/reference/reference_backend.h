// The reference backend: double precision, one task per wave, plain loops. It is written to be
// obviously right; speed does not matter.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace kshot::backend {

/// Makes the backend "reference". `threads` is the number of waves that may run concurrently; 0:
/// all cores.
std::unique_ptr<Backend> make_reference_backend(int threads);

}  // namespace kshot::backend
