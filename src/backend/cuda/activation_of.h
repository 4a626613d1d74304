// Maps the type of a layer to the kernels' name for its activation.
#pragma once

#include <optional>

#include "kernels/activation.h"
#include "kshot/network.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// Empty for a layer that is not an activation.
inline std::optional<Activation> activation_of(LayerType type) {
  switch (type) {
    case LayerType::relu:
      return Activation::relu;
    case LayerType::tanh:
      return Activation::tanh;
    case LayerType::leaky_relu:
      return Activation::leaky_relu;
    default:
      return {};
  }
}

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
