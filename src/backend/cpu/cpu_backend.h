// The cpu backend: float, one wave per thread, instruction set chosen at run time.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace kshot::backend {

/// With threads = 0, the backend uses all cores.
std::unique_ptr<Backend> make_cpu_backend(int threads);

}  // namespace kshot::backend
