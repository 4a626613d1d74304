#include <memory>
#include <stdexcept>

#include "backend/backend.h"
#include "backend/linear_algebra.h"

namespace kshot::backend {

std::unique_ptr<LinearAlgebra> Wave::linear_algebra() {
  throw std::logic_error("linear_algebra is not there yet on this backend");
}

}  // namespace kshot::backend
