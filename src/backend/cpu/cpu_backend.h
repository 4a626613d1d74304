// The cpu backend: float, one wave a thread, instruction set chosen at run time.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace kshot::backend {

/// threads = 0: all cores.
std::unique_ptr<Backend> make_cpu_backend(int threads);

}  // namespace kshot::backend
