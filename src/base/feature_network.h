// Builds a network without its head.
#pragma once

#include "kshot/network.h"

namespace kshot {

/// The layers before the last linear layer, so that their outputs are the inputs of that layer. The
/// parameters keep their names, and are the first parameters of `network`. Throws Error where none
/// of these layers has weights.
Network feature_network(const Network& network);

}  // namespace kshot
