// A network without its head.
#pragma once

#include "kshot/network.h"

namespace kshot {

/// The layers before the last linear one, whose inputs they give: the same names, and parameters
/// that are the first of the network's. Throws Error where none of these layers has weights.
Network feature_network(const Network& network);

}  // namespace kshot
