// Noise by rows under Gaussian weights (backend.h, SplitPass): where a row's numbers lie in the
// stream that they are drawn from. The same on every backend.
//
// Row r of a set takes the elements [r * width, (r + 1) * width) of its set's stream (row_key); a
// layer's numbers lie at its `in` and `out` within them. flipout's are signs (sign_element), one an
// input and one an output channel (linear: feature); local's are normals (normal_element), one an
// element of the layer's output, [C][H][W].
#pragma once

#include <cstddef>
#include <vector>

#include "backend/backend.h"
#include "kshot/network.h"
#include "kshot/random.h"

namespace kshot::backend {

struct RowNoiseLayout {
  struct Part {
    std::size_t in = 0, out = 0;              ///< offsets within a row
    std::size_t in_width = 0, out_width = 0;  ///< zero where the layer has no such noise
  };
  std::size_t width = 0;
  std::vector<Part> layers;  ///< one a layer of the network
};

RowNoiseLayout row_noise_layout(const Network& network, Estimator estimator);

/// The stream of the support or the query rows that belongs to a sample's key (Purpose::noise_inner
/// or noise_outer).
RandomKey row_key(const RandomKey& key, bool query);

}  // namespace kshot::backend
