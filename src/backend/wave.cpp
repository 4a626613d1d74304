#include <memory>
#include <stdexcept>

#include "backend/backend.h"
#include "backend/linear_algebra.h"
#include "kshot/error.h"

namespace kshot::backend {

std::unique_ptr<LinearAlgebra> Wave::linear_algebra() {
  throw DeviceError(
      "this backend does not have the small matrices that closed-form heads are composed of yet; "
      "expected --device reference");
}

}  // namespace kshot::backend
