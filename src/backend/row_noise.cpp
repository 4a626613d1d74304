#include "backend/row_noise.h"

#include <stdexcept>

namespace kshot::backend {

RowNoiseLayout row_noise_layout(const Network& network, Estimator estimator) {
  RowNoiseLayout layout;
  for (const Layer& layer : network.layers()) {
    RowNoiseLayout::Part part;
    const bool splits = layer.type == LayerType::conv || layer.type == LayerType::linear;
    if (splits && estimator == Estimator::flipout) {
      const bool conv = layer.type == LayerType::conv;
      part.in_width = static_cast<std::size_t>(conv ? layer.in.channels : layer.in.size());
      part.out_width = static_cast<std::size_t>(layer.out.channels);
    } else if (splits && estimator == Estimator::local) {
      part.out_width = static_cast<std::size_t>(layer.out.size());
    }
    part.in = layout.width;
    part.out = part.in + part.in_width;
    layout.width = part.out + part.out_width;
    layout.layers.push_back(part);
  }
  return layout;
}

RandomKey row_key(const RandomKey& key, bool query) {
  RandomKey rows = key;
  switch (key.purpose) {
    case Purpose::noise_inner:
      rows.purpose = query ? Purpose::rows_inner_query : Purpose::rows_inner_support;
      break;
    case Purpose::noise_outer:
      rows.purpose = query ? Purpose::rows_outer_query : Purpose::rows_outer_support;
      break;
    default:
      throw std::logic_error("noise by rows is that of an inner step or of the outer loss");
  }
  return rows;
}

}  // namespace kshot::backend
