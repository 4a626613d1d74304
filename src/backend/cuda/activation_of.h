// The kernels' name of a layer's activation.
#pragma once

#include <optional>

#include "kernels/activation.h"
#include "kshot/network.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// None for a layer that is no activation.
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
