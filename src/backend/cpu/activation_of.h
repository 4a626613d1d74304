// Maps the type of an activation layer to the kernels' name for it.
#pragma once

#include <stdexcept>

#include "backend/cpu/kernels.h"
#include "kshot/network.h"

namespace kshot::backend::cpu {

inline Activation activation_of(LayerType type) {
  switch (type) {
    case LayerType::relu:
      return Activation::relu;
    case LayerType::tanh:
      return Activation::tanh;
    case LayerType::leaky_relu:
      return Activation::leaky_relu;
    default:
      throw std::logic_error("a layer that is no activation");
  }
}

}  // namespace kshot::backend::cpu
