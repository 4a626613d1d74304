// Noise by rows under Gaussian weights (NetworkPasses::SplitPass): the positions of a row's numbers
// in the random stream. They are the same on every backend.
//
// Row r of a set uses the elements [r * width, (r + 1) * width) of the stream of its set (row_key).
// The numbers of a layer begin at its offsets `in` and `out` within these elements. flipout draws
// signs (sign_element): one per input channel and one per output channel (for a linear layer, per
// feature). local draws normal numbers (normal_element): one per element of the layer's output,
// [C][H][W].
#pragma once

#include <cstddef>
#include <vector>

#include "backend/backend.h"
#include "kshot/network.h"
#include "kshot/random.h"

namespace kshot::backend {

/// The elements of a row's noise, and which of them belong to which layer.
struct RowNoiseLayout {
  struct Part {
    std::size_t in = 0, out = 0;              ///< offsets within a row's elements
    std::size_t in_width = 0, out_width = 0;  ///< zero where the layer has no such noise
  };
  std::size_t width = 0;
  std::vector<Part> layers;  ///< one per layer of the network
};

RowNoiseLayout row_noise_layout(const Network& network, Estimator estimator);

/// The stream of the support rows or of the query rows for a sample's key. The purpose of the key
/// must be Purpose::noise_inner or noise_outer.
RandomKey row_key(const RandomKey& key, bool query);

}  // namespace kshot::backend
